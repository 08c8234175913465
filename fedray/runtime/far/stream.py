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

import mmap
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


class _Space:
    """The memory of one part of a stream that comes in: as much as has come, and at most as much again.

    What another party claims to send takes none: only beyond the first megabyte, what it has sent.

    Args:
        size: Bytes of the part.
    """

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0
        self._held = size if size <= PIECE else 0
        # Not a bytearray, which would be filled with zeros first.
        self._memory: memoryview | mmap.mmap = np.empty(self._held, np.uint8).data

    def window(self) -> memoryview:
        """Returns where its next bytes go.

        Raises:
            EncodingError: There is no more memory.
        """
        if self.taken == self._held:
            self._grow(min(max(2 * self._held, PIECE), self.size))
        return memoryview(self._memory)[self.taken : self._held]

    def content(self) -> memoryview:
        """Returns the part, when it has come whole."""
        return memoryview(self._memory)[: self.size]

    def _grow(self, size: int) -> None:
        former = self._memory
        try:
            if isinstance(former, mmap.mmap):
                try:
                    former.resize(size)  # moved by the system, without a copy
                    self._held = size
                    return
                except BufferError:  # somebody still looks at where bytes went before
                    pass
            grown = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            grown[: self.taken] = memoryview(former)[: self.taken]
        except OSError:
            raise EncodingError(f"a message of {self.size} bytes is longer than there is memory") from None
        self._memory, self._held = grown, size


class StreamIn:
    """A stream that comes in.

    Attributes:
        taken: How many bytes of it have come.
        parts: The parts that have come.
        whole: Whether all has come.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.parts: list[memoryview] = []
        self.whole = False
        self._sizes: list[int] | None = None
        self._space = _Space(_COUNT.size)

    def space(self) -> memoryview:
        """Returns where its next bytes go.

        Raises:
            EncodingError: There is no more memory for them.
        """
        return self._space.window()

    def filled(self, count: int) -> None:
        """Learns that so many bytes have come.

        Raises:
            EncodingError: It claims to have more parts or bytes than any message has.
        """
        self.taken += count
        self._space.taken += count
        if self._space.taken == self._space.size:
            self._turn()

    def _turn(self) -> None:
        content = self._space.content()
        if self._sizes is not None:
            self.parts.append(content)
        elif self.taken == _COUNT.size:
            (count,) = _COUNT.unpack(content)
            if not 1 <= count <= MOST_PARTS:
                raise EncodingError(f"a message between parties has 1 to {MOST_PARTS} parts, found {count}")
            self._space = _Space(count * _SIZE.size)
            return
        else:
            self._sizes = [size for (size,) in _SIZE.iter_unpack(content)]
            if sum(self._sizes) > MOST_STREAM:
                raise EncodingError(f"a message on a line has at most {MOST_STREAM} bytes, found {sum(self._sizes)}")
        while len(self.parts) < len(self._sizes):
            self._space = _Space(self._sizes[len(self.parts)])
            if self._space.size:
                return
            self.parts.append(self._space.content())
        self.whole = True
