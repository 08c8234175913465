# SPDX-License-Identifier: Apache-2.0
"""ParamSpec: what the words of a model's flat vector are. Pure; knows no framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError
from fedray.types import Vector


@dataclass(frozen=True, slots=True)
class Param:
    """One tensor of a model.

    Attributes:
        name: Unique within the model, e.g. `"conv2d/kernel"`.
        shape: Its shape.
        dtype: Its dtype as a string; floating point only.
        trainable: Whether the optimizer changes it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool

    @property
    def size(self) -> int:
        """Number of its words."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """The tensors of a flat vector, in its order: trainable ones first.

    Attributes:
        params: One record per tensor.
    """

    params: tuple[Param, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each tensor."""
        return tuple(param.name for param in self.params)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of words of each tensor."""
        return tuple(param.size for param in self.params)

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(self.sizes)

    @property
    def trainable(self) -> int:
        """How many words of the flat vector, from its start, belong to trainable tensors."""
        return sum(param.size for param in self.params if param.trainable)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the flat vector: float64 if any tensor is, else float32."""
        return np.dtype("float64" if any(param.dtype == "float64" for param in self.params) else "float32")

    def pack(self, tensors: Sequence[NDArray[Any]]) -> Vector:
        """Returns the tensors end to end, in the vector's dtype.

        Raises:
            DataError: A tensor's shape differs from the spec.
        """
        for param, tensor in zip(self.params, tensors, strict=True):
            if tuple(tensor.shape) != param.shape:
                raise DataError(f"tensor {param.name!r}: expected shape {param.shape}, found {tuple(tensor.shape)}")
        flat: Vector = np.concatenate([np.ravel(t).astype(self.dtype) for t in tensors] or [np.empty(0, self.dtype)])
        return flat

    def unpack(self, values: Vector) -> list[NDArray[Any]]:
        """Returns views (or casts) of the flat vector, one per tensor, in its shape and dtype."""
        parts = np.split(values, np.cumsum(self.sizes)[:-1]) if self.params else []
        return [
            part.reshape(param.shape).astype(param.dtype, copy=False)
            for part, param in zip(parts, self.params, strict=True)
        ]
