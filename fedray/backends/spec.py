# SPDX-License-Identifier: Apache-2.0
"""ParamSpec: the tensors of a model, their roles, and what the words of the flat vector are. Pure; knows no framework.

Every tensor is `shared` (summed each round), `frozen` (equal everywhere: agreed on once by hash, in no round) or
`local` (stays in its party). The flat vector is made of the shared ones alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError
from fedray.types import Vector

Role: TypeAlias = Literal["shared", "frozen", "local"]
"""What becomes of a tensor in a federation."""


@dataclass(frozen=True, slots=True)
class Param:
    """One tensor of a model.

    Attributes:
        name: Unique within the model, e.g. `"conv2d/kernel"`.
        shape: Its shape.
        dtype: Its dtype as a string; floating point only.
        trainable: Whether the optimizer changes it.
        role: Whether it is summed, the same everywhere, or each party's own.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    role: Role = "shared"

    @property
    def size(self) -> int:
        """Number of its words."""
        return math.prod(self.shape)

    @property
    def word_dtype(self) -> str:
        """Type of its words in the flat vector before they are encoded: one that NumPy knows, also of bfloat16."""
        return self.dtype if self.dtype in ("float16", "float32", "float64") else "float32"


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """The tensors of a model. All that speaks of words speaks of the flat vector: shared tensors, trainable ones first.

    Attributes:
        params: One record per tensor, the shared ones in the order of the flat vector.
    """

    params: tuple[Param, ...]

    @property
    def shared(self) -> tuple[Param, ...]:
        """The tensors of the flat vector, in its order."""
        return self.of("shared")

    def of(self, role: Role) -> tuple[Param, ...]:
        """Returns the tensors of one role."""
        return tuple(param for param in self.params if param.role == role)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each shared tensor."""
        return tuple(param.name for param in self.shared)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of words of each shared tensor."""
        return tuple(param.size for param in self.shared)

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(self.sizes)

    @property
    def trainable(self) -> int:
        """How many words of the flat vector, from its start, belong to trainable tensors."""
        return sum(param.size for param in self.shared if param.trainable)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the flat vector: float64 if any of its tensors is, else float32."""
        return np.dtype("float64" if any(param.dtype == "float64" for param in self.shared) else "float32")

    def pack(self, tensors: Sequence[NDArray[Any]]) -> Vector:
        """Returns the shared tensors end to end, in the vector's dtype.

        Raises:
            DataError: A tensor's shape differs from the spec.
        """
        for param, tensor in zip(self.shared, tensors, strict=True):
            if tuple(tensor.shape) != param.shape:
                raise DataError(f"tensor {param.name!r}: expected shape {param.shape}, found {tuple(tensor.shape)}")
        flat: Vector = np.concatenate([np.ravel(t).astype(self.dtype) for t in tensors] or [np.empty(0, self.dtype)])
        return flat

    def unpack(self, values: Vector) -> list[NDArray[Any]]:
        """Returns views (or casts) of the flat vector, one per shared tensor, in its shape and dtype."""
        parts = np.split(values, np.cumsum(self.sizes)[:-1]) if self.shared else []
        return [
            part.reshape(param.shape).astype(param.dtype, copy=False)
            for part, param in zip(parts, self.shared, strict=True)
        ]


LARGEST = {"float16": 65504.0, "bfloat16": float(2**128 - 2**120), "float32": float(2**128 - 2**104)}
"""Largest finite numbers of those types of tensors that hold less than float64."""


def check_arrays(values: Sequence[Any], shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str]) -> None:
    """Checks arrays that are to become a model's tensors.

    Args:
        values: The arrays, in the order of the tensors.
        shapes: Shapes of the tensors.
        dtypes: Names of their types.

    Raises:
        DataError: Their number or a shape is another, one holds no numbers, or finite ones that would become infinite.
    """
    found = [tuple(np.shape(value)) for value in values]
    if list(shapes) != found:
        raise DataError(f"weights: expected arrays of shapes {list(shapes)}, found {found}")
    for place, (value, dtype) in enumerate(zip(values, dtypes, strict=True)):
        array = np.asarray(value)
        if array.dtype.kind in "cmMOSU":
            raise DataError(f"weights: array {place}: expected numbers, found dtype {array.dtype}")
        most = LARGEST.get(dtype)
        if most is not None and array.dtype.kind == "f" and np.any(np.isfinite(array) & (np.abs(array) > most)):
            raise DataError(f"weights: array {place} holds numbers beyond {most:.3g}, the largest that {dtype} holds")
