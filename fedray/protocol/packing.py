# SPDX-License-Identifier: Apache-2.0
"""The words of a sum in as few bytes as they need, for the way from the server to every party.

A block of words is written in as many bytes a word as its largest one takes, 1 to 8, one word after the other. In front
stand the widths of the blocks, a byte each, and zeros up to a multiple of 8: so there are 8 bytes in front of the end
of any word, and it is read by one load and one shift. Knows no meaning of a word: any words come back as they were.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError
from fedray.protocol.messages import as_bytes
from fedray.types import Message

BLOCK = 1 << 15
"""Words that are written alike: enough to make the work of a block small beside that of its words, few enough that
the wide words of totals at the end do not widen all the others."""


def pack(words: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns signed words as bytes, uint8[n]: the width of each block, and the blocks.

    Args:
        words: uint32[L] or uint64[L], little-endian, read as signed.
    """
    wide, widths, sizes = _layout(words)
    at = _front(len(widths))
    packed = np.empty(at + sum(sizes) + 7, np.uint8)
    packed[:at] = 0
    packed[: len(widths)] = widths
    for k, width in enumerate(widths):
        block = wide[k * BLOCK : (k + 1) * BLOCK]
        # Each word as a whole, its eight bytes: the next one is written over those of them that are too many. So words
        # go in order, as a loop over them has it; were it otherwise, no party would find the sum's check right.
        places: NDArray[np.int64] = np.ndarray((len(block),), "<i8", packed.data, at, (width,))
        np.copyto(places, block)
        at += sizes[k]
    return packed[:at]


def packed_size(words: NDArray[Any]) -> int:
    """Returns how many bytes `pack` makes of words, in a tenth of the time."""
    _, widths, sizes = _layout(words)
    return _front(len(widths)) + sum(sizes)


def unpack(message: Message, size: int, bits: int) -> NDArray[Any]:
    """Returns the words that `pack` made bytes of, uint32[L] or uint64[L]; accepts those bytes and no others.

    Every word is there with a byte at least, so this takes at most 12 times the memory of the message.

    Args:
        message: The bytes.
        size: Words L.
        bits: Bits of a word, 32 or 64.

    Raises:
        EncodingError: They are not the bytes of so many words.
    """
    data, blocks = as_bytes(message), -(-size // BLOCK)
    at = _front(blocks)
    # First, before any time or memory is taken: a size that nobody compared with the bytes would be a stranger's to
    # choose. So there is no width of 0 either: one byte would stand for a whole block of zeros.
    right = bits in (32, 64) and 0 <= size <= len(data)
    widths = data[:blocks].tolist() if right else []
    expected = at + sum(width * min(BLOCK, size - k * BLOCK) for k, width in enumerate(widths))
    fits = right and len(data) == expected and all(1 <= width <= bits // 8 for width in widths)
    if not fits or data[blocks:at].any():
        raise EncodingError(f"packed words: {size} words of {bits} bits do not match {len(data)} bytes")
    wide = np.empty(size, "<i8")
    for k, width in enumerate(widths):
        block = wide[k * BLOCK : (k + 1) * BLOCK]
        # A word is the highest bytes of the eight that end with it; shifted down, it brings its sign.
        ends: NDArray[np.int64] = np.ndarray((len(block),), "<i8", data.data, at + width - 8, (width,))
        np.right_shift(ends, 64 - 8 * width, out=block)
        at += width * len(block)
        if _width(block) != width:
            raise EncodingError("packed words: a block is written wider than its words need")
    return wide.astype(f"<i{bits // 8}", copy=False).view(f"<u{bits // 8}")


def _layout(words: NDArray[Any]) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """Returns the words as signed ones of 64 bits, and of each block the bytes of a word and of all its words."""
    wide = words.view(f"<i{words.itemsize}").astype("<i8", copy=False)
    widths = [_width(wide[start : start + BLOCK]) for start in range(0, len(wide), BLOCK)]
    return wide, widths, [width * min(BLOCK, len(wide) - k * BLOCK) for k, width in enumerate(widths)]


def _width(block: NDArray[np.int64]) -> int:
    """Returns how many bytes the largest word of a block needs with its sign."""
    low, high = int(np.minimum.reduce(block)), int(np.maximum.reduce(block))
    bits = max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0)
    return bits // 8 + 1


def _front(blocks: int) -> int:
    """Returns how many bytes there are in front of the blocks."""
    return -(-blocks // 8) * 8
