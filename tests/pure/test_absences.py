# SPDX-License-Identifier: Apache-2.0
"""One record and one line for each time that a party drops out, whatever the number of rounds it misses."""

import pytest

from fedray.ml.nn.absences import Absences, Stretch, stretch
from fedray.ml.nn.history import Dropout
from fedray.party.records import Missing, SumSet
from fedray.party.rounds.set_log import SetLog
from fedray.rounds.absent import UNSAID, absent, unexplained

DEAD, LATE = "its process has ended", "no message within 3 s"


@pytest.fixture
def told():
    """Returns (records, function that takes a segment and returns the lines)."""
    records = []
    absences = Absences(records)

    def take(epoch, missing, there=("alice",), first=None):
        first = (missing[0].number if missing else 0) if first is None else first
        return absences.take(epoch, Stretch(first, tuple(missing), frozenset(there)))

    return records, take


def missed(party, *numbers, reason=DEAD, abandoned=False):
    return [Missing(number, party, reason, abandoned) for number in numbers]


def test_a_party_that_ended_is_told_once_and_its_rounds_are_counted(told):
    records, take = told
    assert take(0, missed("bob", 7, 8, 9)) == ["epoch 1: bob dropped out of round 7 (its process has ended)"]
    assert take(1, missed("bob", 14, 15)) == []
    assert records == [Dropout(0, 7, "bob", DEAD, abandoned=False, rounds=5)]


def test_an_abandoned_round_is_one_record(told):
    records, take = told
    assert len(take(2, missed("bob", 3, abandoned=True))) == 1
    assert take(3, []) == []
    assert records == [Dropout(2, 3, "bob", DEAD, abandoned=True)]


def test_a_late_party_comes_back_and_drops_out_again(told):
    records, take = told
    late = missed("bob", 4, 5, reason=LATE)
    assert take(0, late, ("alice", "bob")) == [
        "epoch 1: bob dropped out of round 4 (no message within 3 s)",
        "epoch 1: bob takes part again",
    ]
    assert take(1, [], ("alice", "bob")) == []
    assert take(2, missed("bob", 20)) == ["epoch 3: bob dropped out of round 20 (its process has ended)"]
    assert [(one.round, one.rounds) for one in records] == [(4, 2), (20, 1)]


def test_who_comes_and_goes_within_a_segment_has_a_record_each_time(told):
    records, take = told
    take(0, missed("bob", 4, 5, 9, 10, 11, reason=LATE))
    assert [(one.round, one.rounds) for one in records] == [(4, 2), (9, 3)]


def test_parties_are_told_apart(told):
    records, take = told
    both = [one for number in (1, 2) for party in ("bob", "carol") for one in missed(party, number)]
    assert len(take(0, both)) == 2
    assert [(one.party, one.round, one.rounds) for one in records] == [("bob", 1, 2), ("carol", 1, 2)]


def test_an_absence_goes_on_in_another_session(told):
    records, take = told
    take(0, missed("bob", 6, 7), first=4)
    assert take(0, missed("bob", 0, 1, 2), first=0) == []
    assert take(1, missed("bob", 0, 1), first=0) == []
    assert records == [Dropout(0, 6, "bob", DEAD, abandoned=False, rounds=7)]


def test_who_is_back_in_another_session_and_goes_again_has_two_records(told):
    records, take = told
    take(0, missed("bob", 6, 7), first=4)
    take(0, missed("bob", 2), first=0)
    assert [(one.round, one.rounds) for one in records] == [(6, 2), (2, 1)]


FOUR = ("alice", "bob", "dave", "erin")
"""Everybody of a session."""


def test_who_is_not_in_the_sum_is_away_whatever_the_server_says():
    """Broken before: the server's word was all there was, and one that lied kept a dropout out of the history."""
    rest = ("alice", "dave", "erin")
    sets = (SumSet(4, 1, FOUR, True), SumSet(5, 2, rest, True))
    assert absent(sets, FOUR, missed("bob", 5, 6)) == tuple(missed("bob", 5, 6))
    assert absent(sets, FOUR, []) == tuple(missed("bob", 5, 6, reason=UNSAID))
    assert absent(sets[:1], FOUR, missed("bob", 4)) == (), "its input is in the sum"


