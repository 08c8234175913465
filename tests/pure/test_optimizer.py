# SPDX-License-Identifier: Apache-2.0
"""The optimizer at the driver: one learning rate, which users type and callbacks compute with as in Keras."""

import copy
import json
import pickle

import numpy as np
import pytest

from fedray.errors import PlanError
from fedray.ml.nn.optimizer import LearningRate, Optimizer


class Parties:
    """What reaches the parties."""

    def __init__(self, rate=0.1, schedule=False):
        self.rate, self.schedule, self.sent = rate, schedule, []

    def learning_rate(self):
        return self.rate

    def set_learning_rate(self, rate):
        if self.schedule:
            raise PlanError("learning_rate: the optimizer follows a schedule of its own")
        self.sent.append(rate)
        self.rate = rate


@pytest.fixture
def parties():
    return Parties()


@pytest.fixture
def optimizer(parties):
    return Optimizer(lambda: parties)


def test_it_is_read_as_a_number(optimizer):
    rate = optimizer.learning_rate
    assert (rate, float(rate), rate.numpy(), np.asarray(rate)) == (0.1, 0.1, 0.1, 0.1)
    assert (rate * 0.5, 1 - rate, rate > 0.05, max(rate, 0.01), round(rate, 0)) == (0.05, 0.9, True, 0.1, 0.0)
    assert (f"{rate:.3f}", f"{rate}", str(rate), repr(rate)) == ("0.100", "0.1", "0.1", "0.1")
    assert isinstance(np.float32(rate) * np.ones(2), np.ndarray)


@pytest.mark.parametrize("value", [0.05, 1, np.float32(0.25), np.array(0.5), LearningRate(0.125, print)])
def test_it_is_set_with_whatever_is_a_number(optimizer, parties, value):
    optimizer.learning_rate = value
    assert optimizer.learning_rate == parties.rate == optimizer.chosen == float(value)
    assert type(parties.sent[0]) is float


def test_it_is_set_in_place_and_by_assign(optimizer, parties):
    optimizer.learning_rate *= 0.5
    assert parties.rate == 0.05
    before = optimizer.learning_rate
    after = before.assign(before * 0.5)
    assert parties.sent == [0.05, 0.025]
    assert (before, after, optimizer.learning_rate) == (0.05, 0.025, 0.025)
    after.assign(0.3)
    assert optimizer.learning_rate == 0.3


def test_what_was_set_counts_whatever_a_single_party_has(optimizer, parties):
    optimizer.learning_rate = 0.2
    parties.rate = 9.0
    assert optimizer.learning_rate == 0.2


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "fast", None, [0.1, 0.2], lambda: 0.1])
def test_what_is_no_rate_is_refused_and_changes_nothing(optimizer, parties, value):
    with pytest.raises(PlanError, match="learning_rate: expected a"):
        optimizer.learning_rate = value
    with pytest.raises(PlanError, match="learning_rate: expected a"):
        optimizer.learning_rate.assign(value)
    assert (parties.sent, optimizer.chosen) == ([], None)


def test_a_schedule_is_read_and_not_set():
    parties = Parties(0.1, schedule=True)
    optimizer = Optimizer(lambda: parties)
    with pytest.raises(PlanError, match="follows a schedule"):
        optimizer.learning_rate = 0.2
    parties.rate = 0.09
    assert (optimizer.learning_rate, optimizer.chosen) == (0.09, None)
    optimizer.adopt()
    assert optimizer.chosen is None


def test_a_rate_from_a_file_takes_the_place_of_the_one_that_was_set(optimizer, parties):
    optimizer.learning_rate = 0.2
    parties.rate = 0.7  # the party that has read the file
    optimizer.adopt()
    assert optimizer.learning_rate == optimizer.chosen == parties.sent[-1] == 0.7


def test_a_rate_travels_as_a_plain_number(optimizer):
    rate = optimizer.learning_rate
    for copied in (pickle.loads(pickle.dumps(rate)), copy.deepcopy(rate)):
        assert (copied, type(copied)) == (0.1, float)
    assert json.dumps({"rate": rate}) == '{"rate": 0.1}'


def test_there_is_no_more_to_it(optimizer):
    assert not hasattr(optimizer, "optimizers")
    with pytest.raises(AttributeError, match=r"no 'momentum' here: each party has one of its own"):
        _ = optimizer.momentum
