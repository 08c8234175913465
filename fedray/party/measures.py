# SPDX-License-Identifier: Apache-2.0
"""Metric sums as words of a round: every number as a fine and a coarse part. Pure.

A word holds counts exactly and reaches 65536 times the largest count, which is not enough for the losses of a
regression on raw numbers. With the coarse part it reaches far beyond, and small numbers lose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COARSE = 1 << 15
"""Largest counts in one coarse unit; a fine part is at most half of that, well inside what a word holds."""


def word_names(metrics: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the words of so named numbers: the fine parts, then the coarse ones."""
    return (*metrics, *(f"{name} (coarse)" for name in metrics))


def to_words(values: NDArray[np.float64], bound: int) -> NDArray[np.float64]:
    """Returns float64[2m], the fine and the coarse parts of float64[m].

    Args:
        values: What was measured; a number that is not finite has no parts and stays that.
        bound: Largest count, a power of two.
    """
    unit = float(bound * COARSE)
    with np.errstate(invalid="ignore"):
        coarse = np.rint(values / unit)
        return np.concatenate([values - coarse * unit, coarse])


def from_words(words: NDArray[np.float64], bound: int) -> NDArray[np.float64]:
    """Returns float64[m] from the sums of its parts, float64[2m]."""
    fine, coarse = np.split(words, 2)
    return np.asarray(fine + coarse * float(bound * COARSE))
