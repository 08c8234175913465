# SPDX-License-Identifier: Apache-2.0
"""Memory of long vectors, used again from round to round. Knows nothing of what is in it.

The system hands out long memory page by page, which for a vector of 800 MB takes longer than to fill it.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

LEAST_BYTES = 1 << 26
"""Shorter memory is not kept: the allocator has it at hand."""


class BufferPool:
    """Memory that is handed out again only when nobody refers to it any more, nor to any view of a part of it."""

    def __init__(self) -> None:
        self._kept: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._unused = sys.getrefcount(self._kept)

    def take(self, count: int) -> NDArray[np.uint8]:
        """Returns uint8[count] of any content."""
        if count < LEAST_BYTES:
            return np.empty(count, np.uint8)
        # One reference more than its own means that a message or a view of it is still in somebody's hands.
        if len(self._kept) != count or sys.getrefcount(self._kept) != self._unused:
            self._kept = np.empty(count, np.uint8)
        return self._kept.view()
