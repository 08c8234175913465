# SPDX-License-Identifier: Apache-2.0
"""A loss of an epoch under way: how often a party tells its own, and how the driver puts them together."""

from itertools import pairwise

import pytest

from fedray.errors import PartyLost
from fedray.metrics import Mean
from fedray.ml.nn.running import EVERY_SECONDS, RunningLoss
from fedray.party.door.egress import Kind
from fedray.party.training.so_far import LEAST_ROWS, SoFar


def told(so_far, rounds, rows, steps=None, alike=True):
    """Asks after every round of an epoch, in which a row's loss is 1; returns over how many rows the answers are."""
    so_far.begin(rounds * rows if alike else 0)
    answers = []
    for done in range(1, rounds + 1):
        answers.append(so_far.answer())
        so_far.note(done, steps or rounds, rows, lambda seen=done * rows: Mean("loss", float(seen), float(seen)))
    answers.append(so_far.answer())
    assert all(answer is None or answer.kind is Kind.METRICS for answer in answers)
    return [answer.value[1] for answer in answers if answer is not None]


@pytest.mark.parametrize(
    ("rounds", "rows", "answers"),
    [
        (1000, 20, [1000.0 * 2 * tenth for tenth in range(1, 10)]),  # a tenth of the epoch is what holds
        (30, 20, [100.0 * part for part in range(1, 6)]),  # so many rows are, and the epoch's end has a report
        (5, 1000, [1000.0, 2000.0, 3000.0, 4000.0]),
        (26, 10, [100.0]),  # after 200 the report at the end would tell of 60
        (99, 1, []),
        (1, 5000, []),
    ],
)
def test_whoever_asks_all_the_time_learns_of_many_rows_together(rounds, rows, answers):
    so_far = SoFar(True)
    assert told(so_far, rounds, rows) == answers
    assert told(so_far, rounds, rows) == answers  # and of the next epoch anew
    for before, after in pairwise([0.0, *answers, float(rounds * rows)] if answers else []):
        assert after - before >= LEAST_ROWS


def test_who_keeps_its_metrics_to_itself_tells_nothing():
    assert told(SoFar(False), 1000, 20) == []


def test_of_rows_with_weights_and_of_drawn_ones_nothing_is_told():
    assert told(SoFar(True), 1000, 20, alike=False) == []


def test_nobody_looks_where_nobody_asks():
    def read():
        raise AssertionError

    for so_far, asks in ((SoFar(True), False), (SoFar(False), True)):
        for done in range(1, 1001):
            if asks:
                assert so_far.answer() is None
            so_far.note(done, 1000, 200, read)


def test_an_answer_is_given_once_and_in_its_epoch():
    so_far = SoFar(True)
    so_far.begin(1000)
    so_far.answer()
    so_far.note(5, 10, 500, lambda: Mean("loss", 250.0, 500.0))
    assert so_far.answer().value == (250.0, 500.0)
    assert so_far.answer() is None
    so_far.note(7, 10, 500, lambda: Mean("loss", 300.0, 700.0))
    so_far.begin(1000)
    assert so_far.answer() is None
    so_far.answer()
    so_far.note(5, 10, 500, lambda: None)  # a model without a loss that is a mean
    assert so_far.answer() is None


class Parties:
    """Parties that answer when they are let, in the place of a session."""

    def __init__(self, **answers):
        self.answers, self.ready, self.asked, self.now = answers, True, [], 0.0

    def statement(self, name):
        return name

    def watch(self, party, key, label):
        assert key == party.upper()
        self.asked.append(party)
        if self.answers[party] is StopIteration:
            raise PartyLost("its process has ended", party=party)
        return party

    def wait(self, refs, timeout):
        assert timeout == 0.0  # whoever draws a bar must not hold up the rounds
        return refs if self.ready else []

    def get(self, refs):
        found = self.answers[refs[0]]
        if found is PartyLost:
            raise PartyLost("its process has ended", party=refs[0])
        return [found]

    def running(self):
        return RunningLoss(self, {party: party.upper() for party in self.answers}, lambda: self.now)


def test_the_loss_so_far_is_over_the_rows_of_all_who_have_told_theirs():
    parties = Parties(alice=(10.0, 100.0), bob=(90.0, 300.0), carol=None)
    running = parties.running()
    assert running.look() is None
    assert not parties.asked  # short epochs ask nobody
    parties.now = EVERY_SECONDS
    parties.ready = False
    assert [running.look() for _ in range(3)] == [None] * 3
    assert sorted(parties.asked) == ["alice", "bob", "carol"]  # once, however long they take
    parties.ready = True
    assert running.look() == 0.25
    parties.answers = {"alice": (30.0, 200.0), "bob": None, "carol": None}
    parties.now += EVERY_SECONDS
    running.look()
    assert running.look() == 120.0 / 500.0  # nothing new of bob's: what he told holds
    running.begin()
    assert running.look() is None


def test_parties_that_are_gone_are_asked_no_more_and_nothing_fails():
    parties = Parties(alice=(10.0, 100.0), bob=PartyLost, carol=StopIteration)
    running = parties.running()
    for _ in range(3):
        parties.now += EVERY_SECONDS
        running.look()
        assert running.look() == 0.1
    assert sorted(parties.asked) == ["alice"] * 3 + ["bob", "carol"]
