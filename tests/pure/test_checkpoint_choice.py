# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run goes on from, which stay, and what `fit` does with what it finds. Exhaustively."""

from itertools import combinations, product

import pytest

import fedray as sf
from fedray.errors import PlanError
from fedray.ml.nn.checkpoints.choice import Found, common, decide, say_behind, say_lacking, staying
from fedray.ml.nn.checkpoints.experiment import differences, experiment_hash
from fedray.party.kept.numbered import removable
from fedray.party.training.keeping import _moved

PARTIES = ("alice", "bob")
NUMBERS = (1, 2, 3)
HELD = [set(some) for count in range(len(NUMBERS) + 1) for some in combinations(NUMBERS, count)]


def everything():
    for driver, alice, bob in product(HELD, repeat=3):
        yield driver, {"alice": alice, "bob": bob}


def test_the_newest_that_all_have_is_one_that_each_has():
    for driver, held in everything():
        found = common(driver, held)
        assert set(found) == {n for n in NUMBERS if n in driver and all(n in held[party] for party in PARTIES)}
        assert found == sorted(found)


def test_nobody_removes_the_last_ones_that_all_have_nor_those_of_who_is_left():
    for driver, held in everything():
        for there, keep in product([("alice",), PARTIES], (1, 2)):
            stay = staying(driver, held, there, keep)
            gone = {party: set(removable(held[party], stay)) for party in PARTIES}
            left = {party: held[party] - gone[party] for party in PARTIES}
            here = {party: held[party] for party in there}
            assert common(driver, left)[-keep:] == common(driver, held)[-keep:]
            assert common(driver, {p: left[p] for p in there})[-keep:] == common(driver, here)[-keep:]
            newest = max(stay, default=0)
            for party in PARTIES:  # what is being written is newer than all that are known
                assert not any(number > newest for number in gone[party])
                assert len([n for n in left[party] if n <= newest]) <= 2 * keep


def test_who_is_behind_and_who_lacks_what():
    assert say_behind(2, {1, 2}, {"alice": {1, 2}, "bob": {2}}) == ""
    assert say_behind(1, {1, 2}, {"alice": {1, 2}, "bob": {1}}) == "went back to checkpoint 1: 'bob' lacks number 2"
    said = say_behind(1, {1}, {"alice": {1, 2}, "bob": {1}})
    assert said == "went back to checkpoint 1: the driver, 'bob' lack number 2"
    said = say_lacking({1, 2}, {"alice": {3}, "bob": set()})
    assert said == "the driver has numbers 1, 2; 'alice' has number 3; 'bob' has none"


FOUND = [
    None,
    *(Found("0001", *rest) for rest in product((True, False), ((), ("epochs: 2 then, 3 now",)), ((), ("numpy: ...",)))),
]


@pytest.mark.parametrize("resume", [True, False, "must"])
@pytest.mark.parametrize("found", FOUND, ids=str)
def test_every_case_of_a_resume(found, resume):
    unfinished = found is not None and not found.finished
    if resume is False:
        assert decide("runs", found, resume) is False
    elif not unfinished:
        if resume == "must":
            with pytest.raises(
                PlanError, match=r"expected an unfinished run in runs, found (no run|run 0001, which is)"
            ):
                decide("runs", found, resume)
        else:
            assert decide("runs", found, resume) is False
    elif found.differences:
        with pytest.raises(
            PlanError, match=r"is unfinished and of another experiment: epochs: 2 then, 3 now\. Call fit"
        ):
            decide("runs", found, resume)
    elif found.versions and resume == "must":
        with pytest.raises(PlanError, match=r"begun with other versions.*numpy: \.\.\..*leave 'must' out"):
            decide("runs", found, resume)
    else:
        assert decide("runs", found, resume) is True


def test_differences_are_said_in_words():
    then = {"epochs": 2, "strategy": {"name": "fed_prox", "mu": 0.1}, "rows": {"alice": 3}, "gone": None}
    now = {"epochs": 3, "strategy": {"name": "fed_prox", "mu": 0.2}, "rows": {"alice": 3, "bob": 1}}
    assert differences(then, now) == [
        "epochs: 2 then, 3 now",
        "strategy of mu: 0.1 then, 0.2 now",
        "rows of bob: nothing then, 1 now",
        "gone: null then, nothing now",
    ]
    assert differences(then, dict(then)) == []
    assert experiment_hash(then) == experiment_hash(dict(reversed(then.items())))
    assert experiment_hash(then) != experiment_hash(now)


A, B, AB = ("alice",), ("bob",), ("alice", "bob")


@pytest.mark.parametrize(
    ("lines", "before", "moved"),
    [
        ([], 0, False),
        ([(b"1", AB), (b"2", AB)], 1, False),
        ([(b"1", AB), (b"2", AB), (b"2", A)], 1, True),
        ([(b"1", AB), (b"1", A), (b"2", AB)], 1, True),
        ([(b"1", AB), (b"1", A), (b"2", AB)], 3, False),  # that pass is over, and does not come again
        ([(b"1", AB), (b"2", A), (b"2", AB)], 3, True),  # that one may be under way
        ([(b"1", A)], 1, True),
    ],
)
def test_whether_rows_come_again_that_were_summed_over_others(lines, before, moved):
    assert _moved(lines, before, AB) is moved


@pytest.mark.parametrize(
    ("every", "rounds", "seconds"),
    [("epoch", 0, None), (7, 7, None), ("10min", 10, 600), ("90 s", 10, 90), ("2h", 10, 7200)],
)
def test_how_often(every, rounds, seconds):
    checkpoint = sf.Checkpoint("runs", every=every)
    assert (checkpoint.rounds, checkpoint.seconds) == (rounds, seconds)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("every", 0),
        ("every", "10"),
        ("every", True),
        ("every", "epochs"),
        ("keep", 0),
        ("keep", 1.5),
        ("parts", "here"),
        ("path", ""),
    ],
)
def test_what_cannot_be_said(argument, value):
    with pytest.raises(PlanError, match=f"checkpoint: {argument}: expected"):
        sf.Checkpoint(**{"path": "runs", argument: value})
