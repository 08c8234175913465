# SPDX-License-Identifier: Apache-2.0
"""What travels on a line between nodes: streams, and the frames around them. Pure.

A message, and an answer, is a stream: the number of its parts (4 bytes), the size of each (8), the parts. Around them
the caller sends frames of 25 bytes, and is sent frames of 9:

* CALL number floor 0, then the stream of the message.
* AGAIN number floor taken, after a cut: `taken` bytes of the answer's stream are there. HAVE is the answer to it, with
  how much of the message's stream has come; the rest follows.
* DONE number floor 0: the answer is there, and may be forgotten.
* GOT length: a long message has come whole, and its sender need keep it no longer.
* ANSWER length, then the stream of the answer from byte `taken` on.

The number names an exchange among those of one caller with one other end; `floor` is the lowest that is still under way
there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from fedray.errors import EncodingError
from fedray.runtime.wire import MOST_PARTS, WirePart

MOST_STREAM = 1 << 33
"""Longest message or answer in bytes: a model of a thousand million numbers."""

LONG = 1 << 20
"""A message of so many bytes is receipted before it is answered, so that its sender can let go of it."""

PIECE = 1 << 20
"""Most bytes that are sent at a time."""

ORDER = struct.Struct(">cQQQ")
"""A frame of the caller: what, number, floor, taken."""

WORD = struct.Struct(">cQ")
"""A frame to the caller: what, length."""

CALL, AGAIN, DONE = b"C", b"R", b"D"
HAVE, GOT, ANSWER = b"H", b"G", b"A"

_FIRST = (1 << 14) - 64  # with the frame before it, a record of TLS
_COUNT, _SIZE = struct.Struct(">I"), struct.Struct(">Q")


class StreamOut:
    """A stream to be sent, from any of its bytes on.

    Args:
        parts: What it consists of; large ones are not copied.
    """

    def __init__(self, parts: Sequence[WirePart]) -> None:
        head = _COUNT.pack(len(parts)) + b"".join(_SIZE.pack(len(part)) for part in parts)
        # What is short goes in one piece with the begin of what is long: each piece costs a call and wakes somebody.
        first, rest = bytearray(head), list[memoryview]()
        for part in parts:
            begin = memoryview(part)[: max(0, _FIRST - len(first))]
            first += begin
            rest.append(memoryview(part)[len(begin) :])
        pieces = [memoryview(first), *rest]
        self._pieces = [piece for piece in pieces if len(piece)]
        self.length = sum(map(len, self._pieces))

    def at(self, start: int) -> memoryview:
        """Returns some of its bytes, from `start` on; nothing at its end."""
        for piece in self._pieces:
            if start < len(piece):
                return piece[start : start + PIECE]
            start -= len(piece)
        return memoryview(b"")

    @property
    def kept(self) -> bool:
        """Whether its bytes are still here."""
        return bool(self._pieces)

    def let_go(self) -> None:
        """Forgets the bytes, and not how many there were."""
        self._pieces = []


class StreamIn:
    """A stream that comes in.

    Attributes:
        taken: How many bytes of it have come.
        parts: The parts, as far as they have come; they are whole when it is.
        whole: Whether all has come.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.parts: list[memoryview] = []
        self.whole = False
        self._sized = False
        self._waiting = [memoryview(bytearray(_COUNT.size))]
        self._head = self._waiting[0]

    def space(self) -> memoryview:
        """Returns where its next bytes go."""
        return self._waiting[0]

    def filled(self, count: int) -> None:
        """Learns that so many bytes have come.

        Raises:
            EncodingError: It claims to have more parts or bytes than any message has.
        """
        self.taken += count
        self._waiting[0] = self._waiting[0][count:]
        while self._waiting and not self._waiting[0]:
            self._waiting.pop(0)
        if not self._waiting:
            self._turn()

    def _turn(self) -> None:
        if self._sized:
            self.whole = True
        elif self.taken == _COUNT.size:
            (count,) = _COUNT.unpack(self._head)
            # Both limits are checked before memory is taken: four bytes must not be able to ask for gigabytes.
            if not 1 <= count <= MOST_PARTS:
                raise EncodingError(f"a message between parties has 1 to {MOST_PARTS} parts, found {count}")
            self._head = memoryview(bytearray(count * _SIZE.size))
            self._waiting = [self._head]
        else:
            sizes = [size for (size,) in _SIZE.iter_unpack(self._head)]
            if sum(sizes) > MOST_STREAM:
                raise EncodingError(f"a message on a line has at most {MOST_STREAM} bytes, found {sum(sizes)}")
            # Of NumPy, which fills nothing: the system gives the memory as bytes come, not as they are claimed.
            try:
                self.parts = [np.empty(size, np.uint8).data for size in sizes]
            except MemoryError:
                raise EncodingError(f"a message of {sum(sizes)} bytes is longer than there is memory") from None
            self._waiting = [part for part in self.parts if part]
            self._sized = True
            self.whole = not self._waiting
