# SPDX-License-Identifier: Apache-2.0
"""A model that was trained on named columns takes no others, and not the same in another order."""

import pandas as pd
import pytest
from inline.federated import world

from fedray.data.ndarray import load
from fedray.errors import DataError

NAMES = ["age", "height", "weight", "income"]


@pytest.fixture
def fed(start):
    return world(start, backend="numpy")


def named(fed, names, order=None):
    frames = [pd.DataFrame(x, columns=names)[order or names] for x, _ in fed.parts]
    return load(dict(zip(fed.devices, frames, strict=True)))


def test_columns_in_another_order_are_refused_everywhere(fed, tmp_path):
    model, x, swapped = fed.model(), named(fed, NAMES), named(fed, NAMES, NAMES[::-1])
    expected = r"x: expected the columns that the model is trained on, 'age', 'height', .*found 'income', 'weight'"
    with pytest.raises(DataError, match=f"^validation {expected}"):
        model.fit(x, fed.y, validation_data=(swapped, fed.y), verbose=0)
    model.fit(x, fed.y, validation_data=(x, fed.y), verbose=0)
    for use in (
        lambda rows: model.fit(rows, fed.y, verbose=0),
        lambda rows: model.evaluate(rows, fed.y, verbose=0),
        model.predict,
    ):
        for other in (swapped, named(fed, ["a", "b", "c", "d"])):
            with pytest.raises(DataError, match=r"^x: expected the columns that the model is trained on"):
                use(other)
    overall = model.evaluate(x, fed.y, verbose=0)
    assert model.evaluate(fed.x, fed.y, verbose=0) == overall, "rows without names are taken as they are"
    model.save(tmp_path / "model.npz")
    model.load(tmp_path / "model.npz")
    model.predict(swapped)
