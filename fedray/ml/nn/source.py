# SPDX-License-Identifier: Apache-2.0
"""Source: the partitioned arrays of one `fit` or `evaluate`, checked against each other before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.data.columns import Names, listed
from fedray.data.ndarray import FedNdarray
from fedray.data.split import train_test_split
from fedray.device import PYU
from fedray.errors import DataError, PlanError
from fedray.ml.nn.foreign import remedy
from fedray.ml.nn.plan import whole
from fedray.tree import Tree
from fedray.types import PartyName

Arrays: TypeAlias = FedNdarray | Sequence["Arrays | None"] | Mapping[str, "Arrays | None"]
"""One partitioned array, or lists, tuples and dicts of such, as a model with several inputs or outputs takes them."""

VALIDATION = "validation "
"""What stands before the names of arrays of `validation_data`."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows with their labels; every leaf of the trees is a FedNdarray.

    Attributes:
        x: Rows.
        y: Labels.
        sample_weight: One weight per row, for all outputs or (with None where there are none) for each; or None.
        sizes: Rows of every party, in the model's order of parties.
    """

    x: Tree
    y: Tree
    sample_weight: Tree | None
    sizes: dict[PartyName, int]

    def parts(self, device: PYU) -> tuple[Any, Any, Any]:
        """Returns what stands for one party's rows, labels and weights in a call to it, each as nested as the whole."""
        x, y = (tree.map(lambda array: array.partitions[device].slot()).nest for tree in (self.x, self.y))
        weight = self.sample_weight
        if weight is None:
            return x, y, None
        return x, y, weight.map(lambda array: None if array is None else array.partitions[device].slot()).nest

    def head(self, first: int) -> Source:
        """Returns the first rows of each party, all of a party that has fewer."""
        return self._changed([array.head(first) for array in self._arrays()])

    def held_out(self, share: float) -> tuple[Source, Source]:
        """Returns (all other rows, the last rows of each party), which are `share` of all.

        Raises:
            PlanError: `share` is not between 0 and 1, or leaves no row on one side.
        """
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise PlanError(f"validation_split: expected a number between 0 and 1, found {share!r}")
        halves = train_test_split(*self._arrays(), test_size=float(share), shuffle=False)
        return self._changed(halves[::2]), self._changed(halves[1::2])

    def _arrays(self) -> list[FedNdarray]:
        trees = [self.x, self.y] + ([] if self.sample_weight is None else [self.sample_weight])
        return [array for tree in trees for array in tree.leaves() if array is not None]

    def _changed(self, arrays: Sequence[FedNdarray]) -> Source:
        """Returns the same with other arrays in the places of its own, in their order."""
        turn = iter(arrays)
        x, y = (tree.map(lambda _: next(turn)) for tree in (self.x, self.y))
        weight = self.sample_weight
        if weight is not None:
            weight = weight.map(lambda array: None if array is None else next(turn))
        shapes = arrays[0].partition_shape()
        return Source(x, y, weight, {party.name: shape[0] for party, shape in shapes.items()})

    def row(self) -> Tree:
        """Returns one row of nothing like those of x: zeros, or empty text."""
        return self.x.map(_row)


def check_source(devices: Sequence[PYU], x: Any, y: Any, sample_weight: Any = None, *, prefix: str = "") -> Source:
    """Returns the arrays of a run.

    Args:
        devices: The model's parties; each must hold one part of every array.
        x: Rows, a FedNdarray or lists, tuples and dicts of such.
        y: Labels, the same, with as many rows in every party.
        sample_weight: float FedNdarray of one dimension, or one (or None) for every output, nested as `y`; or None.
        prefix: What stands before the arrays' names in errors, e.g. `"validation "`.

    Raises:
        PlanError: An argument is no FedNdarray, or its parties are not the model's.
        DataError: A party holds a different number of rows of two of them.
    """
    given = {"x": x, "y": y} | ({} if sample_weight is None else {"sample_weight": sample_weight})
    trees = {name: _arrays(nest, prefix + name, optional=name == "sample_weight") for name, nest in given.items()}
    named = [(name, array) for tree in trees.values() for name, array in tree.named() if array is not None]
    first, rows = named[0]
    for name, array in named:
        _check_parties(devices, name, array)
        _check_rows(first, rows, name, array)
    weight = trees.get("sample_weight")
    for name, array in () if weight is None else weight.named():
        if array is not None and len(array.shape) != 1:
            raise DataError(f"{name}: expected one number per row, found shape {array.shape}")
    shapes = rows.partition_shape()
    return Source(trees["x"], trees["y"], weight, {device.name: shapes[device][0] for device in devices})


