# SPDX-License-Identifier: Apache-2.0
"""A word while something takes long: what it waits for, so that nobody takes it for dead. Knows no party.

Said by the `fedray` logger, as a warning: nobody else would see it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger("fedray")

AGAIN = 60.0
"""Seconds until it is said again."""


@contextmanager
def said(what: str, after: float) -> Iterator[None]:
    """Says what the block waits for, where it has not ended by then.

    Args:
        what: E.g. `"FLModel: waiting for alice, bob to build the model"`.
        after: Seconds until it is said first; more than it takes on a busy machine.
    """
    over, began = threading.Event(), time.monotonic()

    def say() -> None:
        seconds = after
        while not over.wait(seconds):
            _log.warning("%s, for %.0f s so far", what, time.monotonic() - began)
            seconds = AGAIN

    # A daemon: it must not keep a program alive that ends by an exception in the block.
    thread = threading.Thread(target=say, name="fedray-patience", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()  # what it may be saying comes before whatever comes next
