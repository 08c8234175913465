# SPDX-License-Identifier: Apache-2.0
"""Supervision of one segment by the driver: who reports, who is lost, and when it is given up.

Waits for the parties and for the server's news, whichever comes first. Knows no protocol, no model and no data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from fedray.errors import EncodingError, FedRayError, PartyLost, PartyTimeout, ProtocolError, ServerFault, shown
from fedray.party.records import Missing, Progress
from fedray.protocol.scheme import Fault
from fedray.rounds.awaited import Awaited
from fedray.runtime.session import Session
from fedray.types import Key, PartyName, Ref

_log = logging.getLogger("fedray")

REMEDY = "Start again with sf.shutdown() and sf.init(...)"

GRACE_SECONDS = 5.0
"""How long the parties may take to notice that their segment was given up."""

AWAY_SECONDS = 1.0
"""How long the driver waits, when all others have reported, for a party that the server waits for no longer."""

SERVER_SECONDS = 30.0
"""How long the server may be silent at least; it answers the driver every quarter of a second."""


@dataclass(frozen=True, slots=True)
class SegmentOutcome:
    """What came of a segment.

    Attributes:
        reports: What each party that went through it reports.
        missing: Every party that was missing from a round of it, as the server says.
        dead: Parties whose process has ended.
        busy: Parties that are still at it though the others have finished, and their calls.
        again: How many rounds of it were repeats.
        failed: Parties whose part failed though the server does not say that they were missing, and what they raised.
    """

    reports: dict[PartyName, Any]
    missing: tuple[Missing, ...]
    dead: frozenset[PartyName]
    busy: dict[PartyName, Ref]
    again: int = 0
    failed: Mapping[PartyName, FedRayError] = field(default_factory=dict)


class Supervision:
    """One segment under way.

    Args:
        session: The running session.
        round_server: The server and the key of its `RoundServer`.
        calls: Each party's segment.
        on_round: Called with the number of rounds that are over, at all of the server's news.
        patience: Seconds that a party may take longer for the segment than the first that has reported.
        compute: Compute party -> key of its `ComputeParty`: none of them may be lost.
        awaited: Says who keeps a round waiting.

    Attributes:
        missing: Every party that was missing from a round so far.
        faults: What parties did wrong, in this segment or before.
        busy: Parties that were given up while they were at it, and their calls.
        dead: Parties whose process has ended.
    """

    def __init__(
        self,
        session: Session,
        round_server: tuple[PartyName, Key],
        calls: Mapping[PartyName, Ref],
        on_round: Callable[[int], None],
        patience: float,
        compute: Mapping[PartyName, Key] | None = None,
        awaited: Awaited | None = None,
    ) -> None:
        self._session = session
        self._server, self._round_server = round_server
        self._parties = tuple(calls)
        self._pending = dict(calls)
        self._reports: dict[PartyName, Any] = {}
        self._lost: dict[PartyName, PartyLost] = {}
        self._late: dict[PartyName, FedRayError] = {}
        self._failure: FedRayError | None = None
        self._deadline: float | None = None
        self._on_round = on_round
        self._patience = patience
        self._reported: tuple[float, float] | None = None
        self._progress = Progress(0)
        self._news: Ref | None = None
        self._asked = 0.0
        self.busy: dict[PartyName, Ref] = {}
        self._compute = dict(compute or {})
        self._awaited = awaited or Awaited(patience)
        self._alive: dict[PartyName, Ref] = {}
        self._found: dict[PartyName, tuple[Fault, ...]] = {}

    def run(self) -> SegmentOutcome:
        """Returns when every party has reported, or is lost or late without stopping the others.

        Raises:
            PartyLost: The others cannot go on without a party that was lost.
            FedRayError: What the first failing party raised.
        """
        try:
            while self._pending:
                self._step()
            if self._failure is None:
                self._settle()
        except KeyboardInterrupt:
            self._interrupt()
            raise
        if self._failure is not None:
            self._hear_last_words(self._failure)
            raise self._failure
        reports = {party: self._reports[party] for party in self._parties if party in self._reports}
        said = {one.party for one in self.missing}
        failed = {party: error for party, error in self._late.items() if party not in said}
        return SegmentOutcome(reports, self.missing, self.dead, self.busy, self._progress.again, failed)

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Every party that was missing from a round so far."""
        return self._progress.missing

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What parties did wrong, in this segment or before, as the server and the compute parties say."""
        return sum(self._found.values(), self._progress.faults)

    @property
    def dead(self) -> frozenset[PartyName]:
        """Parties whose process has ended."""
        return frozenset(self._lost)

    def _step(self) -> None:
        if self._news is None and self._failure is None:
            self._news = self._session.watch(self._server, self._round_server, self._progress.done)
            self._asked = time.monotonic()
        if self._failure is None:
            for party in self._compute.keys() - self._alive.keys() - self._pending.keys():
                self._alive[party] = self._session.watch(party, self._compute[party])
        watched = [*self._pending.values(), *self._alive.values(), *([self._news] if self._news is not None else [])]
        done = self._session.wait(watched, timeout=max(self._limit() - time.monotonic(), 0.0), first=True)
        if self._news is not None and self._news in done:
            news, self._news = self._news, None
            self._read(news)
        for party in [party for party, ref in self._alive.items() if ref in done]:
            self._check_alive(party, self._alive.pop(party))
        for party in [party for party, ref in self._pending.items() if ref in done]:
            self._collect(party, self._pending.pop(party))
        if self._pending and time.monotonic() >= self._limit():
            self._give_up()

    def _limit(self) -> float:
        """Returns until when there is something to wait for."""
        if self._deadline is not None:
            return self._deadline
        limit = self._asked + max(self._patience, SERVER_SECONDS)
        if self._reported is not None:
            first, last = self._reported
            away = self._pending.keys() <= self._progress.away
            limit = min(limit, last + AWAY_SECONDS if away else first + self._patience + GRACE_SECONDS)
        return limit

    def _give_up(self) -> None:
        """Waits no longer for whoever is still at it."""
        if self._failure is None and self._reported is None:
            seconds = max(self._patience, SERVER_SECONDS)
            self._fail(PartyTimeout(f"server {self._server!r} did not answer within {seconds:g} s"))
            return
        self.busy |= self._pending
        self._pending = {}

    def _check_alive(self, party: PartyName, ref: Ref) -> None:
        try:
            self._found[party] = _plain_faults(*self._session.get([ref]))
        except FedRayError as error:
            self._fail(error)

    def _read(self, news: Ref) -> None:
        try:
            (progress,) = self._session.get([news], SERVER_SECONDS)
        except FedRayError as error:
            self._fail(error)
            return
        self._on_round(progress.done)
        self._progress = _plain(progress)
        if told := self._awaited.look(self._progress, time.monotonic()):
            _log.warning(told)
        if self._progress.error:
            self._fail(ProtocolError(self._progress.error))

    def _collect(self, party: PartyName, ref: Ref) -> None:
        try:
            (self._reports[party],) = self._session.get([ref])
            now = time.monotonic()
            self._reported = (now if self._reported is None else self._reported[0]), now
        except PartyLost as error:
            if error.party in (self._server, *self._compute) or self._failure is not None:
                self._fail(error)
            else:
                self._lost[party] = error
                self._tell("lost", party, "its process has ended")
        # Its numbers are broken, or what it is told is: to go on without it would hide that.
        except (EncodingError, ServerFault) as error:
            self._fail(error)
        except ProtocolError as error:
            self._late[party] = error
            self._tell("lost", party, f"its part failed: {error}")
        except FedRayError as error:
            self._fail(error)

    def _settle(self) -> None:
        """Asks the server once more; without any report the segment has failed."""
        self._read(self._session.tell(self._server, self._round_server, "progress"))
        self._ask_for_faults()
        if not self._reports and self._failure is None:
            self._fail(ProtocolError("no party went through the segment"))

    def _hear_last_words(self, failure: FedRayError) -> None:
        """Asks who did wrong where a segment has failed: the first to fail may be quicker than the news of it."""
        if isinstance(failure, PartyLost | PartyTimeout):
            return
        with suppress(FedRayError):  # the failure is what counts
            news = self._session.tell(self._server, self._round_server, "progress")
            self._progress = _plain(*self._session.get([news], GRACE_SECONDS))
        self._ask_for_faults()

    def _ask_for_faults(self) -> None:
        for party, key in self._compute.items():
            with suppress(FedRayError):  # that it has ended is no news of a segment that is over
                told = self._session.get([self._session.tell(party, key, "faults")], GRACE_SECONDS)
                self._found[party] = _plain_faults(*told)

    def _fail(self, error: FedRayError) -> None:
        if self._failure is None:
            self._failure = self._cause(error)
        if self._deadline is None:
            self._deadline = time.monotonic() + GRACE_SECONDS
            self._tell("abort", str(error))

    def _cause(self, error: FedRayError) -> FedRayError:
        """Returns the error of the party because of which the others report theirs."""
        if not isinstance(error, ProtocolError) or isinstance(error, EncodingError | ServerFault):
            return error
        told = self._progress.error
        own = [late for late in self._late.values() if not told or told not in str(late)]
        cause: FedRayError = own[0] if own else error
        over = self._progress.done
        for party, lost in self._lost.items():
            return PartyLost(
                f"{str(lost).rstrip('.')}. After {over} round{'s' * (over != 1)} of the segment the others cannot go "
                f"on: {cause}. {REMEDY}",
                party=party,
            )
        return cause

    def _interrupt(self) -> None:
        self._tell("stop")
        self._session.wait(list(self._pending.values()), timeout=GRACE_SECONDS / 2)
        self._tell("abort", "interrupted by the user")
        self._session.wait(list(self._pending.values()), timeout=GRACE_SECONDS / 2)
        self.busy |= self._pending

    def _tell(self, method: str, *args: Any) -> None:
        self._session.tell(self._server, self._round_server, method, *args)
        if method != "stop":
            for party, key in self._compute.items():
                self._session.tell(party, key, method, *args)


def _plain(progress: Progress) -> Progress:
    """Returns a server's news with nothing in its texts that a terminal would act upon."""
    missing = tuple(replace(one, reason=shown(one.reason)) for one in progress.missing)
    awaited = tuple(map(shown, progress.awaited))
    faults = _plain_faults(progress.faults)
    return replace(progress, error=shown(progress.error), missing=missing, faults=faults, awaited=awaited)


def _plain_faults(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    return tuple(replace(fault, what=shown(fault.what)) for fault in faults)
