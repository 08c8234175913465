# SPDX-License-Identifier: Apache-2.0
"""KerasData: a party's arrays as tensors. Works on the modules it is handed; imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedray.backends.backend import Data
from fedray.errors import DataError
from fedray.tree import Tree


@dataclass(frozen=True, slots=True)
class KerasData:
    """A party's arrays as tensors.

    Attributes:
        tensors: x, or (x, y), or (x, y, sample_weight), each as nested as the user's; rows on the first axes.
        rows: Number of rows.
        specs: Shapes and dtypes of the tensors, row axis open: data sets with the same specs share their graphs.
        kind: The specs in words, a key that is quick to compare.
    """

    tensors: tuple[Any, ...]
    rows: int
    specs: tuple[Any, ...]
    kind: str


def to_tensors(tf: Any, trees: tuple[Tree, ...], rows: int) -> KerasData:
    """Returns trees of arrays as trees of tensors.

    Args:
        tf: The tensorflow module.
        trees: x, or x and y, or x, y and sample_weight.
        rows: What their leaves have in common.
    """
    tensors = tuple(tree.map(tf.convert_to_tensor).nest for tree in trees)
    specs = tuple(Tree(nest).map(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype)).nest for nest in tensors)
    return KerasData(tensors, rows, specs, repr(specs))


def bound_data(data: Data) -> KerasData:
    """Returns what `bind` returned as what it is.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(data, KerasData):
        raise DataError(f"data: expected what bind returned, found {type(data).__name__}")
    return data


def two_rows(tree: Tree) -> Tree:
    """Returns the first two rows; rows are repeated where there are fewer."""
    return tree.map(lambda array: np.resize(array[:2], (2, *array.shape[1:])))
