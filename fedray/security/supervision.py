# SPDX-License-Identifier: Apache-2.0
"""Supervision of one segment by the driver: who reports, who is lost, and when it is given up.

Waits for the parties and for the server's news, whichever comes first. Knows no protocol, no model and no data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedray.errors import EncodingError, FedRayError, PartyLost, ProtocolError
from fedray.party.orders import Missing, Progress
from fedray.runtime.session import Session
from fedray.types import Key, PartyName, Ref

GRACE_SECONDS = 5.0
"""How long the parties may take to notice that their segment was given up."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a segment.

    Attributes:
        reports: What each party that went through it reports.
        missing: Every party that was missing from a round of it.
        dead: Parties whose process has ended.
    """

    reports: dict[PartyName, Any]
    missing: tuple[Missing, ...]
    dead: frozenset[PartyName]


class Supervision:
    """One segment under way.

    Args:
        session: The running session.
        combiner: The server and the key of its combiner.
        calls: Each party's segment.
        on_round: Called with the number of rounds that are over.
        compute: Compute party -> key of its `ComputeEnd`: none of them may be lost.
    """

    def __init__(
        self,
        session: Session,
        combiner: tuple[PartyName, Key],
        calls: Mapping[PartyName, Ref],
        on_round: Callable[[int], None],
        compute: Mapping[PartyName, Key] | None = None,
    ) -> None:
        self._session = session
        self._server, self._combiner = combiner
        self._parties = tuple(calls)
        self._pending = dict(calls)
        self._reports: dict[PartyName, Any] = {}
        self._lost: dict[PartyName, PartyLost] = {}
        self._late: dict[PartyName, FedRayError] = {}
        self._failure: FedRayError | None = None
        self._deadline: float | None = None
        self._on_round = on_round
        self._progress = Progress(0)
        self._news: Ref | None = None
        self._compute = dict(compute or {})
        self._alive: dict[PartyName, Ref] = {}

    def run(self) -> Outcome:
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
            raise self._failure
        reports = {party: self._reports[party] for party in self._parties if party in self._reports}
        return Outcome(reports, self._progress.missing, frozenset(self._lost))

    def _step(self) -> None:
        if self._news is None and self._failure is None:
            self._news = self._session.watch(self._server, self._combiner, self._progress.done)
        if self._failure is None:
            for party in self._compute.keys() - self._alive.keys() - self._pending.keys():
                self._alive[party] = self._session.watch(party, self._compute[party])
        watched = [*self._pending.values(), *self._alive.values(), *([self._news] if self._news is not None else [])]
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)
        done = self._session.wait(watched, timeout=left, first=True)
        if not done:
            self._pending.clear()
        if self._news is not None and self._news in done:
            news, self._news = self._news, None
            self._read(news)
        for party in [party for party, ref in self._alive.items() if ref in done]:
            self._check_alive(self._alive.pop(party))
        for party in [party for party, ref in self._pending.items() if ref in done]:
            self._collect(party, self._pending.pop(party))

    def _check_alive(self, ref: Ref) -> None:
        try:
            self._session.get([ref])
        except FedRayError as error:
            self._fail(error)

    def _read(self, news: Ref) -> None:
        try:
            (progress,) = self._session.get([news])
        except FedRayError as error:
            self._fail(error)
            return
        if progress.done != self._progress.done:
            self._on_round(progress.done)
        self._progress = progress
        if progress.error:
            self._fail(ProtocolError(progress.error))

    def _collect(self, party: PartyName, ref: Ref) -> None:
        try:
            (self._reports[party],) = self._session.get([ref])
        except PartyLost as error:
            if error.party in (self._server, *self._compute) or self._failure is not None:
                self._fail(error)
            else:
                self._lost[party] = error
                self._tell("lost", party, "its process has ended")
        except EncodingError as error:  # its numbers are broken: to go on without it would hide that
            self._fail(error)
        except ProtocolError as error:
            self._late[party] = error
            self._tell("lost", party, f"its part failed: {error}")
        except FedRayError as error:
            self._fail(error)

    def _settle(self) -> None:
        """Asks the server once more; without any report the segment has failed."""
        self._read(self._session.watch(self._server, self._combiner, -1))
        if not self._reports and self._failure is None:
            self._fail(ProtocolError("no party went through the segment"))

    def _fail(self, error: FedRayError) -> None:
        if self._failure is None:
            self._failure = self._cause(error)
        if self._deadline is None:
            self._deadline = time.monotonic() + GRACE_SECONDS
            self._tell("abort", str(error))

    def _cause(self, error: FedRayError) -> FedRayError:
        """Returns the error of the party because of which the others report theirs."""
        if not isinstance(error, ProtocolError):
            return error
        for party, lost in self._lost.items():
            text = f"{lost} (after {self._progress.done} rounds of the segment; {error})"
            return PartyLost(text, party=party)
        return next(iter(self._late.values()), error)

    def _interrupt(self) -> None:
        self._tell("stop")
        self._session.wait(list(self._pending.values()), timeout=GRACE_SECONDS / 2)
        self._tell("abort", "interrupted by the user")
        self._session.wait(list(self._pending.values()), timeout=GRACE_SECONDS / 2)

    def _tell(self, method: str, *args: Any) -> None:
        self._session.tell(self._server, self._combiner, method, *args)
        if method != "stop":
            for party, key in self._compute.items():
                self._session.tell(party, key, method, *args)
