# SPDX-License-Identifier: Apache-2.0
"""Python's garbage collector while a framework is imported, and after. Knows no framework."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(name: str) -> Iterator[None]:
    """Lets the collector rest while a framework is imported, and then leave alone for good what is there.

    An import makes some 400,000 objects that stay. The collector would walk over all of them once more in the first
    epochs, which takes every party 0.2 to 0.35 s of a core. Where the framework was there before, there is more in the
    process by now than imports, and nothing is changed.

    Args:
        name: Of the framework's module.
    """
    running, new = gc.isenabled(), name not in sys.modules
    gc.disable()
    try:
        yield
        if running and new:
            gc.freeze()
    finally:
        if running:
            gc.enable()
