# SPDX-License-Identifier: Apache-2.0
"""Keeper: does something in a thread that lives on. Knows no Ray.

On Linux a process can ask to be killed when its parent ends, and Ray's do, so that a killed program leaves no cluster.
What counts as the parent's end is the end of the *thread* that started it: a cluster begun by a thread of the user's
would be gone, without a word, as soon as that thread is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Keeper:
    """Holds the thread that has started something, as long as that is needed."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def run(self, work: Callable[[], None]) -> None:
        """Does work and returns when it is done; in the main thread itself, which lives as long as the process.

        Elsewhere a thread of the keeper's does it and stays until `release`. Whatever the work raises is raised here.

        Args:
            work: What is to be done.
        """
        if threading.current_thread() is threading.main_thread():
            work()
            return
        raised: list[BaseException] = []
        done = threading.Event()

        def do_and_stay() -> None:
            try:
                work()
            except BaseException as error:
                raised.append(error)
            finally:
                done.set()
            if not raised:
                self._released.wait()

        threading.Thread(target=do_and_stay, name="fedray-keeper", daemon=True).start()
        done.wait()
        if raised:
            raise raised[0]

    def release(self) -> None:
        """Lets the thread end."""
        self._released.set()
        self._released = threading.Event()
