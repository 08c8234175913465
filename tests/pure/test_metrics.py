# SPDX-License-Identifier: Apache-2.0
"""Metrics as sums: what adds up, what is finished, what is refused."""

import numpy as np
import pytest

from fedray.errors import DataError
from fedray.metrics import Mean, Tally, flatten, merge, rebuild, words

AUC = Tally("auc", (np.array([1.0, 2.0]), np.array(3.0)), 0.75)
OWN = Tally("own", (np.array(5.0),), 5.0, additive=False)


def test_mean_prints_as_the_tutorial_shows_it():
    assert repr(Mean(name="loss", total=748.2, count=10000.0)) == "Mean(name='loss', total=748.2, count=10000.0)"


def test_a_mean_is_its_total_over_its_count():
    mean = Mean("loss", 6.0, 4.0)
    assert (float(mean), mean.result()) == (1.5, 1.5)
    assert float(Mean("loss", 0.0, 0.0)) == 0.0


def test_a_record_cannot_be_changed():
    with pytest.raises(AttributeError):
        Mean("loss", 1.0, 1.0).total = 2.0
    with pytest.raises(AttributeError):
        AUC.value = 1.0


def test_merging_means_weighs_by_count():
    merged = merge([[Mean("loss", 3.0, 1.0)], [Mean("loss", 1.0, 3.0)]])
    assert merged == [Mean("loss", 4.0, 4.0)]
    assert float(merged[0]) == 1.0


def test_flatten_and_rebuild_are_inverse():
    metrics = [Mean("loss", 1.0, 2.0), AUC]
    vector = flatten(metrics)
    assert vector.dtype == np.float64
    assert vector.tolist() == [1.0, 2.0, 1.0, 2.0, 3.0]
    assert [word.name for word in words(metrics)] == ["loss/0", "loss/1", "auc/0/0", "auc/0/1", "auc/1"]
    loss, auc = rebuild(metrics, vector)
    assert loss == metrics[0]
    assert [array.tolist() for array in auc.state] == [[1.0, 2.0], 3.0]


def test_which_numbers_are_whole_is_said_by_the_metric():
    counted = Tally("cells", (np.zeros((2, 2)),), None, whole=(True,))
    found = words([Mean("loss", 1.0, 2.0), Mean("own", 1.0, 2.0, whole=False), AUC, counted])
    assert [word.name for word in found if word.whole] == ["loss/1", *(f"cells/0/{place}" for place in range(4))]
    kept = rebuild([counted, Mean("own", 1.0, 2.0, whole=False)], np.arange(6.0))
    assert [metric.whole for metric in kept] == [(True,), False]


def test_a_sum_of_states_has_no_value_until_it_is_finished():
    (auc,) = merge([[AUC], [AUC]])
    assert [array.tolist() for array in auc.state] == [[2.0, 4.0], 6.0]
    with pytest.raises(DataError, match="'auc' is a sum of states"):
        float(auc)
    assert float(AUC) == 0.75


def test_metrics_that_are_not_additive_stay_with_their_party():
    assert merge([[OWN, Mean("loss", 1.0, 1.0)], [OWN, Mean("loss", 1.0, 1.0)]]) == [Mean("loss", 2.0, 2.0)]
    assert flatten([OWN]).shape == (0,)


def test_merge_of_nobody_is_empty():
    assert merge([]) == []


def test_parties_with_different_metrics_are_refused():
    with pytest.raises(DataError, match=r"party number 1 .* expected \['loss'\], found \['auc'\]"):
        merge([[Mean("loss", 1.0, 1.0)], [AUC]])


def test_a_vector_of_the_wrong_length_is_refused():
    with pytest.raises(DataError, match="2 state words, found 3"):
        rebuild([Mean("loss", 0.0, 0.0)], np.zeros(3))


def test_tallies_compare_by_content():
    same = Tally("auc", (np.array([1.0, 2.0]), np.array(3.0)), 0.75)
    assert same == AUC
    assert Tally("auc", (np.array([1.0, 2.5]), np.array(3.0)), 0.75) != AUC
    assert Tally("auc", AUC.state, None) != AUC
    assert Mean("auc", 1.0, 1.0) != AUC
    assert repr(AUC) == "Tally(name='auc', value=0.75)"