def test_whom_others_go_on_without_is_away_for_the_reason_once_told():
    rest = ("alice", "dave", "erin")
    sets = (SumSet(4, 1, rest, False), SumSet(5, 1, rest, True))
    found = absent(sets, FOUR, missed("bob", 4, abandoned=True))
    assert found == (Missing(4, "bob", DEAD, True), Missing(5, "bob", DEAD, False))


def test_of_a_round_without_a_sum_the_server_says_who_was_missing():
    """A repeat that is void, where all go on: no set tells whose input has failed to come."""
    void = (SumSet(3, 1, FOUR, False),)
    assert absent(void, FOUR, missed("bob", 3, abandoned=True)) == (Missing(3, "bob", DEAD, True),)
    assert absent(void, FOUR, []) == ()


def test_a_log_of_sets_grows_with_what_changes():
    log = SetLog()
    for number in range(1000):
        log.note(number, FOUR, opened=True)
    log.note(1000, FOUR[:3], opened=False)
    log.note(1001, FOUR[:3], opened=True)
    log.note(1003, FOUR[:3], opened=True)
    assert log.sets == (
        SumSet(0, 1000, FOUR, True),
        SumSet(1000, 1, FOUR[:3], False),
        SumSet(1001, 1, FOUR[:3], True),
        SumSet(1003, 1, FOUR[:3], True),
    )


def test_rounds_of_whom_nobody_expects_are_counted():
    """Of whom was not in the session at all no set tells."""
    noted = [*missed("bob", 5, abandoned=True), *missed("bob", 6, 7, 8)]
    found = stretch(range(4, 8), noted, {"carol": LATE}, ["alice"])
    assert [(one.number, one.party, one.reason, one.abandoned) for one in found.missing] == [
        (4, "carol", LATE, False),
        (5, "bob", DEAD, True),
        (5, "carol", LATE, False),
        (6, "bob", DEAD, False),
        (6, "carol", LATE, False),
        (7, "bob", DEAD, False),
        (7, "carol", LATE, False),
    ]
    assert (found.first, found.there) == (4, {"alice"})


def test_rounds_that_were_opened_without_a_party_are_counted_once():
    noted = missed("bob", 2, 4, reason=LATE)
    assert stretch(range(5), noted, {}, ["bob"]).missing == tuple(noted)
    assert len(stretch(range(5), noted, {"bob": DEAD}, ["alice"]).missing) == 5
    assert stretch(range(2, 2), missed("bob", 2, abandoned=True), {"carol": DEAD}, []).missing == (
        Missing(2, "bob", DEAD, True),
    )


BUT_BOB = tuple(party for party in FOUR if party != "bob")
BOB_LOST = tuple(missed("bob", 3, abandoned=True))


@pytest.mark.parametrize(
    ("sets", "there", "said", "expected"),
    [
        ([SumSet(2, 3, FOUR, True)], FOUR, (), ()),
        ([SumSet(2, 1, FOUR, True), SumSet(3, 2, FOUR, False)], FOUR, (), (3, 4)),
        ([SumSet(2, 1, FOUR, True), SumSet(3, 2, FOUR, False)], FOUR, BOB_LOST, (4,)),
        ([SumSet(2, 1, FOUR, True), SumSet(3, 2, BUT_BOB, False)], FOUR, (), (4,)),
        ([SumSet(2, 1, BUT_BOB, True), SumSet(3, 1, FOUR, False)], FOUR, BOB_LOST, (3,)),
        ([SumSet(3, 1, BUT_BOB, False)], BUT_BOB, BOB_LOST, (3,)),
        ([SumSet(3, 1, BUT_BOB, False)], FOUR, BOB_LOST, ()),
    ],
    ids=["none", "nobody", "twice", "a smaller set", "away before", "away before the segment", "by the set"],
)
def test_a_round_is_explained_by_whoever_was_there_before_and_is_missing_from_it(sets, there, said, expected):
    assert unexplained(sets, there, said) == expected