def fit_sources(
    devices: Sequence[PYU], given: tuple[Any, Any, Any], validation: Any, split: float, first: int | None
) -> tuple[Source, Source | None]:
    """Returns what is trained on and what is validated on, if anything.

    Args:
        devices: The model's parties.
        given: x, y and sample_weight, as in `check_source`.
        validation: `(x, y)` or `(x, y, sample_weight)`, or None.
        split: Share of the rows that are to be validated on in place of training; 0 for none.
        first: So many rows of each party are to be taken; None for all.

    Raises:
        PlanError: An argument cannot work.
        DataError: As `check_source`.
    """
    train, held = check_source(devices, *given), None
    if validation is not None:
        if split:
            raise PlanError("validation_split: validation_data is given as well; say one of the two")
        if not isinstance(validation, tuple | list) or len(validation) not in (2, 3):
            raise PlanError("validation_data: expected (x, y) or (x, y, sample_weight)")
        held = check_source(devices, *validation, prefix=VALIDATION)
    elif split:
        train, held = train.held_out(split)
    if first is None:
        return train, held
    first = whole("first", first, least=1)
    return train.head(first), None if held is None else held.head(first)


def check_inputs(devices: Sequence[PYU], x: Any) -> tuple[Tree, list[PYU]]:
    """Returns the rows that are to be predicted, and who holds them.

    Args:
        devices: The model's parties.
        x: A FedNdarray at any of them, or lists, tuples and dicts of such at the same ones.

    Raises:
        PlanError: It is something else, or a party is not the model's, or lacks one of the inputs.
    """
    inputs = _arrays(x, "x")
    places = list(inputs.leaves()[0].partitions)
    for name, array in inputs.named():
        strangers = [device.name for device in array.partitions if device not in devices]
        if strangers:
            raise PlanError(f"{name}: expected parts at the model's parties only, found parts at {strangers}")
        if set(array.partitions) != set(places):
            expected, found = (sorted(device.name for device in held) for held in (places, array.partitions))
            raise PlanError(f"{name}: expected parts at {expected}, as the other inputs, found parts at {found}")
    return inputs, places


def check_columns(x: Tree, trained: Mapping[str, Names]) -> dict[str, Names]:
    """Returns the names of the columns of each input, as they were or, where there were none, as they are now.

    Args:
        x: Rows, a FedNdarray at each leaf.
        trained: Input -> names of the columns that the model was trained on.

    Raises:
        DataError: Named columns are others, or in another order.
    """
    known = dict(trained)
    for path, array in x.named():
        if array.columns is None:
            continue
        expected = known.setdefault(path.removeprefix(VALIDATION), array.columns)
        if array.columns != expected:
            raise DataError(
                f"{path}: expected the columns that the model is trained on, {listed(expected)}, in this order, found "
                f"{listed(array.columns)}; load them with columns=[...]"
            )
    return known


def _row(array: FedNdarray) -> NDArray[Any]:
    dtype = next(np.dtype(part.dtype) for part in array.parts().values())
    # Floats become the model's own when it is fed; text of any length is text.
    return np.zeros([1, *array.shape[1:]], {"f": "float32", "U": "U1", "S": "U1"}.get(dtype.kind, dtype))


def _arrays(nest: Any, name: str, *, optional: bool = False) -> Tree:
    """Returns an argument of the user's as a tree of FedNdarrays.

    Args:
        nest: What was passed.
        name: What it is called in errors.
        optional: Whether an array within lists, tuples and dicts may be None.

    Raises:
        PlanError: It is something else, or holds no array.
    """
    if nest is None and not optional:
        if name.endswith("y"):
            raise PlanError(
                f"{name}: expected labels, a FedNdarray, found None; a model that returns its input takes x"
            )
        raise PlanError(f"{name}: expected a FedNdarray, found None; {remedy(None)}")
    try:
        tree = Tree(nest, name)
    except DataError as error:
        raise PlanError(f"{error} of FedNdarrays, or one FedNdarray; {remedy(nest)}") from None
    for path, array in tree.named():
        if not isinstance(array, FedNdarray) and not (array is None and optional and tree.nested):
            raise PlanError(f"{path}: expected a FedNdarray, found {type(array).__name__}; {remedy(array)}")
    if not tree.leaves():
        raise PlanError(f"{name}: expected at least one FedNdarray, found none; {remedy(None)}")
    return tree


def _check_parties(devices: Sequence[PYU], name: str, array: FedNdarray) -> None:
    expected, found = {device.name for device in devices}, {device.name for device in array.partitions}
    if expected != found:
        raise PlanError(
            f"{name}: expected one part at each of {sorted(expected)} (the model's device_list), found parts at "
            f"{sorted(found)}"
        )


def _check_rows(first: str, a: FedNdarray, second: str, b: FedNdarray) -> None:
    shapes = b.partition_shape()
    for device, shape in a.partition_shape().items():
        if shape[0] != shapes[device][0]:
            raise DataError(
                f"party {device.name!r}: {first} has {shape[0]} rows but {second} has {shapes[device][0]}; "
                "both must speak of the same rows, in the same order"
            )
