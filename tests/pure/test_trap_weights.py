# SPDX-License-Identifier: Apache-2.0
"""What no masked sum hides: a first dense layer whose weights were chosen for it writes single rows into the sum.

Each of its units is above zero for few rows; where that is one row, of all parties together, the sums of the gradients
of its weights and of its bias have that row as their quotient. `SECURITY.md` says so, and what helps: whose weights
those are.
"""

import numpy as np
import pytest
from pure.masking_kit import context_of, manifest_of, plain_values, session

PARTIES, ROWS, FEATURES, UNITS = 5, 40, 32, 400


def rows_of(party: int) -> np.ndarray:
    """A party's rows: numbers from 0 to 1, as of images."""
    return np.random.default_rng(party).random((ROWS, FEATURES))


def trapping(dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights of which each unit is above zero for one row in two hundred or so."""
    weights = dice.normal(size=(FEATURES, UNITS))
    # A number from 0 to 1 has mean 1/2 and variance 1/12; one normal number in 200 is 2.6 deviations above its mean.
    return weights, -weights.sum(axis=0) / 2 - 2.6 * np.sqrt((weights**2).sum(axis=0) / 12)


def plain(dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights as a builder makes them from a seed."""
    return dice.normal(size=(FEATURES, UNITS)) / FEATURES**0.5, np.zeros(UNITS)


def gradient(weights: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Of a layer with ReLU behind it, for a loss that passes 1 back to every unit: [kernel | bias], a sum over rows."""
    above = (x @ weights + bias > 0).astype(float)
    return np.concatenate([(x.T @ above).ravel(), above.sum(axis=0)])


def shown(weights: np.ndarray, bias: np.ndarray) -> int:
    """Returns how many rows are in the sum of one round as they are."""
    kit = session(PARTIES)
    inputs = {
        name: plain_values(gradient(weights, bias, rows_of(party)) / (2 * ROWS)) for party, name in enumerate(kit.names)
    }
    manifest = manifest_of(FEATURES * UNITS + UNITS, weighted=False)
    opened = kit.round(context_of(0, manifest), inputs).values
    kernel, bias_sum = opened[: FEATURES * UNITS].reshape(FEATURES, UNITS), opened[FEATURES * UNITS :]
    candidates = (kernel / np.where(bias_sum > 1e-9, bias_sum, np.inf)).T
    rows = np.concatenate([rows_of(party) for party in range(PARTIES)])
    return sum(bool((np.abs(candidates - row).max(axis=1) < 1e-3).any()) for row in rows)


@pytest.mark.parametrize(("weights", "least", "most"), [(trapping, 80, 200), (plain, 0, 15)])
def test_weights_decide_whether_a_sum_shows_single_rows(weights, least, most) -> None:
    assert least <= shown(*weights(np.random.default_rng(7))) <= most
