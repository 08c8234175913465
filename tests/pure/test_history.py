# SPDX-License-Identifier: Apache-2.0
"""History: lists with one value per epoch, in Keras's shape, and as a table."""

import math

import numpy as np
import pytest

from fedray.ml.nn.history import Dropout, History


@pytest.fixture
def history():
    """Three epochs, of which the second was validated."""
    made = History({"epochs": 3})
    made.record(0, {"loss": 3.0}, {"alice": {"loss": 2.5}, "bob": {"loss": 3.5}})
    made.record(1, {"loss": 2.0, "val_loss": 2.5}, {"alice": {"loss": 1.5, "val_loss": 2.0}, "bob": {"loss": 2.5}})
    made.record(2, {"loss": np.float32(1.0)}, {"alice": {"loss": 0.5}})
    return made


def test_one_value_per_epoch(history):
    assert history.epoch == [0, 1, 2]
    assert history.global_history == {"loss": [3.0, 2.0, 1.0], "val_loss": [2.5]}
    assert type(history.global_history["loss"][2]) is float
    assert history.local_history["alice"] == {"loss": [2.5, 1.5, 0.5], "val_loss": [2.0]}
    assert history.local_history["bob"] == {"loss": [3.5, 2.5]}


def test_the_names_of_keras_and_of_the_tutorial(history):
    assert history.history is history.global_history is history["global_history"]
    assert history["local_history"] is history.local_history
    with pytest.raises(KeyError, match="a History has 'global_history' and 'local_history'"):
        history["loss"]


def test_the_table_has_a_row_per_epoch_and_gaps_where_nothing_was_measured(history):
    frame = history.to_pandas()
    assert frame.index.name == "epoch"
    assert list(frame.index) == [0, 1, 2]
    assert list(frame.columns) == ["loss", "alice/loss", "bob/loss", "val_loss", "alice/val_loss"]
    assert list(frame["loss"]) == [3.0, 2.0, 1.0]
    assert [math.isnan(value) for value in frame["val_loss"]] == [True, False, True]
    assert frame["alice/val_loss"][1] == 2.0
    assert math.isnan(frame["bob/loss"][2])


def test_epochs_that_do_not_start_at_zero():
    history = History()
    for epoch in (4, 5):
        history.record(epoch, {"loss": float(epoch)} | ({"val_loss": 1.0} if epoch == 5 else {}), {})
    frame = history.to_pandas()
    assert list(frame.index) == [4, 5]
    assert math.isnan(frame["val_loss"][4])
    assert history.local_history == {}


def test_a_value_per_class_stays_an_array():
    history = History()
    for epoch in range(2):
        history.record(epoch, {"f1": np.array([0.1, 0.2])}, {})
    assert [value.shape for value in history.history["f1"]] == [(2,), (2,)]
    assert history.to_pandas()["f1"][1].tolist() == [0.1, 0.2]


def test_an_empty_history_is_an_empty_table():
    assert len(History().to_pandas()) == 0


def test_two_histories_share_nothing():
    one, other = History(), History()
    one.record(0, {"loss": 1.0}, {"alice": {"loss": 1.0}})
    one.dropouts.append(Dropout(0, 3, "bob", "its process has ended", abandoned=True))
    assert other == History()
