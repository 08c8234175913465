# SPDX-License-Identifier: Apache-2.0
"""SumSession: the driver's handle on one aggregator's rounds. It opens sessions and announces rounds.

The driver is in no round's path: it relays the set-up and asks the parties to run a segment. It knows no model and no
data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fedray.errors import PartyLost, PartyTimeout, ProtocolError
from fedray.party.records import Expect
from fedray.party.rounds.compute_party import ComputeParty
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.server import RoundServer
from fedray.protocol.config import Config
from fedray.protocol.manifest import Manifest
from fedray.protocol.recovery.evidence import proves
from fedray.protocol.scheme import Fault
from fedray.rounds.awaited import Awaited
from fedray.rounds.supervision import REMEDY, SegmentOutcome, Supervision
from fedray.runtime.patience import said
from fedray.runtime.session import Session
from fedray.types import Key, PartyName, Ref, Round

_log = logging.getLogger("fedray")

PATIENCE_SECONDS = 30.0
"""Seconds until it is said which parties are waited for; on a busy machine a framework takes 20 to import."""
BUSY_SECONDS = 3.0
"""The same where a party is at an earlier call: that is no work which the user has just asked for."""


def _examined(fault: Fault, roster: Mapping[PartyName, bytes]) -> tuple[Fault, str]:
    """Returns a fault without evidence that proves nothing, and what there is to its proof, in words.

    Args:
        fault: As a server or compute party tells it, whose word is not to be taken for a party's signature.
        roster: Public identity keys of all parties.
    """
    if not fault.evidence:
        return fault, "nothing proves it to others"
    try:
        # What it proves, and not that it proves the fault: a signature of every party's may be shown as one of a liar.
        return fault, f"its signature proves: {proves(fault.evidence, roster.get(fault.party, b''))}"
    except ProtocolError:
        return replace(fault, evidence=b""), "what is shown as signed by it proves nothing, and is left out"


class SumSession:
    """One `RoundServer` and the parties' ends that send to it.

    Args:
        session: The running session.
        server: The party that sums.
        round_timeout: Seconds that one exchange of a round may take after its first message.
        compute: Compute parties, where owners send shares to them and they send sums to the server.

    Attributes:
        session: The running session, of `init`; not to be taken for one of the protocol, which `open` opens.
        server: The party that sums.
        round_server: Key of its `RoundServer`.
        config: What the open session agreed on; None where none is open.
        members: Who contributed to it when it was opened.
        parties: Who contributes to it and has neither been lost nor been too late.
        compute: Compute party -> key of its `ComputeParty`.
        repeats: Rounds so far that only repeated another one, because its values did not fit.
        told: Whether parties may have been told something in rounds before, in this process or an earlier one.
    """

    def __init__(
        self,
        session: Session,
        server: PartyName,
        round_timeout: float,
        compute: Sequence[PartyName] = (),
    ) -> None:
        self.session = session
        self.server = server
        self.round_server = session.serve(server, RoundServer, round_timeout)
        self.compute: dict[PartyName, Key] = {
            party: session.serve(party, ComputeParty, server, self.round_server, round_timeout) for party in compute
        }
        self._contributors: dict[PartyName, Key] = {}
        self.config: Config | None = None
        self.members: tuple[PartyName, ...] = ()
        self.parties: tuple[PartyName, ...] = ()
        self._timeout = round_timeout
        self._awaited = Awaited(round_timeout)
        self._busy: dict[PartyName, Ref] = {}
        self._known_faults: list[Fault] = []
        self._fresh_faults: list[Fault] = []
        self._sessions = 0
        self._next: Round = 0
        self.repeats = 0
        self.told = False

    def add(self, parties: Sequence[PartyName]) -> dict[PartyName, Key]:
        """Adds parties, in roster order; returns the key of each one's `Contributor`, made here."""
        made = {party: self.session.serve(party, Contributor, self.server, self.round_server) for party in parties}
        self._contributors.update(made)
        self.parties = tuple(self._contributors)
        return made

    def compare_histories(self, parties: Sequence[PartyName]) -> None:
        """Lets parties begin anew that were told different things in training: as they are, no sum would open.

        Args:
            parties: Who will contribute to the next session.

        Raises:
            PartyLost: A party's process has ended.
            PartyTimeout: A party does not answer.
        """
        if not self.told:
            return  # nobody was told anything yet
        contributors = {party: self._contributors[party] for party in parties}
        heads = dict(zip(contributors, self._ask(contributors, "head", seconds=self._timeout), strict=True))
        if len(set(heads.values())) > 1:
            self._ask(contributors, "meet", heads, seconds=self._timeout)

    def open(self, config: Config, parties: Sequence[PartyName] | None = None) -> None:
        """Opens a protocol session.

        Args:
            config: What the server proposes.
            parties: Who contributes, in roster order; None for all.

        Raises:
            ProtocolError: A party refuses the Config, or a signature is wrong.
            PartyLost: A party's process has ended.
            PartyTimeout: A party does not answer.
        """
        # None until all has gone well: a session that was half opened must not be taken for an open one.
        self.config, self.parties = None, tuple(self._contributors) if parties is None else tuple(parties)
        self._sessions += 1
        self.told = True
        number, patience = self._sessions, max(config.set_up_timeout / 1000, self._timeout)
        members = self.compute | {party: self._contributors[party] for party in self.parties}
        # By the bytes of their names, which is how every party numbers the roster it signs.
        members = dict(sorted(members.items(), key=lambda item: item[0].encode()))
        names, proposed = list(members), config.encode()
        # Three steps, each complete before the next. The driver carries the messages, but every party checks the
        # others' signatures in them, so it can change none.
        hellos = self._ask(members, "hello", proposed, names, self.compute, seconds=patience)
        confirms = self._ask(members, "confirm", hellos, seconds=patience)
        self._ask(members, "start", confirms, number, seconds=patience)
        # The server comes last: when it has begun, everybody is ready for the first round.
        self._ask(self.compute, "begin", number, proposed, names, self.compute, seconds=patience)
        begun = (number, proposed, names, hellos, confirms)
        with self._server_named():
            self.session.get([self.session.tell(self.server, self.round_server, "begin", *begun)], patience)
        self.config, self.members, self._next = config, self.parties, 0

    def busy(self) -> frozenset[PartyName]:
        """Returns who is still at a segment that the others have finished; no other call reaches them meanwhile."""
        # Zero seconds: this only looks.
        done = self.session.wait(list(self._busy.values()), timeout=0.0) if self._busy else []
        self._busy = {party: ref for party, ref in self._busy.items() if ref not in done}
        return frozenset(self._busy)

    def await_busy(self) -> None:
        """Waits, as long as a round may take, until nobody is at a segment that the others have finished.

        Raises:
            PartyTimeout: Somebody still is.
        """
        if self._busy:
            who = ", ".join(sorted(self._busy))
            with said(f"waiting for {who}, still at a call that was interrupted or is late", BUSY_SECONDS):
                self.session.wait(list(self._busy.values()), timeout=self._timeout)
        if self.busy():
            raise PartyTimeout(
                f"{', '.join(map(repr, sorted(self._busy)))} did not finish an earlier call within {self._timeout:g} s "
                "more; try again later, or start again with sf.shutdown() and sf.init(...)"
            )

    def ask_all(self, services: Mapping[PartyName, Key], method: str, *args: Any) -> dict[PartyName, Any]:
        """Asks one service of every party the same and returns the answers, in roster order.

        Args:
            services: Party -> key of the service.
            method: Its method.
            *args: The method's arguments.
        """
        asked = {party: services[party] for party in self.parties}
        return dict(zip(asked, self._ask(asked, method, *args), strict=True))

    def _ask(
        self, services: Mapping[PartyName, Key], method: str, *args: Any, seconds: float | None = None
    ) -> list[Any]:
        calls = [self.session.ask(party, key, method, *args) for party, key in services.items()]
        work = (
            "build the model (the first time it imports its framework)" if method == "ready" else f"answer {method!r}"
        )
        with said(f"waiting for {', '.join(services)} to {work}", PATIENCE_SECONDS):
            return self.session.get(calls, seconds)

    def announce(self, manifest: Manifest, count: int, *, report: Manifest | None = None) -> Round:
        """Tells the server which rounds come next and returns the number of the first.

        Args:
            manifest: The words of each.
            count: How many.
            report: The words of a further round of metrics alone, which follows where the last one is abandoned.
        """
        first = self._next
        # The server would otherwise wait for those that are known to be gone.
        absent = tuple(party for party in self.members if party not in self.parties)
        order = Expect(first, count, manifest, report, absent)
        told = [self.session.tell(self.server, self.round_server, "expect", order)]
        # Numbers for the rounds of metrics: each may be abandoned for one party more, and is then held again under the
        # next number. No number is used twice.
        spare = len(self.members)
        told += [self.session.tell(party, key, "expect", order, spare) for party, key in self.compute.items()]
        with self._server_named():
            self.session.get(told)
        # As planned; what repeats take on top is known when the segment is over. Nobody uses a number twice.
        self._next += count + (spare if report is not None else 0)
        return first

    def run(
        self,
        services: Mapping[PartyName, Key],
        method: str,
        order: Any,
        on_round: Callable[[int], None] | None = None,
    ) -> SegmentOutcome:
        """Lets every party run a segment.

        A party that is lost or too late does not end it, as long as the others may go on without it.

        Args:
            services: Party -> key of the service that runs it.
            method: The services' method, e.g. `"train"`.
            order: Its argument.
            on_round: Called with the number of rounds that are over.

        Raises:
            PartyLost: A party's process ended and the others cannot go on; the message names party and round.
            FedRayError: What the first failing party raised. The others have put back the round under way.
        """
        calls = {party: self.session.ask(party, services[party], method, order) for party in self.parties}
        server = (self.server, self.round_server)
        on_round = on_round or (lambda _: None)
        watch = Supervision(self.session, server, calls, on_round, self._timeout, self.compute, self._awaited)
        try:
            with self._server_named():
                outcome = watch.run()
        except BaseException:
            self.config = None  # the parties may be in different rounds: the next run opens a new session
            away = {one.party for one in watch.missing} | watch.dead | watch.busy.keys()
            self.parties = tuple(party for party in self.parties if party not in away)
            raise
        finally:
            # Also after an error: their calls go on, and the next command would queue behind them.
            self._busy |= watch.busy
            self._tell(watch.faults)
        self.parties = tuple(party for party in self.parties if party in outcome.reports)
        self._next += outcome.again
        self.repeats += outcome.again
        return outcome

    def take_faults(self) -> tuple[Fault, ...]:
        """Returns what parties did wrong since this was last asked."""
        fresh, self._fresh_faults = tuple(self._fresh_faults), []
        return fresh

    def _tell(self, faults: Sequence[Fault]) -> None:
        """Warns once of each fault."""
        for fault in faults:
            if fault not in self._known_faults:
                self._known_faults.append(fault)
                kept, proof = _examined(fault, self.session.roster)
                self._fresh_faults.append(kept)
                _log.warning("round %d: party %r is at fault: %s; %s", fault.number, fault.party, fault.what, proof)

    @contextmanager
    def _server_named(self) -> Iterator[None]:
        """Words the loss of the server: without it nothing more can be opened."""
        try:
            yield
        except PartyLost as error:
            if error.party != self.server:
                raise
            text = f"{str(error).rstrip('.')}. It is the server: without it nothing more is opened. {REMEDY}"
            raise PartyLost(text, party=self.server) from error
