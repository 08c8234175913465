# SPDX-License-Identifier: Apache-2.0
"""The barrier by itself: its table, what it refuses, and every short sequence of events among three parties."""

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from fedray.errors import ProtocolError
from fedray.party.rounds.attendance import Attendance
from fedray.party.rounds.barrier import TRANSITIONS, Barrier, Closing, Happening, Stand

PARTIES = ("alice", "bob", "carol")
TIMEOUT = 10.0
GATE = ("round", 0, 0)
REASON = "the driver said so"


@dataclass
class Gathering:
    """One message of everybody; `stages` of them, one after the other. It counts how often it is closed."""

    attendance: Attendance
    stage: int = 0
    stages: int = 2
    answered: bool = True
    came: list = field(default_factory=list)
    opened: list = field(default_factory=list)

    @property
    def gate(self):
        return "round", 0, self.stage

    def take(self, sender, message):
        if message != "good":
            raise ProtocolError(f"{sender}: that is no message")
        if sender not in self.came:
            self.came.append(sender)

    def complete(self):
        return set(PARTIES) - set(self.came) <= self.attendance.gone.keys()

    def until(self, now):
        return now + TIMEOUT

    def close(self, *, late):
        self.opened.append(self.stage)
        word = f"{self.stage}: {', '.join(sorted(self.came))}{' late' * late}"
        following = Gathering(self.attendance, self.stage + 1, self.stages, self.answered, [], self.opened)
        then = following if self.stage + 1 < self.stages else None
        return Closing((lambda _: word) if self.answered or then is None else None, then)

    def ended(self, reason):
        return reason


class Bench:
    """A barrier, a clock, and who waits; nobody sends again before it has its answer."""

    def __init__(self, answered: bool = True) -> None:
        self.barrier = Barrier(Attendance(TIMEOUT))
        self.first = Gathering(self.barrier.attendance, answered=answered)
        self.barrier.announce(self.first)
        self.now = 0.0
        self.tickets = itertools.count(1)
        self.sent = dict.fromkeys(PARTIES, 0)
        self.waits: dict[int, tuple[str, int, float]] = {}
        self.told: dict[int, object] = {}

    def apply(self, event: tuple[str, ...]) -> None:
        kind, *rest = event
        if kind == "arrive":
            self.send(*rest)
        elif kind == "lost":
            self.barrier.lost(rest[0], "its process has ended", self.now)
        elif kind == "time":
            self.now = self.barrier.deadline
            self.barrier.due(self.now)
        else:
            self.barrier.end("round", REASON, self.now)
        self.collect()

    def send(self, party: str, message: str = "good") -> int:
        ticket, stage = next(self.tickets), self.sent[party]
        self.barrier.arrive(("round", 0, stage), party, message, self.now, ticket)
        self.sent[party] = stage + 1
        self.waits[ticket] = (party, stage, self.now)
        return ticket

    def collect(self) -> None:
        """Takes the answers out; none may be for a delivery that has had one."""
        for ticket in list(self.barrier.answers):
            assert ticket in self.waits, "answered twice, or asked by nobody"
            assert ticket not in self.told
            self.told[ticket] = self.barrier.answers.pop(ticket)

    def possible(self) -> Iterator[tuple[str, ...]]:
        """Yields what may happen next."""
        unanswered = {party for ticket, (party, _, _) in self.waits.items() if ticket not in self.told}
        for party in PARTIES:
            if party in self.barrier.attendance.gone:
                continue
            yield "lost", party
            if party not in unanswered and self.barrier.stand(("round", 0, self.sent[party])) is not None:
                yield "arrive", party
        if self.barrier.deadline < math.inf:
            yield ("time",)
        yield ("end",)

    def state(self) -> object:
        """Returns everything that the barrier holds, comparable."""
        places = {
            gate: (place.stand, place.deadline, tuple(place.waiting), place.then, tuple(place.exchange.came))
            for gate, place in self.barrier._places.items()
        }
        attendance = self.barrier.attendance
        return places, dict(attendance.gone), dict(attendance.late), dict(self.barrier.answers)


