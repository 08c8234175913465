# SPDX-License-Identifier: Apache-2.0
"""A party's arrays on their way into a model of any framework: numbers in rows, and a weight for each row. Pure.

Messages name shapes and ranges, never values of the party's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError, PlanError
from fedray.tree import Tree


def as_arrays(tree: Tree, dtype: str) -> Tree:
    """Returns arrays of rows, those of floating-point numbers in the model's own type.

    Args:
        tree: What a party holds.
        dtype: `"float32"` or `"float64"`, of the result's floating-point leaves.

    Raises:
        DataError: A leaf is not an array of numbers (or text) with at least one axis; it has masked values, or finite
            ones beyond what `dtype` holds.
    """
    arrays = []
    for name, values in tree.named():
        array = np.asarray(values)
        if array.ndim == 0 or array.dtype.kind not in "biufUS":
            raise DataError(f"{name}: expected rows of numbers, found shape {array.shape}, dtype {array.dtype}")
        if np.ma.is_masked(values):
            raise DataError(f"{name}: found a masked array; leave masked rows out, or fill them with .filled(number)")
        arrays.append(_real(array, dtype, name) if array.dtype.kind == "f" else array)
    return tree.rebuild(arrays)


def _real(array: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """Returns floating-point numbers in another type, in which none has become infinite."""
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype, copy=False)
    except FloatingPointError:
        raise DataError(
            f"{name}: some numbers are beyond what {dtype} holds, the model's own type; scale them, e.g. x / x.std()"
        ) from None


def row_weights(
    y: Tree | None, sample_weight: Tree | None, class_weight: Mapping[int, float] | None, dtype: str
) -> Tree | None:
    """Returns one weight per row and output, as nested as the labels, or None where nothing is weighted.

    One array for several outputs stands for all of them; an output whose weights are None counts every row as 1.

    Args:
        y: Labels.
        sample_weight: One number per row, or a tree like `y` with an array or None per output.
        class_weight: Class number -> weight of its rows.
        dtype: Float type of the result.

    Raises:
        DataError: There are no labels, or the weights are nested in another way than they are.
        PlanError: Both kinds of weights, or weights of classes for several outputs.
    """
    if class_weight:
        if sample_weight is not None:
            raise PlanError("sample_weight and class_weight: expected one of the two, found both")
        if y is not None and y.nested:
            raise PlanError(
                "class_weight: works for a model with one output only, as in Keras; pass sample_weight={output: "
                "weights of its rows} instead"
            )
        return Tree(class_weights(class_weight, None if y is None else y.nest, dtype), "sample_weight")
    if sample_weight is None:
        return None
    if y is None:
        raise DataError("sample_weight: expected labels y beside it, found none")
    given = sample_weight.leaves()
    if not sample_weight.nested or (not y.nested and len(given) == 1):
        given = [given[0] for _ in y.leaves()]
    elif not sample_weight.same_form(y):
        raise DataError(
            f"sample_weight: expected one array, or one for each of {', '.join(y.names())}; found "
            f"{', '.join(sample_weight.names())}"
        )
    filled = [np.ones(len(rows)) if w is None else w for rows, w in zip(y.leaves(), given, strict=True)]
    weights = Tree(y.nest, "sample_weight").rebuild(filled)
    return as_arrays(weights, dtype).map(lambda array: array.astype(dtype, copy=False))


def class_weights(class_weight: Mapping[int, float], y: NDArray[Any] | None, dtype: str) -> NDArray[Any]:
    """Returns one weight per row, float[rows], as Keras does: 1 for classes that are not mentioned.

    Args:
        class_weight: Class number -> weight.
        y: Labels, a class number or one-hot per row.
        dtype: Type of the weights.

    Raises:
        DataError: There are no labels to look at, or they are not one class per row.
        PlanError: A class is not a whole number, or a weight not a finite number of 0 or more.
    """
    if y is None or y.ndim > 2:
        raise DataError(f"class_weight: expected one class per row in y, found {None if y is None else y.shape[1:]}")
    labels = y if y.ndim == 1 else y[:, 0] if y.shape[1] == 1 else np.argmax(y, axis=1)
    classes = np.round(labels).astype(np.int64)
    weights = np.ones(len(y), dtype)
    for label, weight in class_weight.items():
        number = isinstance(label, int | np.integer) and not isinstance(label, bool)
        if not number or not isinstance(weight, int | float | np.number) or not 0 <= weight < np.inf:
            raise PlanError(f"class_weight: expected class number -> weight of 0 or more, found {label!r}: {weight!r}")
        weights[classes == label] = weight
    return weights
