# SPDX-License-Identifier: Apache-2.0
"""NumPy's warnings of an operation on rows that are spread over parties, told where the user can place them.

NumPy names the line that computes, which is one of fedray's. Here a warning names the party and the operation, or the
user's own line where the driver can tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_TOLD: Any = {}
"""What was told already, as Python keeps it for each module: by default it tells the same once."""


@contextmanager
def named(party: str, operation: str) -> Iterator[None]:
    """Tells of divisions by zero and the like by party and operation.

    Args:
        party: Where it is computed.
        operation: NumPy's name of what is computed.
    """

    def tell(error: str, _: int) -> None:
        text = f"np.{operation}: {error} encountered, so that inf or NaN is among the results"
        warnings.warn_explicit(text, RuntimeWarning, f"party {party!r}", 1, registry=_TOLD)

    with np.errstate(divide="call", over="call", invalid="call", call=tell):
        yield


def of_zeros(divisor: object) -> None:
    """Warns the user, in the line that divides, that one for all rows is zero: most often a column's deviation."""
    if isinstance(divisor, int | float | np.generic | np.ndarray) and not np.all(divisor):
        zeros = np.flatnonzero(np.asarray(divisor) == 0)
        where = f" in column {zeros[0]}" if np.ndim(divisor) == 1 else ""
        warnings.warn(
            f"division by zero{where}: inf or NaN will be among the results. Where a column is the same in every row, "
            "its deviation is zero: leave it out, or divide by np.where(deviation == 0, 1, deviation)",
            RuntimeWarning,
            stacklevel=3,
        )
