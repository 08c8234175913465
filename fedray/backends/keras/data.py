# SPDX-License-Identifier: Apache-2.0
"""KerasData: a party's arrays as tensors, and the row numbers of its batches.

Works on the modules it is handed; imports no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedray.backends.backend import Batch, Data
from fedray.errors import DataError
from fedray.tree import Tree

_NONE = np.empty(0, np.int64)


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


class RowNumbers:
    """The row numbers of a round's batches as tensors.

    Args:
        tf: The tensorflow module.
    """

    def __init__(self, tf: Any) -> None:
        self._tf = tf
        self._sizes: list[int] = []
        self._ends = tf.constant([], tf.int64)

    def of(self, batches: Sequence[Batch]) -> tuple[Any, Any, int]:
        """Returns all row numbers end to end, where each batch ends, and how many they are."""
        joined = batches[0].rows if len(batches) == 1 else np.concatenate([_NONE, *(batch.rows for batch in batches)])
        sizes = [len(batch.rows) for batch in batches]
        if sizes != self._sizes:  # mostly as in the round before, and a tensor takes longer to make than to compare
            self._sizes, self._ends = sizes, self._tf.constant(np.cumsum(sizes, dtype=np.int64))
        return self._tf.constant(joined, self._tf.int64), self._ends, len(joined)


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
