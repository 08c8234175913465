# SPDX-License-Identifier: Apache-2.0
"""The words of a sum in as few bytes as they need, for the way from the server to every party.

A block of words is written in as many bytes a word as its largest one takes, 1 to 8; in planes, all first bytes of a
block together, so that whole planes are copied. Knows no meaning of a word: any words come back as they were.
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
    """Returns signed words as bytes, uint8[n]: the blocks, and behind them a byte for the width of each.

    Args:
        words: uint32[L] or uint64[L], little-endian, read as signed.
    """
    wide = words.view(f"<i{words.itemsize}").astype("<i8", copy=False)
    widths = [_width(wide[start : start + BLOCK]) for start in range(0, len(wide), BLOCK)]
    sizes = [width * min(BLOCK, len(wide) - k * BLOCK) for k, width in enumerate(widths)]
    packed, at = np.empty(sum(sizes) + len(widths), np.uint8), 0
    for k, width in enumerate(widths):
        block = wide[k * BLOCK : (k + 1) * BLOCK]
        for place, plane in _planes(width):
            end = at + plane * len(block)
            packed[at:end].view(f"<u{plane}")[:] = _plane(block, place, plane)
            at = end
    packed[at:] = widths
    return packed


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
    # First, before any time or memory is taken: a size that nobody compared with the bytes would be a stranger's to
    # choose. So there is no width of 0 either: one byte would stand for a whole block of zeros.
    right = bits in (32, 64) and 0 <= size <= len(data)
    widths = data[len(data) - blocks :].tolist() if right else []
    expected = blocks + sum(width * min(BLOCK, size - k * BLOCK) for k, width in enumerate(widths))
    if not right or len(data) != expected or any(not 1 <= width <= bits // 8 for width in widths):
        raise EncodingError(f"packed words: {size} words of {bits} bits do not match {len(data)} bytes")
    wide, at = np.zeros(size, "<i8"), 0
    for k, width in enumerate(widths):
        block = wide[k * BLOCK : (k + 1) * BLOCK]
        for place, plane in _planes(width):
            end = at + plane * len(block)
            _plane(block, place, plane)[:] = data[at:end].view(f"<u{plane}")
            at = end
        if width < 8:  # up to the top of each word, and down again with the sign
            block <<= np.int64(64 - 8 * width)
            block >>= np.int64(64 - 8 * width)
        if _width(block) != width:
            raise EncodingError("packed words: a block is written wider than its words need")
    return wide.astype(f"<i{bits // 8}", copy=False).view(f"<u{bits // 8}")


def _width(block: NDArray[np.int64]) -> int:
    """Returns how many bytes the largest word of a block needs with its sign."""
    low, high = int(np.minimum.reduce(block)), int(np.maximum.reduce(block))
    bits = max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0)
    return bits // 8 + 1


def _planes(width: int) -> list[tuple[int, int]]:
    """Returns (first byte, bytes) of what a word of so many bytes is cut into, each at a multiple of its own bytes."""
    found, place = [], 0
    for plane in (8, 4, 2, 1):
        if width - place >= plane:
            found.append((place, plane))
            place += plane
    return found


def _plane(block: NDArray[np.int64], place: int, plane: int) -> NDArray[Any]:
    """Returns a view of some bytes of each word of a block."""
    return block.view(f"<u{plane}")[place // plane :: 8 // plane]
