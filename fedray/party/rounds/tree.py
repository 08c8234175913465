# SPDX-License-Identifier: Apache-2.0
"""Nested lists, tuples and dicts of arrays as one flat vector, and back. Pure; knows no protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError
from fedray.protocol.scheme import Tensor


@dataclass(frozen=True, slots=True)
class Leaf:
    """Place of one array within nested values.

    Attributes:
        number: Which of the flattened tensors it is.
        scalar: Whether it was a plain Python number.
    """

    number: int
    scalar: bool


def flatten(value: Any) -> tuple[Any, list[Tensor], list[NDArray[Any]]]:
    """Returns the shape of a nest, with a `Leaf` per array, then what each array is, then the arrays.

    Args:
        value: An array or number, or lists, tuples and dicts (with string keys) of such.

    Raises:
        DataError: Something else is in it.
    """
    tensors: list[Tensor] = []
    arrays: list[NDArray[Any]] = []

    def visit(item: Any, path: str) -> Any:
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                raise DataError(f"{path or 'value'}: expected a dict with string keys")
            return {key: visit(item[key], f"{path}/{key}") for key in sorted(item)}
        if isinstance(item, list | tuple):
            visited = [visit(part, f"{path}/{place}") for place, part in enumerate(item)]
            return tuple(visited) if isinstance(item, tuple) else visited
        array = np.asarray(item)
        if array.dtype.kind not in "fiu":
            raise DataError(
                f"{path or 'value'}: expected an array or number of floats or integers, found "
                f"{type(item).__name__} of dtype {array.dtype}; convert it first, e.g. with .astype(np.float64)"
            )
        tensors.append(Tensor(path or "value", array.shape, str(array.dtype)))
        arrays.append(array)
        return Leaf(len(arrays) - 1, not isinstance(item, np.ndarray | np.generic))

    return visit(value, ""), tensors, arrays


def join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Returns arrays end to end: int64[n] where all are integers, else float64[n].

    Raises:
        DataError: An unsigned 64-bit integer is beyond the range of int64.
    """
    whole = bool(arrays) and all(array.dtype.kind in "iu" for array in arrays)
    dtype = np.int64 if whole else np.float64
    for array in arrays:
        if whole and array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise DataError("value: an unsigned integer is beyond 2^63 - 1, which a sum cannot hold")
    return np.concatenate([np.empty(0, dtype), *(np.ravel(array).astype(dtype) for array in arrays)])


def rebuild(nest: Any, tensors: Sequence[Tensor], values: NDArray[Any], *, averaged: bool) -> Any:
    """Returns the nest with opened values in place of its leaves.

    Floats get their dtype back. Integers become int64 where they were summed and float64 where they were averaged.
    """
    ends = np.cumsum([tensor.size for tensor in tensors])
    parts = np.split(values, ends[:-1]) if tensors else []

    def restored(leaf: Leaf) -> Any:
        tensor = tensors[leaf.number]
        dtype = np.dtype(tensor.dtype if not tensor.integer else ("float64" if averaged else "int64"))
        array = parts[leaf.number].reshape(tensor.shape).astype(dtype)
        return array.item() if leaf.scalar else array

    def visit(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: visit(part) for key, part in item.items()}
        if isinstance(item, list | tuple):
            return type(item)(visit(part) for part in item)
        return restored(item)

    return visit(nest)
