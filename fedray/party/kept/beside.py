# SPDX-License-Identifier: Apache-2.0
"""Beside: one piece of work in a thread of its own, for which its owner waits when it wants to have it done.

What fails there is raised where it is waited for: nothing is lost in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Beside:
    """One piece of work at a time, beside what its owner does.

    Args:
        name: Of its threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begins a piece of work, once the one before is over.

        Args:
            work: What is to be done.

        Raises:
            BaseException: What the one before failed with, if nobody has waited for it; this one is not begun then.
        """
        self.rest()
        # No daemon: a process that ends, and is not killed, ends once what it keeps is on the disk.
        self._thread = threading.Thread(target=self._do, args=(work,), name=self._name)
        self._thread.start()

    def rest(self) -> None:
        """Waits until the work is over, if there is any; from several threads as well.

        Raises:
            BaseException: What it failed with, to one of those who wait.
        """
        thread = self._thread
        if thread is None:
            return
        thread.join()
        error, self._error = self._error, None
        if self._thread is thread:  # another one may have begun the next piece meanwhile
            self._thread = None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
