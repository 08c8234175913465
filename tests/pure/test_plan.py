# SPDX-License-Identifier: Apache-2.0
"""Sizes in, rounds out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.errors import PlanError
from fedray.ml.nn.plan import plan_evaluate, plan_fit

TUTORIAL = {"alice": 30000, "bob": 30000}
SIZES = st.lists(st.integers(0, 300), min_size=2, max_size=6).filter(lambda sizes: sum(s > 0 for s in sizes) >= 2)


def named(sizes):
    return {f"party{number}": rows for number, rows in enumerate(sizes)}


def test_the_tutorial_has_235_rounds_in_each_of_ten_epochs():
    plan = plan_fit(TUTORIAL, seed=1, batch_size=128, epochs=10)
    segments = list(plan)
    assert plan.steps == 235
    assert [segment.epoch for segment in segments] == list(range(10))
    assert all(len(segment.rounds) == 235 and segment.ends_epoch for segment in segments)
    assert plan.largest_weight() == 128


@pytest.mark.parametrize(
    ("sizes", "batch", "steps"),
    [
        ((10000, 3), 128, 3),
        ((10000, 1), 128, 1),
        ((10000, 9000, 3), 128, 79),
        ((5, 5), 128, 1),
        ((5, 0, 5), 2, 3),
        ((129, 128), 128, 2),
    ],
)
def test_steps_are_the_largest_partys_batches_but_no_more_than_the_second_has_rows(sizes, batch, steps):
    assert plan_fit(named(sizes), seed=1, batch_size=batch).steps == steps


def test_ten_thousand_rows_against_three():
    plan = plan_fit(named([10000, 3]), seed=1, batch_size=128)
    assert [r.rows for r in plan.rounds(0)] == [(3333, 1), (3333, 1), (3334, 1)]
    assert plan.largest_weight() == 3334


@given(sizes=SIZES, batch=st.integers(1, 64), freq=st.integers(1, 12))
def test_every_row_is_in_exactly_one_round_and_no_round_has_one_party(sizes, batch, freq):
    plan = plan_fit(named(sizes), seed=1, batch_size=batch, aggregate_freq=freq)
    rounds = plan.rounds(0)
    assert np.sum([r.rows for r in rounds], axis=0).tolist() == list(sizes)
    assert all(sum(rows > 0 for rows in r.rows) >= 2 for r in rounds)
    steps = [step for r in rounds for step in range(r.start, r.stop)]
    assert steps == list(range(plan.steps))
    assert all(r.stop - r.start == freq for r in rounds[:-1])
    assert plan.largest_weight() == max(max(r.rows) for r in rounds)


@given(sizes=SIZES, batch=st.integers(1, 64), freq=st.integers(1, 4), seed=st.integers(0, 99))
def test_poisson_rounds_say_how_many_rows_each_party_will_draw(sizes, batch, freq, seed):
    plan = plan_fit(named(sizes), seed=seed, batch_size=batch, epochs=3, aggregate_freq=freq, sampler_method="poisson")
    for segment in plan:
        for party, total in zip(
            plan.parties, map(sum, zip(*(r.rows for r in segment.rounds), strict=True)), strict=True
        ):
            shares = plan.sampling.shares(party, plan.sizes[party], segment.epoch)
            assert total == sum(len(shares[s]) for r in segment.rounds for s in range(r.start, r.stop))
        assert all(sum(rows > 0 for rows in r.rows) >= 2 for r in segment.rounds)
        assert max(max(r.rows) for r in segment.rounds) <= plan.largest_weight()


def test_a_poisson_round_of_one_party_never_happens():
    plan = plan_fit(named([50, 40]), seed=2, batch_size=1, sampler_method="poisson")
    held = {r.start for r in plan.rounds(0)}
    draws = [plan.sampling.share_sizes(party, rows, 0) for party, rows in plan.sizes.items()]
    both = {step for step in range(plan.steps) if all(draw[step] for draw in draws)}
    assert held == both
    assert 0 < len(held) < plan.steps


def test_aggregating_less_often_makes_longer_rounds():
    plan = plan_fit(TUTORIAL, seed=1, batch_size=128, aggregate_freq=100)
    assert [(r.start, r.stop) for r in plan.rounds(0)] == [(0, 100), (100, 200), (200, 235)]
    once = plan_fit(TUTORIAL, seed=1, batch_size=128, aggregate_freq=10**9)
    assert [r.rows for r in once.rounds(0)] == [(30000, 30000)]


def test_a_callback_that_asks_for_every_round_gets_a_segment_each():
    plan = plan_fit(named([6, 6]), seed=1, batch_size=2, epochs=2, every_round=True)
    segments = list(plan)
    assert [(s.epoch, len(s.rounds), s.ends_epoch) for s in segments] == [
        (0, 1, False),
        (0, 1, False),
        (0, 1, True),
        (1, 1, False),
        (1, 1, False),
        (1, 1, True),
    ]


def test_a_party_alone_needs_leave():
    with pytest.raises(PlanError, match=r"training data: expected at least two parties with rows, found alice: 10"):
        plan_fit({"alice": 10}, seed=1)
    assert [r.rows for r in plan_fit({"alice": 10}, seed=1, batch_size=4, alone=True).rounds(0)] == [(3,), (3,), (4,)]
    assert plan_fit({"alice": 10, "bob": 0}, seed=1, batch_size=4, alone=True).steps == 3
    with pytest.raises(PlanError, match="at least one party with rows, found alice: 0"):
        plan_fit({"alice": 0}, seed=1, alone=True)


def test_it_starts_where_it_is_told():
    plan = plan_fit(named([4, 4]), seed=1, epochs=5, initial_epoch=3)
    assert [segment.epoch for segment in plan] == [3, 4]


def test_validation_follows_keras():
    assert [e for e in range(6) if plan_fit(TUTORIAL, seed=1, validation_freq=2).validates(e)] == [1, 3, 5]
    assert [e for e in range(6) if plan_fit(TUTORIAL, seed=1, validation_freq=[1, 4]).validates(e)] == [0, 3]


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("batch_size", 0, "batch_size: expected a whole number of 1 or more, found 0"),
        ("batch_size", 12.5, "batch_size: expected a whole number of 1 or more, found 12.5"),
        ("batch_size", True, "batch_size: expected a whole number of 1 or more, found True"),
        ("batch_size", None, "batch_size: expected a whole number of 1 or more, found None"),
        ("aggregate_freq", 0, "aggregate_freq: expected a whole number of 1 or more, found 0"),
        ("aggregate_freq", "2", "aggregate_freq: expected a whole number of 1 or more, found '2'"),
        ("epochs", 0, "epochs: expected a whole number of 1 or more, found 0"),
        ("epochs", -3, "epochs: expected a whole number of 1 or more, found -3"),
        ("initial_epoch", -1, "initial_epoch: expected a whole number of 0 or more, found -1"),
        ("initial_epoch", 1, "initial_epoch: expected less than epochs=1, found 1"),
        ("sampler_method", "poison", "found 'poison'. Did you mean 'poisson'"),
        ("sampler_method", 3, "sampler_method: expected one of batch, poisson; found 3"),
        ("shuffle", "batch", "shuffle: expected True or False, found 'batch'"),
        ("validation_freq", 0, "validation_freq: expected a whole number of 1 or more, found 0"),
        ("validation_freq", "often", "validation_freq: expected a whole number of 1 or more, found 'often'"),
        ("validation_freq", [0], "validation_freq: expected a whole number of 1 or more, found 0"),
    ],
)
def test_arguments_that_cannot_work_are_named(argument, value, expected):
    with pytest.raises(PlanError) as caught:
        plan_fit(TUTORIAL, seed=1, **{argument: value})
    assert expected in str(caught.value)


def test_numpy_integers_are_whole_numbers():
    assert plan_fit(TUTORIAL, seed=1, batch_size=np.int64(128), epochs=np.int32(2)).epochs == 2


def test_evaluation_counts_the_batches_of_the_largest_party():
    assert plan_evaluate({"alice": 5000, "bob": 5000}, batch_size=128).steps == 40
    assert plan_evaluate({"alice": 1, "bob": 300}, batch_size=128).steps == 3
    with pytest.raises(PlanError, match="evaluation data: expected at least two parties"):
        plan_evaluate({"alice": 5000, "bob": 0})
    with pytest.raises(PlanError, match="batch_size"):
        plan_evaluate(TUTORIAL, batch_size=0)
