# SPDX-License-Identifier: Apache-2.0
"""Source: the partitioned arrays of one `fit` or `evaluate`, checked against each other before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from fedray.data.ndarray import FedNdarray
from fedray.device import PYU, PYUObject
from fedray.errors import DataError, PlanError
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class Source:
    """Rows with their labels.

    Attributes:
        x: Rows.
        y: Labels.
        sample_weight: One weight per row, or None.
        sizes: Rows of every party, in the model's order of parties.
    """

    x: FedNdarray
    y: FedNdarray
    sample_weight: FedNdarray | None
    sizes: dict[PartyName, int]

    def parts(self, device: PYU) -> tuple[PYUObject, PYUObject, PYUObject | None]:
        """Returns one party's rows, labels and weights."""
        weight = None if self.sample_weight is None else self.sample_weight.partitions[device]
        return self.x.partitions[device], self.y.partitions[device], weight

    @property
    def label_words(self) -> int:
        """Numbers in the label of one row, what a per-element metric counts."""
        return prod(self.y.shape[1:])


def check_source(devices: Sequence[PYU], x: Any, y: Any, sample_weight: Any = None, *, prefix: str = "") -> Source:
    """Returns the arrays of a run.

    Args:
        devices: The model's parties; each must hold one part of every array.
        x: Rows, a FedNdarray.
        y: Labels, a FedNdarray with as many rows in every party.
        sample_weight: float FedNdarray of one dimension, or None.
        prefix: What stands before the arrays' names in errors, e.g. `"validation "`.

    Raises:
        PlanError: An argument is no FedNdarray, or its parties are not the model's.
        DataError: A party holds a different number of rows of two of them.
    """
    arrays = {"x": x, "y": y} | ({} if sample_weight is None else {"sample_weight": sample_weight})
    for name, array in arrays.items():
        _check_parties(devices, prefix + name, array)
        _check_rows(prefix + "x", x, prefix + name, array)
    if sample_weight is not None and len(sample_weight.shape) != 1:
        found = sample_weight.shape
        raise DataError(f"{prefix}sample_weight: expected one number per row, found shape {found}")
    rows = x.partition_shape()
    return Source(x, y, sample_weight, {device.name: rows[device][0] for device in devices})


def _check_parties(devices: Sequence[PYU], name: str, array: Any) -> None:
    if not isinstance(array, FedNdarray):
        raise PlanError(
            f"{name}: expected a FedNdarray, found {type(array).__name__}; "
            "make one with fedray.data.ndarray.load({alice: ..., bob: ...})"
        )
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