def check(bench: Bench) -> None:
    """Checks what holds after every event."""
    places = bench.barrier._places.values()
    assert not any(place.waiting for place in places if place.stand is not Stand.GATHERING), "nobody waits for nothing"
    opened = bench.first.opened
    assert len(opened) == len(set(opened)), "nothing opens twice"
    by_stage: dict[int, set] = {}
    for ticket, (_, stage, since) in bench.waits.items():
        if ticket in bench.told:
            by_stage.setdefault(stage, set()).add(bench.told[ticket])
        else:
            assert bench.barrier.deadline < math.inf, "who waits has a deadline ahead"
            assert bench.barrier.deadline <= since + (bench.first.stages - stage) * TIMEOUT
            assert bench.barrier.deadline > bench.now or bench.now == since
    assert all(len(words) == 1 for words in by_stage.values()), "all are told the same"


def explore(depth: int, answered: bool, path: tuple = ()) -> Iterator[Bench]:
    """Yields the bench after every sequence of at most `depth` events that can happen."""
    bench = Bench(answered)
    for event in path:
        bench.apply(event)
    check(bench)
    following = list(bench.possible()) if depth else []
    yield bench  # the caller may go on with it
    for event in following:
        yield from explore(depth - 1, answered, (*path, event))


@pytest.mark.parametrize("events", [5, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("answered", [True, False], ids=["each step is answered", "only the last one is"])
def test_every_short_sequence_of_events_keeps_the_rules(answered, events):
    seen = dict.fromkeys(Stand, 0)
    benches = 0
    for bench in explore(events, answered):
        benches += 1
        for place in bench.barrier._places.values():
            seen[place.stand] += 1
    assert benches > {5: 2_000, 7: 50_000}[events]
    assert all(seen.values()), "every stand was reached"


@pytest.mark.parametrize("answered", [True, False])
def test_whatever_happened_an_end_answers_all_who_wait(answered):
    for bench in explore(4, answered):
        bench.apply(("end",))
        assert bench.told.keys() == bench.waits.keys()
        check(bench)


@pytest.mark.parametrize("answered", [True, False])
def test_whatever_happened_time_alone_answers_all_who_wait(answered):
    for bench in explore(4, answered):
        while bench.barrier.deadline < math.inf:
            bench.apply(("time",))
        assert bench.told.keys() == bench.waits.keys()


def refused(bench: Bench, act, text: str) -> None:
    """Checks that something raises and leaves everything as it was."""
    before = copy.deepcopy(bench.state())
    with pytest.raises(ProtocolError, match=text):
        act()
    assert bench.state() == before


def test_what_the_table_does_not_allow_raises_and_changes_nothing():
    for bench in explore(4, True):
        refused(bench, lambda bench=bench: bench.barrier.announce(bench.first), "was announced before")
        refused(bench, lambda bench=bench: bench.barrier.arrive(("round", 7, 0), "bob", "good", 0, 99), "not under way")
        if bench.barrier.deadline > bench.now:
            refused(bench, lambda bench=bench: bench.barrier.due(bench.now), "nothing is due before")
        if bench.barrier.stand(GATE) in (Stand.ANNOUNCED, Stand.GATHERING):
            refused(bench, lambda bench=bench: bench.barrier.arrive(GATE, "bob", "bad", bench.now, 99), "no message")


@pytest.mark.parametrize("stand", Stand)
@pytest.mark.parametrize("happening", Happening)
def test_each_entry_of_the_table(stand, happening):
    bench = Bench()
    place = bench.barrier._places[GATE]
    place.stand = stand
    if happening in TRANSITIONS[stand]:
        assert bench.barrier._next(place, happening) is TRANSITIONS[stand][happening]
    else:
        refused(bench, lambda: bench.barrier._next(place, happening), f"is {stand.value}, yet {happening.value}")


def test_gathering_is_left_for_good():
    """The reason why nothing is opened twice."""
    reachable = {after for stand in (Stand.CLOSED, Stand.ENDED) for after in TRANSITIONS[stand].values()}
    assert reachable == {Stand.CLOSED, Stand.ENDED}
    assert [stand for stand, row in TRANSITIONS.items() if Stand.CLOSED in row.values()] == [
        Stand.GATHERING,
        Stand.CLOSED,
    ]


def test_a_wrong_message_does_not_start_the_deadline():
    bench = Bench()
    with pytest.raises(ProtocolError):
        bench.send("bob", "bad")
    assert (bench.barrier.stand(GATE), bench.barrier.deadline) == (Stand.ANNOUNCED, math.inf)
    bench.now = 100.0
    bench.send("alice")
    assert (bench.barrier.stand(GATE), bench.barrier.deadline) == (Stand.GATHERING, 110.0)


def test_the_first_message_alone_sets_the_deadline():
    bench = Bench()
    bench.send("alice")
    bench.now = 4.0
    bench.send("bob")
    assert bench.barrier.deadline == TIMEOUT
    assert bench.barrier.deadline_of(2) == TIMEOUT
    assert bench.barrier.deadline_of(99) == math.inf


def test_a_late_party_is_back_when_its_message_is_right():
    bench = Bench()
    bench.barrier.attendance.delay(["bob"], "no message within 10 s")
    with pytest.raises(ProtocolError):
        bench.send("bob", "bad")
    assert bench.barrier.attendance.away == {"bob"}
    bench.send("bob")
    assert bench.barrier.attendance.away == frozenset()


def test_of_two_that_are_due_the_first_may_end_the_second():
    barrier = Barrier(Attendance(TIMEOUT))

    class Failing(Gathering):
        def close(self, *, late):
            return Closing(lambda _: "given up", ends="given up")

    for stage in (0, 1):
        exchange = Failing(barrier.attendance, stage=stage)
        barrier.announce(exchange)
        barrier.arrive(exchange.gate, "alice", "good", 0.0, stage)
    barrier.due(TIMEOUT)
    assert barrier.answers == {0: "given up", 1: "given up"}


def test_who_comes_late_is_told_the_same_and_its_message_is_not_read():
    bench = Bench()
    for party in ("alice", "bob"):
        bench.send(party)
    bench.apply(("time",))
    ticket = bench.send("carol", "bad, but nobody reads it")
    bench.collect()
    assert bench.told[ticket] == bench.told[1] == "0: alice, bob late"


def test_a_closing_may_end_all_others_of_its_kind_and_no_more():
    barrier = Barrier(Attendance(TIMEOUT))

    class Failing(Gathering):
        def close(self, *, late):
            return Closing(lambda _: "given up", ends="given up")

    one, other = Failing(barrier.attendance), Gathering(barrier.attendance, stage=1)
    keys = Gathering(barrier.attendance)
    keys.__class__ = type("Keys", (Gathering,), {"gate": ("keys", 0)})
    for ticket, exchange in enumerate((one, other, keys)):
        barrier.announce(exchange)
        barrier.arrive(exchange.gate, "alice", "good", 0.0, ticket)
    for party in ("bob", "carol"):
        barrier.arrive(one.gate, party, "good", 0.0)
    assert barrier.answers == {0: "given up", 1: "given up"}
    assert barrier.stand(other.gate) is Stand.ENDED
    assert barrier.stand(keys.gate) is Stand.GATHERING


def test_what_is_forgotten_is_what_nobody_waits_at():
    bench = Bench()
    bench.send("alice")
    bench.barrier.forget("round")
    assert bench.barrier.stand(GATE) is Stand.GATHERING
    bench.apply(("end",))
    bench.barrier.forget("round", but=0)
    assert bench.barrier.stand(GATE) is Stand.ENDED
    bench.barrier.forget("keys")
    assert bench.barrier.stand(GATE) is Stand.ENDED
    bench.barrier.forget("round")
    assert bench.barrier.stand(GATE) is None
