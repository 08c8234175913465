# SPDX-License-Identifier: Apache-2.0
"""Backend: one framework's model behind one flat vector. Knows no strategy, no protocol and no other party."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedray.metrics import Metric
from fedray.strategies.strategy import Hook, State
from fedray.types import Vector


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
class Batch:
    """Row numbers of one local batch into the party's own arrays."""

    rows: NDArray[np.int64]


class Backend(Protocol):
    """A compiled model in one party. Metrics accumulate in the model until `take_metrics`."""

    spec: ParamSpec

    def weights(self) -> Vector:
        """Returns the flat vector, a fresh copy."""

    def set_weights(self, values: Vector) -> None:
        """Sets every parameter from the flat vector."""

    def train(self, batches: Sequence[Batch], hook: Hook | None, state: State) -> int:
        """Trains on the batches in order; returns the number of rows seen."""

    def gradient(self, batches: Sequence[Batch]) -> tuple[Vector, int]:
        """Returns the mean gradient over the batches' rows and their number; non-trainable words hold the values."""

    def apply_gradient(self, gradient: Vector) -> None:
        """Lets the optimizer apply a gradient; non-trainable words are set."""

    def take_metrics(self) -> list[Metric]:
        """Returns the metrics accumulated since the last call, and resets them."""

    def evaluate(self, batches: Sequence[Batch]) -> list[Metric]:
        """Returns the metrics over the batches."""

    def predict(self, batches: Sequence[Batch]) -> NDArray[Any]:
        """Returns the model's outputs, row by row."""

    def snapshot(self) -> Mapping[str, Any]:
        """Returns all local state but the weights: optimizer, metrics, random generators."""

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Puts back what `snapshot` returned."""
