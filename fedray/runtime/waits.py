# SPDX-License-Identifier: Apache-2.0
"""Which threads wait for answers at this moment. Knows no Ray.

Ray that ends under a thread which waits for an answer ends the whole program, without a word and with exit code 0.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Waits:
    """Counts those who wait, by thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[int, int] = {}

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Counts the caller as one who waits, for as long as the block takes."""
        me = threading.get_ident()
        with self._changed:
            self._waiting[me] = self._waiting.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting[me] -= 1
                if not self._waiting[me]:
                    del self._waiting[me]
                self._changed.notify_all()

    def others(self) -> bool:
        """Returns whether a thread waits that is not the caller's own."""
        with self._changed:
            return any(thread != threading.get_ident() for thread in self._waiting)

    def drain(self, seconds: float) -> None:
        """Returns when none of the others waits any more, or the seconds are over."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while any(thread != threading.get_ident() for thread in self._waiting):
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)
