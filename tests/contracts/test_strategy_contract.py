# SPDX-License-Identifier: Apache-2.0
"""What every strategy must do; a new one joins by its line in the table."""

import copy
import pickle

import numpy as np
import pytest

from fedray.strategies import STRATEGIES, make_strategy

GLOBAL = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
LOCAL = np.array([0.25, -1.5, 2.0, 1.0], np.float32)


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request):
    return make_strategy(request.param)


def closed(strategy, local=LOCAL):
    return strategy.close(strategy.open({}, GLOBAL), GLOBAL, local)


def test_it_carries_the_name_it_is_asked_for_by(strategy):
    assert make_strategy(strategy.name, strategy.parameters).name == strategy.name


def test_payload_and_answer_are_flat_vectors_of_the_model(strategy):
    _, payload = closed(strategy)
    _, answer = strategy.apply({}, GLOBAL, payload.astype(np.float64))
    for vector in (payload, answer):
        assert (vector.shape, vector.dtype) == (GLOBAL.shape, GLOBAL.dtype)


def test_a_party_among_its_equals_gets_its_own_result(strategy):
    """The mean of equal payloads is the payload, so the answer is what the party trained (or computed)."""
    _, payload = closed(strategy)
    _, answer = strategy.apply({}, GLOBAL, payload.astype(np.float64))
    assert answer.tolist() == LOCAL.tolist()


def test_the_mean_is_linear(strategy):
    """Averaging payloads and then applying gives the average of what each party had: the server adds nothing else."""
    payloads = [closed(strategy, local)[1].astype(np.float64) for local in (LOCAL, GLOBAL, -LOCAL)]
    _, answer = strategy.apply({}, GLOBAL, np.mean(payloads, axis=0))
    assert answer == pytest.approx(np.mean([LOCAL, GLOBAL, -LOCAL], axis=0), abs=1e-6)


def test_nothing_it_is_given_is_changed(strategy):
    state = {"kept": np.ones(4)}
    before = copy.deepcopy((state, GLOBAL, LOCAL))
    opened = strategy.open(state, GLOBAL)
    strategy.close(opened, GLOBAL, LOCAL)
    strategy.apply(opened, GLOBAL, LOCAL.astype(np.float64))
    for old, new in zip(before, (state, GLOBAL, LOCAL), strict=True):
        np.testing.assert_equal(new, old)


def test_state_is_named_vectors_as_long_as_the_model(strategy):
    for vector in strategy.open({}, GLOBAL).values():
        assert vector.shape == GLOBAL.shape


def test_the_hook_works_with_operators_alone(strategy):
    """It gets tensors of some framework, so NumPy functions would break it."""

    class Number:
        def __init__(self, value):
            self.value = value

        def __add__(self, other):
            return Number(self.value + getattr(other, "value", other))

        def __sub__(self, other):
            return Number(self.value - getattr(other, "value", other))

        def __mul__(self, other):
            return Number(self.value * getattr(other, "value", other))

        __radd__, __rmul__ = __add__, __mul__

    if strategy.hook is not None:
        state = {name: Number(1.0) for name in strategy.open({}, GLOBAL)}
        assert isinstance(strategy.hook(state, Number(2.0), Number(3.0)), Number)


def test_it_travels_to_a_party(strategy):
    again = pickle.loads(pickle.dumps(strategy))
    assert (again.name, again.parameters) == (strategy.name, strategy.parameters)
    assert closed(again)[1].tolist() == closed(strategy)[1].tolist()
