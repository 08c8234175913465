# SPDX-License-Identifier: Apache-2.0
"""A user's value as one flat vector of a sum, and back: nested lists, tuples and dicts of arrays and numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError, EncodingError, type_of
from fedray.party.parcel import dtype_of
from fedray.protocol.limbs import LEAST
from fedray.protocol.manifest import Tensor
from fedray.tree import Tree


def flatten(value: Any) -> tuple[Any, list[Tensor], list[NDArray[Any]]]:
    """Returns the shape of a nest, what each of its arrays is, and the arrays.

    Args:
        value: An array or number, or lists, tuples and dicts (with string keys) of such.

    Returns:
        The nest with True in place of each plain number and False in place of each array; then one `Tensor` and one
        array per leaf, in the order of `Tree`.

    Raises:
        DataError: Something else is in it.
    """
    tree = Tree(value)
    tensors: list[Tensor] = []
    arrays: list[NDArray[Any]] = []
    for name, leaf in tree.named():
        if np.ma.is_masked(leaf):
            raise DataError(
                f"{name}: found a masked array, whose masked values would be summed; fill them, e.g. with .filled(0)"
            )
        if hasattr(leaf, "iloc") or isinstance(leaf, range):
            # Another party's rows or columns may be in another order, and would be summed by position.
            raise DataError(f"{name}: expected an array or number, found {type_of(leaf)}; say np.asarray(value) first")
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiu":
            raise DataError(
                f"{name}: expected an array or number of floats or integers, found {type_of(leaf)} of dtype "
                f"{dtype_of(array)}; convert it first, e.g. with .astype(np.float64)"
            )
        tensors.append(Tensor(name, array.shape, str(array.dtype)))
        arrays.append(array)
    # An array of another library's comes back as NumPy's.
    plain = tree.map(lambda leaf: not isinstance(leaf, np.ndarray | np.generic) and np.ndim(leaf) == 0)
    return plain.nest, tensors, arrays


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


def join_reals(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Returns arrays end to end, float64[n]."""
    return np.concatenate([np.empty(0), *(np.ravel(array).astype(np.float64) for array in arrays)])


def weighed(arrays: Mapping[str, NDArray[Any]], weight: float) -> dict[str, NDArray[Any]]:
    """Returns the products of arrays and a weight, float64.

    It is the one rounding that is not the sum's: of each product. There is none where the weight is a power of two.

    Args:
        arrays: By the name of the tensor.
        weight: A number of 0 or more.

    Raises:
        DataError: A product is beyond the largest float.
    """
    products: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        with np.errstate(over="ignore", invalid="ignore"):
            products[name] = array.astype(np.float64) * weight
        if not np.array_equal(np.isfinite(products[name]), np.isfinite(array)):
            raise DataError(f"{name}: a value times its weight is beyond what float64 holds; divide the weights")
    return products


def refuse_small(arrays: Mapping[str, NDArray[Any]], owner: str) -> None:
    """Refuses what an exact sum would lose digits of, or count as 0.

    Beside larger values of the same array a small one may be cut off: what is lost of it is nothing beside them.

    Args:
        arrays: By the name of the tensor.
        owner: Whose they are, for errors.

    Raises:
        EncodingError: The largest value of an array is below 2^-128, and not 0.
    """
    for name, array in arrays.items():
        if 0 < np.max(np.abs(array), initial=0.0) < LEAST:
            raise EncodingError(
                f"{owner}: {name!r} holds nothing of 2^-128 (3e-39) or more, so small that a sum would lose digits or "
                "count it as 0; nothing was sent. Sum it in a smaller unit, or set it to 0"
            )


def _cast(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype)
    except FloatingPointError:
        raise DataError(
            f"{name}: the sum is beyond what {dtype} holds; sum the values as float32 or float64, e.g. with "
            ".astype('float64')"
        ) from None


def rebuild(
    nest: Any, tensors: Sequence[Tensor], values: NDArray[Any], totals: NDArray[np.float64], *, averaged: bool
) -> Any:
    """Returns the nest with opened values in place of its leaves.

    Floats get their dtype back. Integers become int64 where they were summed and float64 where they were averaged.

    Args:
        nest: Nested lists, tuples and dicts with numbers of leaves, as `flatten` returns it.
        tensors: Names, shapes and dtypes of the leaves.
        values: What was opened of the leaves that are the manifest's tensors, end to end.
        totals: What was opened of the others, end to end; with any of them, the tensors are the integers.
        averaged: Whether it is a mean.

    Raises:
        DataError: A sum is beyond what the type of its values holds.
    """
    tree, exact = Tree(nest), len(totals) > 0
    leaves: list[Any] = []
    taken = {True: 0, False: 0}
    for tensor, number in zip(tensors, tree.leaves(), strict=True):
        apart = exact and not tensor.integer
        start = taken[apart]
        taken[apart] = start + tensor.size
        part = (totals if apart else values)[start : taken[apart]]
        dtype = np.dtype(tensor.dtype if not tensor.integer else ("float64" if averaged else "int64"))
        array = _cast(part.reshape(tensor.shape), dtype, tensor.name)
        leaves.append(array.item() if number else array)
    return tree.rebuild(leaves).nest
