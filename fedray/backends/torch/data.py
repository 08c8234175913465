# SPDX-License-Identifier: Apache-2.0
"""TorchData: a party's arrays as tensors. Works on the modules it is handed; imports no framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedray.backends.backend import Batch, Data
from fedray.errors import DataError
from fedray.tree import Tree


@dataclass(frozen=True, slots=True)
class TorchData:
    """A party's arrays as tensors, rows on their first axes.

    Attributes:
        x: Inputs, nested as the user's.
        y: Labels, nested as the outputs, or None.
        weight: One per row, nested as the labels, or None.
        rows: Number of rows.
        nothing: What the model gives for no rows of this form.
    """

    x: Any
    y: Any
    weight: Any
    rows: int
    nothing: Tree


def to_tensors(torch: Any, tree: Tree, device: Any, like: Any = None) -> Any:
    """Returns a tree of arrays as a nest of tensors that share nothing with them.

    Args:
        torch: The torch module.
        tree: Arrays of numbers.
        device: Where they go.
        like: The type of the model's own numbers, for leaves of floating-point numbers; None leaves them.

    Raises:
        DataError: A leaf is text.
    """

    def made(name: str, array: Any) -> Any:
        if array.dtype.kind not in "biuf":
            raise DataError(f"{name}: expected numbers, found {array.dtype}; PyTorch has no tensors of text")
        tensor = torch.from_numpy(np.array(array))
        floating = like is not None and tensor.is_floating_point()
        return tensor.to(device=device, dtype=like if floating else tensor.dtype)

    return tree.rebuild([made(name, array) for name, array in tree.named()]).nest


def picked(nest: Any, rows: Any) -> Any:
    """Returns some rows of every tensor.

    Args:
        nest: Tensors, nested or alone; None for none.
        rows: Row numbers, int64[m].
    """
    if nest is None or hasattr(nest, "index_select"):  # one tensor, as of most models
        return None if nest is None else nest.index_select(0, rows)
    return Tree(nest).map(lambda tensor: tensor.index_select(0, rows)).nest


def row_numbers(torch: Any, batches: Sequence[Batch], device: Any) -> list[Any]:
    """Returns the row numbers of each batch that has some, copied to the device once for all.

    Args:
        torch: The torch module.
        batches: The batches.
        device: Where the rows are.
    """
    order = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *(batch.rows for batch in batches)])).to(device)
    return [rows for rows in order.split([len(batch.rows) for batch in batches]) if len(rows)]


def bound_data(data: Data) -> TorchData:
    """Returns what `bind` returned as what it is.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(data, TorchData):
        raise DataError(f"data: expected what bind returned, found {type(data).__name__}")
    return data


def to_arrays(torch: Any, nest: Any, name: str) -> Tree:
    """Returns a model's outputs as NumPy arrays; those of a type that NumPy lacks, in float32.

    Args:
        torch: The torch module.
        nest: Tensors, nested or alone.
        name: What the whole is called.
    """

    def array(tensor: Any) -> Any:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    return Tree(nest, name).map(array)


def two_rows(tree: Tree) -> Tree:
    """Returns two rows of zeros of the same form: what fails with them can tell nothing of a party's own."""
    return tree.map(lambda array: np.zeros((2, *array.shape[1:]), array.dtype))
