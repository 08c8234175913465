# SPDX-License-Identifier: Apache-2.0
"""A party's own smallest or largest values, which leave it as kind `raw`: they are values of its rows.

Runs inside the party. Knows no other party.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedray.data.rows import row_axes
from fedray.errors import DataError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind

MINIMUM_ROWS = 2
"""Fewest rows of an extreme. Over a single row it would be that row."""


class Extremes:
    """A service that answers with the extremes of one of its party's arrays.

    Args:
        context: The party it runs in.
    """

    def __init__(self, context: PartyContext) -> None:
        self._party = context.name

    def find(self, array: NDArray[Any], name: Literal["min", "max"], axes: tuple[int, ...] | None) -> Reply:
        """Returns the smallest or largest values over `axes`, the rows among them.

        Args:
            array: The party's array.
            name: `"min"` or `"max"`.
            axes: The axes to reduce; `None` for all.

        Raises:
            DataError: There are too few rows to hide one.
            PlanError: The rows are not among the axes, so rows themselves would be the answer.
        """
        # Checked again inside the party, whatever the driver has checked: without the rows among the axes, rows would
        # leave.
        checked = row_axes(axes, array.ndim)
        if len(array) < MINIMUM_ROWS:
            raise DataError(
                f"party {self._party!r}: {name} over {len(array)} row: expected at least {MINIMUM_ROWS}, as the "
                "extreme of one row is that row"
            )
        reduce = np.min if name == "min" else np.max
        return Reply(Kind.RAW, np.asarray(reduce(array, axis=checked)))
