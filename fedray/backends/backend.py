# SPDX-License-Identifier: Apache-2.0
"""Backend: one framework's model behind one flat vector. Knows no strategy, no protocol and no other party."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.metrics import Metric
from fedray.strategies.strategy import Hook, State, Strategy
from fedray.types import Vector

Snapshot: TypeAlias = Mapping[str, Any]
"""All local state of a model but the weights, at one moment."""


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """Names, shapes and dtypes of a model's parameters, trainable ones first, and their places in the flat vector.

    Attributes:
        names: One per tensor, unique, e.g. `"conv2d/kernel"`.
        shapes: Their shapes.
        dtypes: Their dtypes as strings; floating point only.
        trainable: How many words of the flat vector, from its start, belong to trainable tensors.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    trainable: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of words of each tensor."""
        return tuple(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(self.sizes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the flat vector: float64 if any tensor is, else float32."""
        return np.dtype("float64" if "float64" in self.dtypes else "float32")

    def pack(self, tensors: Sequence[NDArray[Any]]) -> Vector:
        """Returns the tensors end to end, in the vector's dtype.

        Raises:
            DataError: A tensor's shape differs from the spec.
        """
        from fedray.errors import DataError

        for name, shape, tensor in zip(self.names, self.shapes, tensors, strict=True):
            if tuple(tensor.shape) != shape:
                raise DataError(f"tensor {name!r}: expected shape {shape}, found {tuple(tensor.shape)}")
        flat: Vector = np.concatenate([np.ravel(t).astype(self.dtype) for t in tensors] or [np.empty(0, self.dtype)])
        return flat

    def unpack(self, values: Vector) -> list[NDArray[Any]]:
        """Returns views (or casts) of the flat vector, one per tensor, in its shape and dtype."""
        ends = np.cumsum(self.sizes)[:-1]
        parts = np.split(values, ends) if self.names else []
        return [p.reshape(s).astype(d, copy=False) for p, s, d in zip(parts, self.shapes, self.dtypes, strict=True)]

    def tensor_at(self, index: int) -> str:
        """Returns the name of the tensor that holds word `index`."""
        return self.names[int(np.searchsorted(np.cumsum(self.sizes), index, side="right"))]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the driver and the server need to know of a model; nothing in it depends on data.

    Attributes:
        spec: Its parameters.
        train_words: Names of the words in which the additive metrics of training are summed.
        evaluate_words: The same of evaluation.
        directions: Metric name -> `"max"` or `"min"`, where the framework knows which is better.
    """

    spec: ParamSpec
    train_words: tuple[str, ...]
    evaluate_words: tuple[str, ...]
    directions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Batch:
    """Row numbers of one local batch into the party's own arrays."""

    rows: NDArray[np.int64]


class Data(Protocol):
    """A party's arrays as one framework holds them; made by `Backend.bind`, of use to that backend alone."""

    @property
    def rows(self) -> int:
        """Number of rows."""


class Backend(Protocol):
    """A compiled model in one party. Training metrics accumulate in the model until `take_metrics`.

    A model that learns its shape from the data has no `spec` before its first `bind`.
    """

    @property
    def spec(self) -> ParamSpec:
        """What the words of the flat vector are.

        Raises:
            PlanError: The model is not built, and no data has been bound yet.
        """

    def bind(
        self,
        x: NDArray[Any],
        y: NDArray[Any] | None = None,
        sample_weight: NDArray[Any] | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> Data:
        """Takes arrays over, builds the model where it has waited for them, and checks that they fit it.

        Raises:
            DataError: The arrays do not fit each other, the model or its loss.
            PlanError: The model does something that is not supported, e.g. has several outputs.
        """

    def check_strategy(self, strategy: Strategy) -> None:
        """Refuses a strategy that this model cannot be trained with.

        Raises:
            PlanError: The strategy works on gradients, and the model takes its steps by itself.
        """

    def weights(self) -> Vector:
        """Returns the flat vector."""

    def set_weights(self, values: Vector) -> None:
        """Sets every parameter from the flat vector."""

    def train(
        self, start: Vector, data: Data, batches: Sequence[Batch], hook: Hook | None = None, state: State | None = None
    ) -> tuple[Vector, int, Snapshot]:
        """Sets the weights to `start` and trains on the batches in order.

        The hook's `state` holds whole flat vectors; it is given their trainable words.

        Returns:
            The new flat vector, the rows seen, and what `snapshot` would return now, which costs less this way.
        """

    def gradient(self, data: Data, batches: Sequence[Batch]) -> tuple[Vector, int]:
        """Returns the mean gradient over the batches' rows and their number; non-trainable words hold the values."""

    def apply_gradient(self, gradient: Vector) -> None:
        """Lets the optimizer apply a gradient; non-trainable words are set."""

    def take_metrics(self) -> list[Metric]:
        """Returns the training metrics accumulated since the last call, and resets them."""

    def evaluate(self, data: Data, batches: Sequence[Batch]) -> list[Metric]:
        """Returns the metrics over the batches; training metrics are not touched."""

    def finish(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Returns metrics whose states are sums over parties with their values computed."""

    def predict(self, data: Data, batches: Sequence[Batch]) -> NDArray[Any]:
        """Returns the model's outputs, row by row."""

    def snapshot(self) -> Snapshot:
        """Returns all local state but the weights: optimizer, metrics, random generators."""

    def restore(self, snapshot: Snapshot) -> None:
        """Puts back what `snapshot` returned."""

    def fingerprint(self) -> bytes:
        """Returns SHA-256 over architecture, optimizer, loss and metrics: equal where the same model is trained."""

    def learning_rate(self) -> float:
        """Returns the optimizer's current learning rate."""

    def set_learning_rate(self, value: float) -> None:
        """Sets the optimizer's learning rate.

        Raises:
            PlanError: The optimizer follows a schedule of its own.
        """

    def facts(self) -> ModelFacts:
        """Returns names and shapes of tensors and metrics.

        Raises:
            PlanError: No data has been bound yet.
        """

    def arrays(self) -> list[NDArray[Any]]:
        """Returns the weights in the framework's own order."""

    def set_arrays(self, values: Sequence[NDArray[Any]]) -> None:
        """Sets the weights from arrays in the framework's own order.

        Raises:
            DataError: Their number or a shape is not the model's.
        """

    def export_model(self, weights_only: bool = False) -> bytes:
        """Returns the compiled model, or its weights alone, in the framework's own file format."""

    def import_model(self, content: bytes) -> None:
        """Takes the weights from such a file; optimizer and other local state stay as they are.

        Raises:
            DataError: The file does not fit the model.
        """
