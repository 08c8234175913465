# SPDX-License-Identifier: Apache-2.0
"""NumpyBackend: a linear model in one party, trained by plain SGD. The whole of `Backend` in one file.

Two runs with one seed are equal to the last bit on one machine. Knows no protocol and no other party.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.backend import Batch, Data, FileKind, ModelFacts, Snapshot
from fedray.backends.numpy.regression import LinearRegression, Regression, SoftmaxRegression
from fedray.backends.numpy.words import ORDER, RegressionWords
from fedray.backends.rows import as_arrays, row_weights
from fedray.backends.spec import ParamSpec
from fedray.errors import DataError, PlanError
from fedray.metrics import Mean, Metric, words
from fedray.strategies.strategy import Hook, State, Strategy
from fedray.tree import Tree, common_rows
from fedray.types import Vector


@dataclass(frozen=True, slots=True)
class NumpyData:
    """A party's rows.

    Attributes:
        x: [rows, features], the inputs side by side.
        y: Labels as the regression takes them, or None.
        weight: One per row, or None.
        rows: Number of rows.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None
    weight: NDArray[Any] | None
    rows: int


class NumpyBackend:
    """One linear model behind one flat vector; see `fedray.backends.backend.Backend`.

    Args:
        regression: What the builder returned.
        seed: Seed of the initial kernel; the bias starts at zero.
        local: Patterns for what stays in the party, of `kernel` and `bias`; none is ever frozen.

    Raises:
        PlanError: The builder returned something else, or the patterns fit no tensor or leave none.
    """

    def __init__(self, regression: Regression, seed: int, local: Sequence[str] = ()) -> None:
        if not isinstance(regression, LinearRegression | SoftmaxRegression):
            found = type(regression).__name__
            raise PlanError(
                f"model: expected the builder to return a LinearRegression or a SoftmaxRegression, found {found}"
            )
        self._regression: Regression = regression
        self._words = RegressionWords(regression.features, regression.outputs, regression.dtype, local)
        # The variance at which scores of standardised rows start near one, whatever the number of features.
        shape = (regression.features, regression.outputs)
        kernel = np.random.default_rng(seed).normal(0, regression.features**-0.5, shape)
        self._all = self._words.packed({"kernel": kernel, "bias": np.zeros(regression.outputs)})
        self._built = self._words.own(self._all)
        self._velocity = np.zeros_like(self._all)
        self._own_gradient: Vector | None = None
        self._rate = regression.learning_rate
        self._names = ("loss", *regression.measures)
        self._sums, self._rows = np.zeros(len(self._names)), 0

    # Weights

    @property
    def spec(self) -> ParamSpec:
        """Kernel and bias, both trainable, shared or local."""
        return self._words.spec

    def weights(self) -> Vector:
        """Returns a copy of the flat vector."""
        return self._words.shared(self._all).copy()

    def set_weights(self, values: Vector) -> None:
        """Sets what is shared of kernel and bias from the flat vector.

        Raises:
            DataError: It is longer or shorter than that.
        """
        if values.shape != (self._words.spec.size,):
            raise DataError(f"weights: expected {self._words.spec.size} words, found shape {values.shape}")
        self._all = np.concatenate([np.asarray(values, self._all.dtype), self._words.own(self._all)])

    def fingerprint(self) -> bytes:
        """Returns SHA-256 over the regression, its settings and the roles of its tensors."""
        return hashlib.sha256(repr((self._regression, self._words.spec)).encode()).digest()

    def facts(self) -> ModelFacts:
        """Returns names and shapes of tensors and metrics; training and evaluation have the same."""
        names = words(self._means(self._sums, 0))
        directions = {name: "max" if name == "accuracy" else "min" for name in self._names}
        return ModelFacts(self._words.spec, names, names, directions)

    def keep_apart(self, reasons: Mapping[str, str]) -> None:
        """Keeps none: every metric here is a mean, and adds up."""

    # Steps

    def bind(
        self,
        x: Tree,
        y: Tree | None = None,
        sample_weight: Tree | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> NumpyData:
        """Lays the inputs side by side and checks the labels; see `Steps.bind`.

        Raises:
            DataError: Rows, labels or weights do not fit each other or the regression.
            PlanError: Weights of classes are given to a regression without classes.
        """
        x, dtype = as_arrays(x, self._regression.dtype), self._regression.dtype
        y = None if y is None else as_arrays(y, dtype)
        if y is not None and y.nested:
            raise DataError(f"y: the model has one output; expected one array, found {', '.join(y.names())}")
        if class_weight and not isinstance(self._regression, SoftmaxRegression):
            raise PlanError(
                "class_weight: expected a SoftmaxRegression, whose labels are classes; pass sample_weight instead"
            )
        weight = row_weights(y, sample_weight, class_weight, dtype)
        rows = common_rows([tree for tree in (x, y, weight) if tree is not None])
        flat = [leaf.reshape(rows, int(np.prod(leaf.shape[1:]))) for leaf in x.leaves()]
        side_by_side = np.concatenate(flat, axis=1)
        if side_by_side.shape[1] != self._regression.features or side_by_side.dtype.kind not in "biuf":
            raise DataError(
                f"x: the model expects {self._regression.features} numbers per row, found {side_by_side.shape[1]} of "
                f"{side_by_side.dtype}"
            )
        labels = None if y is None else self._regression.labels(y.nest)
        return NumpyData(side_by_side.astype(dtype), labels, None if weight is None else weight.nest, rows)

    def check_strategy(self, strategy: Strategy) -> None:
        """Refuses none: gradients are at hand."""

    def begin_round(self, first: int, planned: int, epochs: int) -> None:
        """Needs nothing: there are no schedules here; see `Steps.begin_round`."""

    def train(
        self, start: Vector, data: Data, batches: Sequence[Batch], hook: Hook | None = None, state: State | None = None
    ) -> tuple[Vector, int, Snapshot]:
        """Sets the weights to `start` and takes one step of SGD per batch; see `Steps.train`."""
        self.set_weights(start)
        for batch in batches:
            gradient = self._gradient(data, batch.rows)
            shared = self._words.shared(gradient)
            pulled = shared if hook is None else hook(state or {}, shared, self._words.shared(self._all))
            self._step(np.concatenate([pulled, self._words.own(gradient)]))
        return self.weights(), sum(len(batch.rows) for batch in batches), self.snapshot()

    def gradient(self, data: Data, batches: Sequence[Batch]) -> tuple[Vector, int]:
        """Returns the mean gradient over the batches' rows and their number; keeps that of local tensors."""
        total, rows = np.zeros_like(self._all), 0
        for batch in batches:
            total += self._gradient(data, batch.rows) * len(batch.rows)
            rows += len(batch.rows)
        mean = total / max(rows, 1)
        self._own_gradient = self._words.own(mean) if rows else None
        return self._words.shared(mean), rows

    def apply_gradient(self, gradient: Vector) -> None:
        """Takes one step of SGD with momentum; local tensors rest where no rows of this party's speak for them."""
        own, self._own_gradient = self._own_gradient, None
        at_rest = self._words.own(self._all), self._words.own(self._velocity)
        self._step(np.concatenate([gradient, np.zeros_like(at_rest[0]) if own is None else own]))
        if own is None:
            self._all = np.concatenate([self._words.shared(self._all), at_rest[0]])
            self._velocity = np.concatenate([self._words.shared(self._velocity), at_rest[1]])

    def reset_metrics(self) -> None:
        """Forgets the training metrics accumulated so far."""
        self._sums, self._rows = np.zeros(len(self._names)), 0

    def take_metrics(self) -> list[Metric]:
        """Returns the training metrics accumulated since the last call, and resets them."""
        taken = self._means(self._sums, self._rows)
        self.reset_metrics()
        return taken

    def loss_so_far(self) -> Mean | None:
        """Returns the loss in the training metrics so far; see `Steps.loss_so_far`."""
        return Mean("loss", float(self._sums[0]), float(self._rows))

    def evaluate(self, data: Data, batches: Sequence[Batch]) -> list[Metric]:
        """Returns the metrics over the batches."""
        sums = np.zeros(len(self._names))
        for batch in batches:
            sums += self._forward(data, batch.rows)[0]
        return self._means(sums, sum(len(batch.rows) for batch in batches))

    def finish(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Returns the metrics as they are: a mean computes its own value."""
        return list(metrics)

    def predict(self, data: Data, batches: Sequence[Batch]) -> Tree:
        """Returns [rows, outputs]."""
        bound = _bound(data)
        nothing = np.empty((0, self._regression.outputs), self._regression.dtype)
        parts = [self._regression.predictions(self._scores(bound.x[batch.rows])) for batch in batches]
        return Tree(np.concatenate([nothing, *parts]), "output")

    def learning_rate(self) -> float:
        """Returns the step size."""
        return self._rate

    def set_learning_rate(self, value: float) -> None:
        """Sets the step size."""
        self._rate = float(value)

    # LocalState

    def snapshot(self) -> Snapshot:
        """Returns local tensors, velocity and metrics; arrays here are replaced and never changed: none is copied."""
        own = self._words.own(self._all)
        return {"own": own, "velocity": self._velocity, "sums": self._sums, "rows": self._rows}

    def restore(self, snapshot: Snapshot) -> None:
        """Puts back what `snapshot` returned."""
        self._velocity, self._sums, self._rows = snapshot["velocity"], snapshot["sums"], snapshot["rows"]
        self._all = np.concatenate([self._words.shared(self._all), snapshot["own"]])
        self._own_gradient = None

    def stored(self) -> dict[str, Any]:
        """Returns the same, and the learning rate."""
        return {**self.snapshot(), "rate": self._rate}

    def take_stored(self, stored: Mapping[str, Any]) -> None:
        """Puts back what `stored` returned.

        Raises:
            DataError: It is of another model.
        """
        if np.shape(stored["velocity"]) != self._velocity.shape or len(stored["sums"]) != len(self._names):
            raise DataError("the state that was kept is of another model: its tensors or metrics are others")
        self.restore(stored)
        self._rate = stored["rate"]

    def forget(self) -> None:
        """Begins anew without velocity."""
        self._velocity, self._own_gradient = np.zeros_like(self._velocity), None

    # ModelFile

    def export_model(self, kind: FileKind = "model", own: bool = False, ending: str = ".npz") -> bytes:  # noqa: ARG002 (all are one)
        """Returns an `.npz` file with `kernel`, `bias` and `learning_rate`; see `ModelFile`."""
        file = io.BytesIO()
        tensors = self._words.tensors(self._all) if own else self._as_built()
        np.savez(file, kernel=tensors["kernel"], bias=tensors["bias"], learning_rate=self._rate)
        return file.getvalue()

    def import_model(self, content: bytes, own: bool = False) -> None:
        """Takes weights and learning rate from the content of an `.npz` file.

        Raises:
            DataError: It holds others.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                self._take([file[name] for name in ORDER], own)
                if not own and "learning_rate" in file:
                    self._rate = float(file["learning_rate"])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, DataError) as error:
            raise DataError(f"the file does not hold the weights of this model ({', '.join(ORDER)})") from error

    def arrays(self) -> list[NDArray[Any]]:
        """Returns kernel and bias, local ones as built."""
        return [array.copy() for array in self._as_built().values()]

    def set_arrays(self, values: Sequence[NDArray[Any]]) -> None:
        """Sets what is shared of kernel and bias."""
        self._take(values, own=False)

    def _take(self, values: Sequence[NDArray[Any]], own: bool) -> None:
        """Sets local tensors, or the others, from kernel and bias."""
        found = self._words.from_arrays(values)
        shared, local = (self._all, found) if own else (found, self._all)
        self._all = np.concatenate([self._words.shared(shared), self._words.own(local)])

    def _as_built(self) -> dict[str, NDArray[Any]]:
        return self._words.tensors(np.concatenate([self._words.shared(self._all), self._built]))

    def _step(self, gradient: Vector) -> None:
        self._velocity = self._regression.momentum * self._velocity + np.asarray(gradient, self._all.dtype)
        self._all = self._all - self._all.dtype.type(self._rate) * self._velocity

    def _gradient(self, data: Data, rows: NDArray[np.int64]) -> Vector:
        """Returns the mean gradient over some rows, and adds what was measured on the way to the metrics."""
        sums, x, errors = self._forward(data, rows)
        self._sums, self._rows = self._sums + sums, self._rows + len(rows)
        count = max(len(rows), 1)
        return self._words.packed({"kernel": x.T @ errors / count, "bias": errors.sum(axis=0) / count})

    def _forward(self, data: Data, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Returns sums over some rows of loss and measures, the rows, and their weighted errors."""
        bound = _bound(data)
        if bound.y is None:
            raise DataError("y: the model is trained and evaluated on labels, found none")
        x, y = bound.x[rows], bound.y[rows]
        weight = np.ones(len(rows), x.dtype) if bound.weight is None else bound.weight[rows]
        predictions = self._regression.predictions(self._scores(x))
        measured = [self._regression.losses(predictions, y) * weight]
        measured += [measure(predictions, y) for measure in self._regression.measures.values()]
        sums = np.array([np.sum(one, dtype=np.float64) for one in measured])
        return sums, x, self._regression.errors(predictions, y) * weight[:, None]

    def _scores(self, x: NDArray[Any]) -> NDArray[Any]:
        tensors = self._words.tensors(self._all)
        return np.asarray(x @ tensors["kernel"] + tensors["bias"])

    def _means(self, sums: NDArray[Any], rows: int) -> list[Metric]:
        return [Mean(name, float(total), float(rows)) for name, total in zip(self._names, sums, strict=True)]


@dataclass(frozen=True, slots=True)
class Trained:
    """A model with its weights, as `FLModel.global_model()` returns it.

    Attributes:
        regression: The LinearRegression or SoftmaxRegression that the builder returned, with the rate that was set.
        kernel: [features, outputs].
        bias: [outputs].
    """

    regression: Regression
    kernel: NDArray[Any]
    bias: NDArray[Any]

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Returns the outputs for rows, [rows, outputs].

        Args:
            x: [rows, features].
        """
        return self.regression.predictions(np.asarray(x, self.regression.dtype) @ self.kernel + self.bias)


def _bound(data: Data) -> NumpyData:
    if not isinstance(data, NumpyData):
        raise DataError(f"data: expected what bind returned, found {type(data).__name__}")
    return data


def make(
    builder: Callable[[], Any],
    seed: int,
    noise_seed: int,  # noqa: ARG001 (no noise)
    threads: int,  # noqa: ARG001 (as many as NumPy's library takes)
    local: Sequence[str],
    gpus: float,  # noqa: ARG001 (NumPy uses none)
) -> NumpyBackend:
    """Returns the backend of one party; see `fedray.backends.make_backend`."""
    return NumpyBackend(builder(), seed, local)


def build_at_driver(
    builder: Callable[[], Any],
    weights: Sequence[NDArray[Any]],
    rows: Tree | None = None,  # noqa: ARG001 (a regression knows its shape)
    rate: float | None = None,
) -> Trained:
    """Returns a model of the builder with these weights; see `fedray.backends.build_at_driver`."""
    kernel, bias = weights
    regression = builder()
    if rate is not None:
        regression = replace(regression, learning_rate=rate)
    return Trained(regression, kernel, bias)


def describe_at_driver(
    builder: Callable[[], Any],
    rows: Tree | None,  # noqa: ARG001 (a regression knows its shape)
    say: Callable[[str], Any],
) -> None:
    """Says the regression's settings, and how many parameters it has; see `fedray.backends.describe_at_driver`."""
    regression = builder()
    say(str(regression))
    say(f"parameters: {(regression.features + 1) * regression.outputs:,}")
