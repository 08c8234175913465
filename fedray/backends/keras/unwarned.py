# SPDX-License-Identifier: Apache-2.0
"""Unwarned: keeps one kind of warning from users who could do nothing about it. Knows no framework."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_filtering = threading.Lock()


@contextmanager
def unwarned(pattern: re.Pattern[str]) -> Iterator[None]:
    """Lets no `UserWarning` through whose text begins like this, in the block.

    The filters belong to the whole process. Only this block's own one comes and goes, by a new list each time: with
    `catch_warnings`, a thread that has other filters meanwhile could find its own gone, or keep them for good. Python
    notes for no code what an "ignore" let pass, so what it notes of other warnings needs no reset.

    Args:
        pattern: How the text begins.
    """
    ours = ("ignore", pattern, UserWarning, None, 0)
    with _filtering:
        warnings.filters = [ours, *warnings.filters]
    try:
        yield
    finally:
        with _filtering:
            warnings.filters = [known for known in warnings.filters if known is not ours]
