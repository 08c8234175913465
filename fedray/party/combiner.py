# SPDX-License-Identifier: Apache-2.0
"""Combiner: the rounds at the server. Collector, deadline, the strategy's server half, and `watch` for the driver.

Every party's delivery waits here until its round is over, and is answered with what came of it: one exchange a round.
The combiner sees protected messages and opened sums, never one party's contribution.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedray.errors import FedRayError, ProtocolError
from fedray.party.context import PartyContext, Reply
from fedray.party.egress import Kind
from fedray.party.orders import Answer, Expect
from fedray.protocol.config import Config
from fedray.protocol.scheme import Collector, Opened, View
from fedray.protocol.schemes import SCHEMES
from fedray.strategies import State, Strategy, make_strategy
from fedray.types import Message, PartyName, Round, Vector

WATCH_SECONDS = 0.25
"""How long one `watch` waits for news: what a progress bar needs."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the driver may know of a segment under way.

    Attributes:
        opened: Rounds of the segment that are over.
        error: Why the segment has ended early, or empty.
    """

    opened: int
    error: str = ""


@dataclass(slots=True)
class _Round:
    """One round while it lasts. `answers[k]` is what the deliveries of exchange k wait for."""

    number: Round
    collector: Collector
    deadline: float
    answers: list[Answer] = field(default_factory=list)


class Combiner:
    """Sums rounds for one aggregator.

    Args:
        context: The party this service lives in.
        strategy: Name and parameters of the one whose `apply` turns a mean into the next global vector; None for sums
            of the users' own values.
        round_timeout: Seconds a round may last after its first message.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        context: PartyContext,
        strategy: tuple[str, dict[str, float]] | None,
        round_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._strategy: Strategy | None = make_strategy(*strategy) if strategy else None
        self._timeout = round_timeout
        self._clock = clock
        self._changed = threading.Condition()
        self._config: Config | None = None
        self._view: View | None = None
        self._global: Vector | None = None
        self._state: State = {}
        self._expect: Expect | None = None
        self._round: _Round | None = None
        self._next: Round = 0
        self._left = 0
        self._opened = 0
        self._stop = False
        self._error = ""

    def begin(self, config: bytes, names: Sequence[PartyName]) -> None:
        """Starts a session: the next rounds sum the whole roster.

        Args:
            config: The Config that every party has accepted.
            names: The contributing parties, in roster order.
        """
        with self._changed:
            self._config, self._view = Config.decode(config), View(0, tuple(names))
            self._expect = self._round = None

    def expect(self, order: Expect) -> None:
        """Announces the rounds of a segment."""
        with self._changed:
            self._expect, self._round = order, None
            self._next, self._left = order.number, order.count
            self._opened, self._stop, self._error = 0, False, ""

    def stop(self) -> None:
        """Ends the segment after the round under way, for every party alike."""
        with self._changed:
            self._stop = True

    def abort(self, reason: str) -> None:
        """Ends the segment at once: whoever waits is told why, and nothing more is opened."""
        with self._changed:
            self._fail(reason)

    def watch(self, seen: int) -> Reply:
        """Returns the progress, as soon as it differs from `seen` rounds or after a quarter of a second."""
        with self._changed:
            self._changed.wait_for(lambda: self._opened != seen or bool(self._error), WATCH_SECONDS)
            return Reply(Kind.AGGREGATE, Progress(self._opened, self._error))

    def deliver(self, sender: PartyName, message: tuple[Any, ...]) -> Reply | None:
        """Takes one message of a party and, in a round, returns the answer when there is one.

        Args:
            sender: Who sent it, as the transport names it.
            message: `("sum", round, protocol bytes)`, `("initial", vector)` or `("pull",)`.

        Raises:
            ProtocolError: The message does not belong to the round under way.
        """
        match message:
            case ("sum", int(number), body):
                return Reply(Kind.AGGREGATE, self._take(sender, number, body))
            case ("initial", vector):
                with self._changed:
                    self._global, self._state = vector, {}
                return None
            case ("pull",):
                with self._changed:
                    return Reply(Kind.AGGREGATE, Answer("opened", values=self._global))
        raise ProtocolError(f"{sender} sent a message of unknown form to the server")

    def _take(self, sender: PartyName, number: Round, body: Message) -> Answer:
        with self._changed:
            if self._error:
                return Answer("aborted", reason=self._error)
            current = self._admit(number)
            stage = len(current.answers)
            current.collector.add(sender, body)
            if not current.collector.missing():
                self._close(current)
            while len(current.answers) <= stage:
                left = current.deadline - self._clock()
                if not self._changed.wait(max(left, 0)) and self._clock() >= current.deadline:
                    self._expire(current)
            return current.answers[stage]

    def _admit(self, number: Round) -> _Round:
        current, expect, config, view = self._round, self._expect, self._config, self._view
        if current is not None and current.number == number and not _over(current):
            return current
        if expect is None or config is None or view is None or number != self._next or self._left == 0:
            raise ProtocolError(f"round {number} is not the one under way; its message was dropped unread")
        collector = SCHEMES[config.part].collector(config, view, number, expect.manifest)
        self._round = _Round(number, collector, self._clock() + self._timeout)
        self._next, self._left = number + 1, self._left - 1
        return self._round

    def _close(self, current: _Round) -> None:
        try:
            broadcast = current.collector.advance()
            answer = (
                self._answer(current.collector.open()) if broadcast is None else Answer("next", broadcast=broadcast)
            )
        except FedRayError as error:
            self._fail(f"{type(error).__name__}: {error}")
            return
        current.answers.append(answer)
        self._opened += broadcast is None
        self._changed.notify_all()

    def _answer(self, opened: Opened) -> Answer:
        values: Any = opened.values
        if self._strategy is not None and self._expect is not None and self._expect.purpose == "train":
            if self._global is None:
                raise ProtocolError("the server has no model yet: the first party has not sent its initial vector")
            mean = opened.values.astype(np.float64, copy=False)
            self._state, values = self._strategy.apply(self._state, self._global, mean)
            values = values.astype(self._global.dtype, copy=False)
            if self._strategy.local == "train":
                self._global = values
        return Answer("opened", values, opened.metrics, opened.weight, stop=self._stop)

    def _expire(self, current: _Round) -> None:
        missing = ", ".join(sorted(current.collector.missing()))
        self._fail(f"round {current.number}: no message from {missing} within {self._timeout:g} s")

    def _fail(self, reason: str) -> None:
        self._error = self._error or reason
        if self._round is not None and not _over(self._round):
            self._round.answers.append(Answer("aborted", reason=self._error))
        self._changed.notify_all()


def _over(current: _Round) -> bool:
    return bool(current.answers) and current.answers[-1].verdict != "next"
