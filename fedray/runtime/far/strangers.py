# SPDX-License-Identifier: Apache-2.0
"""Who is at the door of a party's lines and has not proved yet to be anybody: a few at a time, each for a moment."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

MOST_STRANGERS = 64
"""Callers that have not proved who they are. Of more the one that came first is hung up on, so that whoever holds
connections open, and says nothing, keeps nobody else out for longer than it takes to prove oneself."""


class Strangers:
    """The connections of those at the door, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, socket.socket] = {}
        self._count = 0

    def enter(self, line: socket.socket) -> int:
        """Lets a connection wait at the door, and returns its place."""
        with self._lock:
            self._count = place = self._count + 1
            self._waiting[place] = line
            crowded = [self._waiting.pop(next(iter(self._waiting)))] if len(self._waiting) > MOST_STRANGERS else []
        for first in crowded:
            shut(first)
        return place

    def becomes(self, place: int, line: ssl.SSLSocket) -> None:
        """Says which socket a connection has from here on: TLS takes it over from the one before.

        Raises:
            OSError: It was hung up on meanwhile.
        """
        with self._lock:
            if place not in self._waiting:
                raise ConnectionAbortedError("others came after it")
            self._waiting[place] = line

    def leave(self, place: int) -> None:
        """Says that a connection waits at the door no longer."""
        with self._lock:
            self._waiting.pop(place, None)


def shut(line: socket.socket) -> None:
    """Ends a connection, from any thread; who reads or writes there finds out."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(line, socket.SHUT_RDWR)


def exactly(line: ssl.SSLSocket, size: int, deadline: float) -> bytes:
    """Returns so many bytes of a connection.

    Args:
        line: The connection.
        size: How many.
        deadline: When they have to be there, as `time.monotonic` counts: not for each of them anew.

    Raises:
        EOFError: The other end hung up.
        OSError: They did not come in time.
    """
    content = b""
    while len(content) < size:
        line.settimeout(max(deadline - time.monotonic(), 0.001))
        received = line.recv(size - len(content))
        if not received:
            raise EOFError
        content += received
    return content
