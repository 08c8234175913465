# SPDX-License-Identifier: Apache-2.0
"""Checks whether the parties' arrays fit together. All errors about that are worded here.

Sees shapes and dtypes only. Knows no device and no array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedray.errors import DataError
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class ArrayPart:
    """What the driver learns about one party's array.

    Attributes:
        shape: Its shape; the first axis is the party's rows.
        dtype: Name of its dtype, e.g. `"float32"`.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        # Not np.prod, which would be a NumPy number and can wrap round.
        return math.prod(self.shape)


def array_part(party: PartyName, shape: object, dtype: str) -> ArrayPart:
    """Returns what a party says of its object, if that is an array with rows.

    Args:
        party: The party's name.
        shape: Shape of an array; for any other value its length or None.
        dtype: Name of the dtype, or of the value's type.

    Raises:
        DataError: It is no array, or has no axis.
    """
    if not isinstance(shape, tuple):
        raise DataError(
            f"party {party!r}: expected an array, found {dtype}; convert it with {party}(np.asarray)(object)"
        )
    if not shape:
        raise DataError(f"party {party!r}: expected an array with at least one axis, the rows, found a single {dtype}")
    return ArrayPart(shape, dtype)


def joint_shape(parts: Mapping[PartyName, ArrayPart]) -> tuple[int, ...]:
    """Returns the shape of all parties' rows together.

    Raises:
        DataError: The rows of two parties differ in shape.
    """
    first, model = next(iter(parts.items()))
    for party, part in parts.items():
        # Without the first axis: how many rows a party has is its own affair.
        if part.shape[1:] != model.shape[1:]:
            raise DataError(
                f"party {party!r}: expected rows of shape {model.shape[1:]} as at {first!r}, found {part.shape[1:]} in "
                f"an array of shape {part.shape}; bring {party}'s rows to the same shape, e.g. with "
                f"{party}(np.reshape)(array, ...)"
            )
    return (sum(part.shape[0] for part in parts.values()), *model.shape[1:])


def joint_dtype(parts: Mapping[PartyName, ArrayPart]) -> np.dtype[np.generic]:
    """Returns the dtype that all parties share.

    Raises:
        DataError: Two parties differ.
    """
    first, model = next(iter(parts.items()))
    for party, part in parts.items():
        if part.dtype != model.dtype:
            # The type that holds both, and not the first party's, which may hold less than the other.
            common = np.result_type(*(other.dtype for other in parts.values())).name
            raise DataError(
                f"party {party!r}: expected dtype {model.dtype} as at {first!r}, found {part.dtype}; convert with "
                f"load(..., dtype={common!r}) or x.astype({common!r})"
            )
    return np.dtype(model.dtype)


def require_rows(parts: Mapping[PartyName, ArrayPart]) -> None:
    """Checks that every party has something to contribute.

    Raises:
        DataError: A party's array has no row.
    """
    for party, part in parts.items():
        if part.shape[0] == 0:
            raise DataError(
                f"party {party!r}: expected at least one row, found an array of shape {part.shape}; leave {party} out "
                "or give it data"
            )


def require_columns(parts: Mapping[PartyName, ArrayPart], names: Sequence[str] | None) -> None:
    """Checks that every party has as many columns as there are names, where they have names.

    Raises:
        DataError: A party has others.
    """
    for party, part in parts.items():
        if names is not None and part.shape[1:] != (len(names),):
            raise DataError(
                f"party {party!r}: expected {len(names)} columns, as there are names, found an array of {part.shape}"
            )


def require_same_rows(name: str, parts: Mapping[PartyName, ArrayPart], model: Mapping[PartyName, ArrayPart]) -> None:
    """Checks that an array has as many rows at every party as the first one.

    Args:
        name: What to call the array, e.g. `"array 2"`.
        parts: The array's parts.
        model: The first array's parts.

    Raises:
        DataError: Other parties, another order of parties, or another number of rows at one of them.
    """
    # Order matters, since rows are numbered by it.
    if list(parts) != list(model):
        raise DataError(f"{name}: expected the parties {list(model)} in this order, found {list(parts)}")
    for party, part in parts.items():
        if part.shape[0] != model[party].shape[0]:
            raise DataError(
                f"party {party!r}: {name} has {part.shape[0]} rows, expected {model[party].shape[0]} as in the first; "
                "rows that belong together must be held by the same party in the same order"
            )
