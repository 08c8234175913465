# SPDX-License-Identifier: Apache-2.0
"""Releases: tells parties, soon and in bulk, which of their objects nobody holds any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from fedray.errors import FedRayError
from fedray.types import Key, PartyName


class Releases:
    """What finalizers have dropped, and the thread that passes it on.

    Args:
        tell: (party, keys) -> lets the party forget these objects.
    """

    def __init__(self, tell: Callable[[PartyName, list[Key]], object]) -> None:
        self._tell = tell
        # Of all queues this one may be used in a finalizer, which can run inside any other call, even one of this
        # queue.
        self._dropped: SimpleQueue[tuple[PartyName, Key] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._pass_on, name="fedray-release", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def add(self, party: PartyName, key: Key) -> None:
        """Has an object released, soon. Never blocks and never raises."""
        self._dropped.put((party, key))

    def stop(self) -> None:
        """Lets the thread end. Harmless where it has not started."""
        self._dropped.put(None)

    def _pass_on(self) -> None:
        while (first := self._dropped.get()) is not None:
            # All that has gathered is released in one call per party: a loop that makes and drops a thousand handles
            # would otherwise make a thousand calls.
            dropped: dict[PartyName, list[Key]] = {first[0]: [first[1]]}
            while not self._dropped.empty():
                item = self._dropped.get()
                if item is None:
                    return
                dropped.setdefault(item[0], []).append(item[1])
            for party, keys in dropped.items():
                try:
                    self._tell(party, keys)
                except FedRayError:
                    continue  # the session ended meanwhile
