# SPDX-License-Identifier: Apache-2.0
"""Contributors and a barrier on threads of this process, under a clock that the test turns."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from pure.masking_kit import context_of, identities, manifest_of, plain_values, roster_of

from fedray.errors import ProtocolError
from fedray.party.records import Answer, Expect
from fedray.party.rounds.barrier import Barrier
from fedray.party.rounds.contributor import Contributor
from fedray.protocol.config import Config, Encoding
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.recovery import propose
from fedray.protocol.scheme import Contribution, RoundContext

MANIFEST = manifest_of(5, metrics=("loss",), weighted=False)
REPORT = manifest_of(1, metrics=("loss",), weighted=False)
TIMEOUT = 10.0
SOON = 20.0
"""Real seconds after which a test that hangs fails."""


class Died(Exception):  # noqa: N818 (it stands for the end of a process)
    """The party's process ended here."""


class World:
    """Parties p00, p01, ... and their server; `gates` may stop or end a party before its k-th message of a round."""

    def __init__(self, parties: int, part: str, batch: int = 4) -> None:
        self.now = 0.0
        self.barrier = Barrier(TIMEOUT, lambda: self.now)
        self.keys = identities(parties)
        self.roster = roster_of(self.keys)
        self.names = self.roster.names
        self.memories = {name: ModelMemory() for name in self.names}
        self.gates: dict[tuple[str, int, int], Callable[[], None]] = {}
        self.inside, self.most_inside = 0, 0
        self._awake, self._own = 0, threading.local()
        self._lock = threading.Lock()
        self._sent: dict[tuple[str, int], int] = {}
        self._pool = ThreadPoolExecutor(4 * parties + 4)
        self._part, self._batch, self._sessions = part, batch, 0
        self.contributors = {name: Contributor(self._context(name), "server", "round_server") for name in self.names}
        self.begin()

    def _context(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(
            name=name,
            member=lambda names: Member(
                name, self.keys[name], self.roster.subset(names), Policy(), self.memories[name]
            ),
            state={},
            send=lambda call, to, key, message, kind: (name, message),  # noqa: ARG005 (as a context is called)
            get=lambda sent, timeout: self._deliver(*sent),  # noqa: ARG005
        )

    def begin(self) -> None:
        """Opens a session among everybody."""
        self._sessions += 1
        if self._part == "recovery":
            self.config = propose(self.roster, ["server"], Encoding(), batch=self._batch)
        else:
            self.config = Config.propose(self._part, self.roster, ["server"], Encoding())
        ends = self.contributors.values()
        hellos = [end.hello(self.config.encode(), list(self.names), {}).value for end in ends]
        confirms = [end.confirm(hellos).value for end in ends]
        for end in ends:
            end.start(confirms, self._sessions)
        self.barrier.begin(self._sessions, self.config, self.roster, hellos, confirms)

    def _deliver(self, name: str, message: tuple) -> Answer:
        kind, session, number, body = message
        if kind == "sum":
            with self._lock:
                place = self._sent[name, number] = self._sent.get((name, number), -1) + 1
            with self._asleep():
                self.gates.pop((name, number, place), lambda: None)()
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            take = self.barrier.take if kind == "sum" else self.barrier.set_up
            with self._asleep():
                return take(name, session, number, body)
        finally:
            with self._lock:
                self.inside -= 1

    @contextmanager
    def _asleep(self) -> Iterator[None]:
        """Says that this thread waits for others."""
        ours = getattr(self._own, "exchange", False)  # keys are prepared on threads of their own
        with self._lock:
            self._awake -= ours
        try:
            yield
        finally:
            with self._lock:
                self._awake += ours

    def _exchange(self, name: str, context: RoundContext, contribution: Contribution) -> Answer:
        self._own.exchange = True
        try:
            return self.contributors[name].exchange("round", context, contribution)
        finally:
            with self._lock:
                self._awake -= 1

    def expect(self, count: int = 1, first: int = 0, report: bool = False, absent: tuple = ()) -> None:
        order = Expect(first, count, MANIFEST, "sum", REPORT if report else None, absent)
        self.barrier.expect(order, lambda opened: Answer("opened", opened.values, opened.metrics))

    def send(self, name: str, number: int, manifest=MANIFEST) -> Future:
        """Lets a party contribute `value(name)` to a round, on a thread of its own."""
        context = context_of(number, manifest, purpose="train" if manifest is MANIFEST else "evaluate")
        contribution = plain_values(np.full(manifest.size, self.value(name)), metrics=[1.0])
        with self._lock:
            self._awake += 1
        return self._pool.submit(self._exchange, name, context, contribution)

    def send_all(self, number: int, but: tuple = (), manifest=MANIFEST) -> dict[str, Future]:
        return {name: self.send(name, number, manifest) for name in self.names if name not in but}

    def value(self, name: str) -> float:
        return float(1 << self.names.index(name))

    def total(self, *names: str) -> float:
        return sum(map(self.value, names))

    def dies(self, name: str, number: int, before: int) -> None:
        """Ends a party before its message `before` (0, 1, 2) of a round; the driver learns of it at once."""

        def end() -> None:
            self.barrier.lost(name, "its process has ended")
            raise Died

        self.gates[name, number, before] = end

    def advance(self, seconds: float) -> None:
        """Turns the clock, when whoever is on the way to the barrier has come there."""
        self.settle()
        self.now += seconds
        with self.barrier._changed:
            self.barrier._changed.notify_all()

    def settle(self) -> None:
        """Waits until everybody waits for somebody, and has done so for a moment."""
        quiet, before = 0, -1
        while quiet < 3:
            time.sleep(0.04)
            quiet, before = quiet + 1 if self._awake == 0 and self.inside == before else 0, self.inside

    def stop(self) -> None:
        self.barrier.abort("the test is over")
        self._pool.shutdown()


def answers(futures: dict[str, Future]) -> dict[str, Answer]:
    """Returns everybody's answer; a party that died or raised is left out."""
    found = {name: future.exception(SOON) or future.result() for name, future in futures.items()}
    return {name: answer for name, answer in found.items() if isinstance(answer, Answer)}


def sums(found: dict[str, Answer]) -> set[float]:
    """Returns the opened sums, which must be one and the same for all."""
    return {float(value) for answer in found.values() for value in answer.values}


def verdicts(found: dict[str, Answer]) -> dict[str, str]:
    """Returns what everybody was told came of the round."""
    return {name: answer.verdict for name, answer in found.items()}


def refused(future: Future, text: str) -> None:
    """Checks that a message was answered with an error that says so."""
    with pytest.raises(ProtocolError, match=text):
        future.result(SOON)


def hold(w: World, name: str, number: int, before: int) -> threading.Event:
    """Keeps a party's message of a round back until the event is set."""
    gate = threading.Event()
    w.gates[name, number, before] = lambda: gate.wait(SOON)
    return gate
