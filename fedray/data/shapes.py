# SPDX-License-Identifier: Apache-2.0
"""Shapes and orders of axes that leave the rows where they are. Pure arithmetic; knows no array and no party."""

from __future__ import annotations

import math
from typing import Any

from fedray.data.rows import is_integer
from fedray.errors import PlanError

Shape = tuple[int, ...]


def row_shape(old: Shape, wanted: tuple[Any, ...]) -> Shape:
    """Returns the shape of a row after `reshape(*wanted)`.

    Args:
        old: Shape of all rows together.
        wanted: The new one; its first number is -1 or the number of rows, and one of the others may be -1.

    Raises:
        PlanError: Rows would be cut or joined, or the numbers do not multiply to a row.
    """
    given = tuple(wanted[0]) if len(wanted) == 1 and isinstance(wanted[0], tuple | list) else wanted
    if not given or not all(is_integer(size) and size >= -1 for size in given):
        raise PlanError(f"reshape: expected integers of at least -1, e.g. x.reshape(-1, 28, 28, 1), found {given!r}")
    first, rest, size = given[0], [int(one) for one in given[1:]], math.prod(old[1:])
    if first not in (-1, old[0]):
        raise PlanError(
            f"reshape: expected -1 or {old[0]}, the number of rows, in front, found {first}: rows stay with their "
            "party, and only what is within a row can take another shape"
        )
    if rest.count(-1) == 1:
        known = -math.prod(rest)
        rest[rest.index(-1)] = size // known if known else 0
    if math.prod(rest) != size or min(rest, default=0) < 0:
        raise PlanError(f"reshape: a row of shape {old[1:]} has {size} numbers, which do not fill {given[1:]}")
    return tuple(rest)


def order_of_axes(ndim: int, axes: tuple[Any, ...]) -> Shape:
    """Returns the order of axes of `transpose(*axes)`, counted from 0.

    Args:
        ndim: Number of axes.
        axes: The new order; the rows, axis 0, have to stay in front.

    Raises:
        PlanError: They do not, or it is no order of all axes.
    """
    given = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
    if not all(is_integer(axis) and -ndim <= axis < ndim for axis in given):
        raise PlanError(f"transpose: expected the {ndim} axes in their new order, found {given!r}")
    order = tuple(int(axis) % ndim for axis in given)
    if sorted(order) != list(range(ndim)):
        raise PlanError(f"transpose: expected the {ndim} axes in their new order, each once, found {given!r}")
    if order[0] != 0:
        raise PlanError(
            f"transpose: expected the rows, axis 0, to stay in front, found {given!r}: they are spread over parties. "
            "Others can change places, e.g. x.transpose(0, 2, 1)"
        )
    return order
