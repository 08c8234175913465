# SPDX-License-Identifier: Apache-2.0
"""SumSession: the driver's handle on one aggregator's rounds. It opens sessions and announces rounds.

The driver is in no round's path: it relays the set-up and asks the parties to run a segment. It knows no model and no
data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fedray.party.combiner import Combiner
from fedray.party.compute import ComputeEnd
from fedray.party.orders import Expect
from fedray.protocol.config import Config
from fedray.protocol.scheme import Manifest
from fedray.runtime.session import Session
from fedray.security.supervision import Outcome, Supervision
from fedray.types import Key, PartyName, Round

NamedStrategy: TypeAlias = tuple[str, dict[str, float]]


class SumSession:
    """One server's combiner and the parties' services that send to it.

    Args:
        session: The running session.
        server: The party that sums.
        strategy: Name and parameters of the one whose server half the combiner runs; None for plain sums.
        round_timeout: Seconds that one exchange of a round may take after its first message.
        compute: Compute parties, where owners send shares to them and they send sums to the server.

    Attributes:
        config: What the open session agreed on; None where none is open.
        parties: Who contributes to it and has not been lost.
        compute: Compute party -> key of its `ComputeEnd`.
    """

    def __init__(
        self,
        session: Session,
        server: PartyName,
        strategy: NamedStrategy | None,
        round_timeout: float,
        compute: Sequence[PartyName] = (),
    ) -> None:
        self.session = session
        self.server = server
        self.combiner = session.serve(server, Combiner, strategy, round_timeout)
        self.compute: dict[PartyName, Key] = {
            party: session.serve(party, ComputeEnd, server, self.combiner, round_timeout) for party in compute
        }
        self._services: dict[PartyName, Key] = {}
        self.config: Config | None = None
        self.parties: tuple[PartyName, ...] = ()
        self._next: Round = 0

    def add(self, services: Mapping[PartyName, Key]) -> None:
        """Adds the parties' services, in roster order; each has `hello`, `confirm` and `start`."""
        self._services.update(services)
        self.parties = tuple(self._services)

    def open(self, config: Config, parties: Sequence[PartyName] | None = None) -> None:
        """Opens a protocol session.

        Args:
            config: What the server proposes.
            parties: Who contributes, in roster order; None for all.

        Raises:
            ProtocolError: A party refuses the Config, or a signature is wrong.
            PartyLost: A party's process has ended.
        """
        self.config, self.parties = None, tuple(self._services) if parties is None else tuple(parties)
        members = self.compute | {party: self._services[party] for party in self.parties}
        members = dict(sorted(members.items(), key=lambda item: item[0].encode()))
        names, proposed = list(members), config.encode()
        hellos = self._ask(members, "hello", proposed, names, self.compute)
        confirms = self._ask(members, "confirm", hellos)
        self._ask(members, "start", confirms)
        self._ask(self.compute, "begin", proposed, names, self.compute)
        self.session.get([self.session.tell(self.server, self.combiner, "begin", proposed, names, hellos, confirms)])
        self.config, self._next = config, 0

    def ask_all(self, method: str, *args: Any) -> dict[PartyName, Any]:
        """Asks every party's service the same and returns the answers, in roster order."""
        services = {party: self._services[party] for party in self.parties}
        return dict(zip(services, self._ask(services, method, *args), strict=True))

    def _ask(self, services: Mapping[PartyName, Key], method: str, *args: Any) -> list[Any]:
        return self.session.get([self.session.ask(party, key, method, *args) for party, key in services.items()])

    def announce(self, manifest: Manifest, count: int, *, train: bool, report: Manifest | None = None) -> Round:
        """Tells the server which rounds come next and returns the number of the first.

        Args:
            manifest: The words of each.
            count: How many.
            train: Whether the sums go through the strategy.
            report: The words of a further round of metrics alone, which follows where the last one is abandoned.
        """
        first = self._next
        order = Expect(first, count, manifest, "train" if train else "sum", report)
        told = [self.session.tell(self.server, self.combiner, "expect", order)]
        spare = len(self.parties)
        told += [self.session.tell(party, key, "expect", order, spare) for party, key in self.compute.items()]
        self.session.get(told)
        self._next += count + (len(self.parties) if report is not None else 0)
        return first

    def run(self, method: str, order: Any, on_round: Callable[[int], None] | None = None) -> Outcome:
        """Lets every party run a segment.

        A party that is lost or too late does not end it, as long as the others may go on without it.

        Args:
            method: The services' method, e.g. `"train"`.
            order: Its argument.
            on_round: Called with the number of rounds that are over.

        Raises:
            PartyLost: A party's process ended and the others cannot go on; the message names party and round.
            FedRayError: What the first failing party raised. The others have put back the round under way.
        """
        calls = {party: self.session.ask(party, self._services[party], method, order) for party in self.parties}
        server = (self.server, self.combiner)
        watch = Supervision(self.session, server, calls, on_round or (lambda _: None), self.compute)
        try:
            outcome = watch.run()
        except BaseException:
            self.config = None
            raise
        self.parties = tuple(party for party in self.parties if party not in outcome.dead)
        return outcome
