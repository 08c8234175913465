# SPDX-License-Identifier: Apache-2.0
"""Linear and softmax regression: what a builder returns for the NumPy backend, settings and the formulas with them.

Scores are `x @ kernel + bias`, [rows, outputs]. Everything here is a pure function of scores and labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError, PlanError

PerRow: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""(predictions, labels) -> one number per row."""


class Regression(Protocol):
    """What the backend asks of `LinearRegression` and `SoftmaxRegression`."""

    @property
    def features(self) -> int:
        """Numbers in a row, all inputs together."""

    @property
    def outputs(self) -> int:
        """Numbers that come out for a row."""

    @property
    def learning_rate(self) -> float:
        """Step size of SGD."""

    @property
    def momentum(self) -> float:
        """Share of the last step that the next one keeps."""

    @property
    def dtype(self) -> str:
        """`"float32"` or `"float64"`."""

    @property
    def measures(self) -> Mapping[str, PerRow]:
        """Name -> what is averaged over rows beside the loss."""

    def labels(self, y: NDArray[Any]) -> NDArray[Any]:
        """Returns labels as the formulas take them; raises DataError where they do not fit."""

    def predictions(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Returns the model's outputs."""

    def losses(self, predictions: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Returns the loss of each row."""

    def errors(self, predictions: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Returns the derivative of each row's loss by its scores."""


@dataclass(frozen=True, slots=True)
class LinearRegression:
    """Linear regression: the mean squared error, and `mae` beside it.

    Attributes:
        features: Numbers in a row, all inputs together.
        outputs: Numbers to predict for a row.
        learning_rate: Step size of SGD.
        momentum: Share of the last step that the next one keeps, from 0 to below 1.
        dtype: Type of weights and sums, `"float32"` or `"float64"`.

    Raises:
        PlanError: A setting cannot work.

    Example:
        >>> from fedray.ml.nn.numpy import LinearRegression
        >>> LinearRegression(features=3, learning_rate=0.1).outputs
        1
    """

    features: int
    outputs: int = 1
    learning_rate: float = 0.01
    momentum: float = 0.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check("LinearRegression", self)

    @property
    def measures(self) -> Mapping[str, PerRow]:
        """The mean absolute error."""
        return {"mae": lambda predictions, y: np.abs(predictions - y).mean(axis=1)}

    def labels(self, y: NDArray[Any]) -> NDArray[Any]:
        """Returns labels as [rows, outputs]; one output may come without its axis.

        Raises:
            DataError: They are of another shape, or no numbers.
        """
        found = y[:, None] if y.ndim == 1 else y
        if found.shape[1:] != (self.outputs,) or found.dtype.kind not in "biuf":
            raise DataError(
                f"y: LinearRegression expects {self.outputs} numbers per row, found {y.shape[1:]} of {y.dtype}"
            )
        return found.astype(self.dtype)

    def predictions(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Returns the scores themselves."""
        return scores

    def losses(self, predictions: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Returns squared errors, averaged over the outputs."""
        return np.asarray(np.square(predictions - y).mean(axis=1))

    def errors(self, predictions: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Returns the derivative of the squared errors."""
        return np.asarray(2 * (predictions - y) / self.outputs)


@dataclass(frozen=True, slots=True)
class SoftmaxRegression:
    """Softmax (multinomial logistic) regression on class numbers: cross-entropy, and `accuracy` beside it.

    Attributes:
        features: Numbers in a row, all inputs together.
        classes: How many classes there are; labels are their numbers from 0.
        learning_rate: Step size of SGD.
        momentum: Share of the last step that the next one keeps, from 0 to below 1.
        dtype: Type of weights and sums, `"float32"` or `"float64"`.

    Raises:
        PlanError: A setting cannot work.

    Example:
        >>> from fedray.ml.nn.numpy import SoftmaxRegression
        >>> SoftmaxRegression(features=4, classes=3).outputs
        3
    """

    features: int
    classes: int
    learning_rate: float = 0.01
    momentum: float = 0.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check("SoftmaxRegression", self)

    @property
    def outputs(self) -> int:
        """One probability per class."""
        return self.classes

    @property
    def measures(self) -> Mapping[str, PerRow]:
        """The share of rows whose likeliest class is theirs."""
        return {"accuracy": lambda predictions, y: predictions.argmax(axis=1) == y}

    def labels(self, y: NDArray[Any]) -> NDArray[Any]:
        """Returns class numbers, int64[rows].

        Raises:
            DataError: They are not one class number per row.
        """
        found = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if found.ndim != 1 or found.dtype.kind not in "biuf":
            raise DataError(f"y: SoftmaxRegression expects one class number per row, found {y.shape[1:]} of {y.dtype}")
        with np.errstate(invalid="ignore"):  # NaN becomes some integer, and then is not equal to it
            numbers = found.astype(np.int64)
        known = np.array_equal(numbers, found) and ((numbers >= 0) & (numbers < self.classes)).all()
        if not known:
            raise DataError(f"y: SoftmaxRegression expects class numbers from 0 to {self.classes} - 1, found others")
        return numbers

    def predictions(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Returns probabilities; the largest score is taken off first, so that none overflows."""
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def losses(self, predictions: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Returns the negative logarithm of the probability of each row's class, which is kept from 0."""
        own = predictions[np.arange(len(y)), y]
        return np.asarray(-np.log(np.maximum(own, np.finfo(own.dtype).tiny)))

    def errors(self, predictions: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Returns probabilities minus one-hot labels."""
        return np.asarray(predictions - np.eye(self.classes, dtype=predictions.dtype)[y])


def _check(kind: str, regression: Regression) -> None:
    for name, value in (("features", regression.features), ("outputs", regression.outputs)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PlanError(f"{kind}: expected {name} as a whole number of at least 1, found {value!r}")
    if not (math.isfinite(regression.learning_rate) and regression.learning_rate >= 0):
        raise PlanError(
            f"{kind}: expected learning_rate as a finite number of 0 or more, found {regression.learning_rate!r}"
        )
    if not 0 <= regression.momentum < 1:
        raise PlanError(f"{kind}: expected momentum from 0 to below 1, found {regression.momentum!r}")
    if regression.dtype not in ("float32", "float64"):
        raise PlanError(f"{kind}: expected dtype 'float32' or 'float64', found {regression.dtype!r}")
