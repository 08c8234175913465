# SPDX-License-Identifier: Apache-2.0
"""Metrics as sums: what each party measured, added up exactly.

A metric is a handful of state variables that add up over disjoint rows, and a value computed from them. `Mean` is the
common case and computes its own value. For every other metric (AUC, precision, R2, ...) a `Tally` carries the state,
and the framework that owns the metric computes the value from the sum.

A count travels as a whole number; every other number is summed exactly too, but takes more room. Which is which is said
by the metric and not found by looking at numbers: every party has to say the same, whatever its rows.

Knows no framework. Does not know how the numbers travel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError


@dataclass(frozen=True, slots=True)
class Word:
    """One number of a metric's state.

    Attributes:
        name: The metric's, and which number of its state it is, e.g. `"loss/0"`.
        whole: Whether it is a whole number at every party, as long as rows have no weights.

    Example:
        >>> from fedray.metrics import Mean, Word, words
        >>> words([Mean("loss", 6.0, 4)]) == (Word("loss/0", whole=False), Word("loss/1", whole=True))
        True
    """

    name: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over rows, as total and count.

    Attributes:
        name: As in the framework's history, e.g. `"loss"`.
        total: Sum over the rows seen.
        count: Number of rows seen, or the sum of their weights.
        whole: Whether the count is a whole number as long as rows have no weights.

    Example:
        >>> from fedray.metrics import Mean
        >>> Mean("loss", total=6.0, count=4).result()
        1.5
    """

    name: str
    total: float
    count: float
    whole: bool = field(default=True, repr=False)

    @property
    def additive(self) -> bool:
        """Whether the states of several parties may be summed; always true."""
        return True

    @property
    def state(self) -> tuple[NDArray[np.float64], ...]:
        """Total and count, two float64 scalars."""
        return np.asarray(self.total, np.float64), np.asarray(self.count, np.float64)

    def with_state(self, state: Sequence[NDArray[np.float64]]) -> Mean:
        """Returns the same metric over other rows."""
        return replace(self, total=float(state[0]), count=float(state[1]))

    def result(self) -> float:
        """Returns the mean; 0.0 over no rows, as Keras does."""
        # A party without rows in a round reports this; it enters no mean, since its count is 0.
        return self.total / self.count if self.count else 0.0

    def __float__(self) -> float:
        return self.result()


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """A metric that is not a plain mean: its state variables, and the value once it is computed.

    Attributes:
        name: As in the framework's history, e.g. `"auc"`.
        state: State variables in the framework's order, float64 arrays of any shape.
        value: What the metric comes to, a float or float64[k]; None for a sum whose value nobody has computed yet.
        additive: Whether the states of several parties may be summed. Otherwise the metric is reported per party only.
        whole: Which of its state variables are whole numbers, e.g. counts, as long as rows have no weights; none of
            those that are left out at the end.

    Example:
        >>> from fedray.metrics import Tally
        >>> Tally("auc", state=(np.array([3.0, 1.0]),), value=0.75).result()
        0.75
    """

    name: str
    state: tuple[NDArray[np.float64], ...]
    value: float | NDArray[np.float64] | None
    additive: bool = True
    whole: tuple[bool, ...] = ()

    def with_state(self, state: Sequence[NDArray[np.float64]]) -> Tally:
        """Returns the same metric over other rows, its value still to be computed."""
        return replace(self, state=tuple(state), value=None)

    def result(self) -> float | NDArray[np.float64]:
        """Returns the value.

        Raises:
            DataError: The states were summed, but the metric's framework has not computed the value yet.
        """
        if self.value is None:
            raise DataError(f"metric {self.name!r} is a sum of states; its framework has to finish it first")
        return self.value

    def __float__(self) -> float:
        return float(self.result())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return (
            (self.name, self.additive, self.whole, len(self.state))
            == (other.name, other.additive, other.whole, len(other.state))
            and all(np.array_equal(a, b) for a, b in zip(self.state, other.state, strict=True))
            and (self.value is None) == (other.value is None)
            and (self.value is None or np.array_equal(self.value, np.asarray(other.value), equal_nan=True))
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def __repr__(self) -> str:
        return f"Tally(name={self.name!r}, value={self.value!r})"


Metric: TypeAlias = Mean | Tally
"""One finished or summable metric."""


def additive(metrics: Sequence[Metric]) -> list[Metric]:
    """Returns those metrics whose states may be summed over parties.

    Example:
        >>> from fedray.metrics import Mean, Tally, additive
        >>> [metric.name for metric in additive([Mean("loss", 6.0, 4), Tally("cosine", (), 0.5, additive=False)])]
        ['loss']
    """
    return [metric for metric in metrics if metric.additive]


def words(metrics: Sequence[Metric]) -> tuple[Word, ...]:
    """Returns what each number of `flatten(metrics)` is, e.g. of names `"loss/0", "loss/1", "auc/0/17"`.

    Example:
        >>> from fedray.metrics import Mean, Tally, words
        >>> [word.name for word in words([Mean("loss", 6.0, 4), Tally("auc", (np.array([3.0, 1.0]),), 0.75)])]
        ['loss/0', 'loss/1', 'auc/0/0', 'auc/0/1']
        >>> [word.whole for word in words([Mean("loss", 6.0, 4)])]
        [False, True]
    """
    found: list[Word] = []
    for metric in additive(metrics):
        for number, array in enumerate(metric.state):
            # The total of a mean is a sum of anything, whatever its count is.
            kinds = (False, metric.whole) if isinstance(metric, Mean) else metric.whole
            whole = number < len(kinds) and kinds[number]
            stem = f"{metric.name}/{number}"
            names = [stem] if array.ndim == 0 else [f"{stem}/{place}" for place in range(array.size)]
            found += [Word(name, whole) for name in names]
    return tuple(found)


def flatten(metrics: Sequence[Metric]) -> NDArray[np.float64]:
    """Returns the states of the additive metrics end to end, float64[m].

    Example:
        >>> from fedray.metrics import Mean, flatten
        >>> flatten([Mean("loss", 6.0, 4), Mean("mae", 2.0, 4)]).tolist()
        [6.0, 4.0, 2.0, 4.0]
    """
    parts: list[NDArray[Any]] = [np.ravel(array) for metric in additive(metrics) for array in metric.state]
    return np.concatenate([np.empty(0), *parts]).astype(np.float64)


def rebuild(like: Sequence[Metric], vector: NDArray[np.float64]) -> list[Metric]:
    """Returns the additive metrics of `like` with the states in `vector`, the inverse of `flatten`.

    Args:
        like: Metrics whose names and state shapes are wanted; their numbers do not matter.
        vector: float64[m].

    Raises:
        DataError: The vector is longer or shorter than the states.

    Example:
        >>> from fedray.metrics import Mean, rebuild
        >>> rebuild([Mean("loss", 0.0, 0)], np.array([6.0, 4.0]))
        [Mean(name='loss', total=6.0, count=4.0)]
    """
    wanted = additive(like)
    size = sum(array.size for metric in wanted for array in metric.state)
    if len(vector) != size:
        raise DataError(f"metrics {[m.name for m in wanted]} have {size} state words, found {len(vector)}")
    rebuilt: list[Metric] = []
    start = 0
    for metric in wanted:
        state = []
        for array in metric.state:
            state.append(np.asarray(vector[start : start + array.size], np.float64).reshape(array.shape))
            start += array.size
        rebuilt.append(metric.with_state(state))
    return rebuilt


def merge(parties: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Returns the metrics over the rows of all parties: states summed, means finished.

    Args:
        parties: Each party's metrics, in the same order. Metrics that are not additive are left out.

    Raises:
        DataError: The parties do not have the same metrics.

    Example:
        >>> from fedray.metrics import Mean, merge
        >>> (loss,) = merge([[Mean("loss", 6.0, 4)], [Mean("loss", 2.0, 1)]])
        >>> loss.result()  # 8 over 5 rows, not the mean of 1.5 and 2.0
        1.6
    """
    if not parties:
        return []
    first = words(parties[0])
    for number, metrics in enumerate(parties[1:], start=1):
        # By the names of all words: two metrics of one name but other shapes must not be added.
        if words(metrics) != first:
            expected, found = [m.name for m in additive(parties[0])], [m.name for m in additive(metrics)]
            raise DataError(f"metrics of party number {number} do not fit: expected {expected}, found {found}")
    # Summed first, finished after: the mean of two AUCs is not the AUC of all rows.
    total = np.sum([flatten(metrics) for metrics in parties], axis=0)
    return rebuild(parties[0], total)
