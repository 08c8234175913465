# SPDX-License-Identifier: Apache-2.0
"""SumSession: the driver's handle on one aggregator's rounds. It opens sessions and announces rounds.

The driver is in no round's path: it relays the set-up and asks the parties to run a segment. It knows no model and no
data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fedray.party.combiner import Combiner
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

    Attributes:
        config: What the open session agreed on; None where none is open.
        parties: Who takes part in it and has not been lost.
    """

    def __init__(
        self, session: Session, server: PartyName, strategy: NamedStrategy | None, round_timeout: float
    ) -> None:
        self.session = session
        self.server = server
        self.combiner = session.serve(server, Combiner, strategy, round_timeout)
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
            parties: Who takes part, in roster order; None for all.

        Raises:
            ProtocolError: A party refuses the Config, or a signature is wrong.
            PartyLost: A party's process has ended.
        """
        self.config, self.parties = None, tuple(self._services) if parties is None else tuple(parties)
        names, proposed = list(self.parties), config.encode()
        hellos = list(self.ask_all("hello", proposed, names).values())
        confirms = list(self.ask_all("confirm", hellos).values())
        self.ask_all("start", confirms)
        self.session.get([self.session.tell(self.server, self.combiner, "begin", proposed, names, hellos, confirms)])
        self.config, self._next = config, 0

    def ask_all(self, method: str, *args: Any) -> dict[PartyName, Any]:
        """Asks every party's service the same and returns the answers, in roster order."""
        refs = [self.session.ask(party, self._services[party], method, *args) for party in self.parties]
        return dict(zip(self.parties, self.session.get(refs), strict=True))

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
        self.session.get([self.session.tell(self.server, self.combiner, "expect", order)])
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
        watch = Supervision(self.session, (self.server, self.combiner), calls, on_round or (lambda _: None))
        try:
            outcome = watch.run()
        except BaseException:
            self.config = None
            raise
        self.parties = tuple(party for party in self.parties if party not in outcome.dead)
        return outcome
