# SPDX-License-Identifier: Apache-2.0
"""Threads around the barrier: they wait, keep the deadlines, and are woken. All else is tested without threads."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from pure.barrier_kit import MANIFEST, SOON, TIMEOUT, Told, World, sums, take
from pure.masking_kit import context_of, plain_values
from pure.test_barrier_states import GATE, PARTIES, Gathering

from fedray.errors import ProtocolError
from fedray.party.party import lane_widths
from fedray.party.records import Answer, Expect, KeyMessage, RoundMessage
from fedray.party.rounds.attendance import Attendance
from fedray.party.rounds.barrier import Barrier
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.news import News
from fedray.party.rounds.server_rounds import ServerRounds
from fedray.party.rounds.waiting_room import WaitingRoom


class Crowd:
    """Three parties on threads; the clock stands still until a test turns it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.barrier = Barrier(Attendance(TIMEOUT))
        self.barrier.announce(Gathering(self.barrier.attendance, stages=1))
        self.room = WaitingRoom(self.barrier, lambda: self.now)
        self.pool = ThreadPoolExecutor(4)

    def send(self, party: str, message: str = "good") -> Future:
        return self.pool.submit(
            self.room.deliver, lambda ticket, now: self.barrier.arrive(GATE, party, message, now, ticket)
        )

    def settle(self, waiting: int) -> None:
        """Waits until so many threads wait."""
        until = time.monotonic() + SOON
        while len(self.barrier._places[GATE].waiting) < waiting:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.fixture
def crowd():
    made = Crowd()
    yield made
    made.room.note(lambda now: made.barrier.end("round", "the test is over", now))
    made.pool.shutdown()


def test_everybody_waits_for_the_last_one(crowd):
    first = [crowd.send(party) for party in PARTIES[:2]]
    crowd.settle(2)
    assert not any(future.done() for future in first)
    assert {future.result(SOON) for future in [*first, crowd.send("carol")]} == {"0: alice, bob, carol"}


def test_whoever_waits_keeps_the_deadline(crowd):
    first = [crowd.send(party) for party in PARTIES[:2]]
    crowd.settle(2)
    crowd.now = TIMEOUT
    with crowd.room._lock:
        for condition in crowd.room._waiting.values():
            condition.notify()  # as the time that they sleep is over; nobody tells the barrier
    assert {future.result(SOON) for future in first} == {"0: alice, bob late"}


def test_one_that_is_lost_frees_the_others(crowd):
    first = [crowd.send(party) for party in PARTIES[:2]]
    crowd.settle(2)
    crowd.room.note(lambda now: crowd.barrier.lost("carol", "its process has ended", now))
    assert {future.result(SOON) for future in first} == {"0: alice, bob"}


def test_an_end_wakes_all_who_wait(crowd):
    first = [crowd.send(party) for party in PARTIES[:2]]
    crowd.settle(2)
    crowd.room.note(lambda now: crowd.barrier.end("round", "given up", now))
    assert {future.result(SOON) for future in first} == {"given up"}


def test_who_waits_for_something_else_is_not_woken(crowd):
    """The driver, who waits for news, sleeps through the rounds."""

    def watch(ticket, now):
        crowd.barrier.open(News(ticket, 2 * TIMEOUT, lambda: crowd.now > 0, lambda: "news"), ticket, "the driver", now)

    driver = crowd.pool.submit(crowd.room.deliver, watch)
    until = time.monotonic() + SOON
    while not crowd.room._waiting:
        assert time.monotonic() < until
        time.sleep(0.001)
    woken = []
    (asleep,) = crowd.room._waiting.values()
    asleep.notify = lambda: (woken.append(crowd.now), type(asleep).notify(asleep))
    assert {future.result(SOON) for future in [crowd.send(party) for party in PARTIES]} == {"0: alice, bob, carol"}
    assert woken == []
    crowd.now = 1.0
    crowd.room.note(crowd.barrier.check)
    assert driver.result(SOON) == "news"
    assert woken == [1.0]


def test_who_is_refused_does_not_wait(crowd):
    with pytest.raises(ProtocolError, match="alice: that is no message"):
        crowd.send("alice", "bad").result(SOON)
    assert crowd.barrier._places[GATE].waiting == []


class Threads:
    """A world whose contributors send from threads of their own and wait for their answers."""

    def __init__(self, **settings) -> None:
        self.world = World(**settings)
        self.rounds = ServerRounds(TIMEOUT)
        self.room = WaitingRoom(self.rounds.barrier)
        self.inside, self.most_inside, self._lock = 0, 0, threading.Lock()
        self.world.server = self
        self.world.contributors = {name: self._contributor(name) for name in self.world.names}
        self.world.begin()

    def _contributor(self, name: str) -> Contributor:
        context = vars(self.world.contributors[name]._context) | {
            "send": lambda call, to, key, message, kind, commitment: message,  # noqa: ARG005 (as a context is called)
            "get": lambda message, timeout: self.deliver(name, message),  # noqa: ARG005
        }
        return Contributor(SimpleNamespace(**context), "server", "round_server")

    def begin(self, *session) -> None:
        self.room.note(lambda now: self.rounds.begin(*session, now))

    def expect(self, count: int) -> None:
        self.room.note(lambda now: self.rounds.expect(Expect(0, count, MANIFEST), now))

    def deliver(self, name: str, message: RoundMessage | KeyMessage) -> Answer:
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            return self.room.deliver(lambda ticket, now: take(self.rounds, ticket, name, message, now))
        finally:
            with self._lock:
                self.inside -= 1

    def round(self, number: int) -> dict[str, Told]:
        def send(name: str) -> Told:
            values = plain_values(np.full(MANIFEST.size, self.world.value(name)), metrics=[1.0])
            answer = self.world.contributors[name].exchange("round", context_of(number, MANIFEST), values)
            return Told(self.world, answer)

        with ThreadPoolExecutor(len(self.world.names)) as pool:
            return dict(zip(self.world.names, pool.map(send, self.world.names), strict=True))


@pytest.mark.parametrize("scheme", ["masking", "recovery"])
def test_contributors_on_threads_sum_many_rounds(scheme):
    """With keys prepared beside the rounds, in no more threads than a party has for messages."""
    threads = Threads(parties=4, part=scheme, batch=2)
    threads.expect(12)
    for number in range(12):
        assert sums(threads.round(number)) == {threads.world.total(*threads.world.names)}
    assert threads.most_inside <= lane_widths(5)["message"] - 1
    assert threads.rounds.progress().done == 12
