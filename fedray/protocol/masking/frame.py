# SPDX-License-Identifier: Apache-2.0
"""V3: the message of a round with one vector, built around its words and read without copying them.

Knows its header and which bytes are acceptable. Does not know what hides the words. A decoder either returns a record
or raises `EncodingError`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError
from fedray.protocol.crypto.buffers import BufferPool
from fedray.protocol.messages import CHECK_FIELD, LABEL, NO_CHECK, Words, as_bytes, check_of
from fedray.types import Message

_HEADER = struct.Struct(">II24sI32sI32sIQIQI32sIQIQI")
_MASKED_PURPOSE = "masked-a"  # with the label 24 bytes, so that the words start at byte 192, a multiple of 64
_LENGTHS = (24, 32, 32, 8, 8, 32, 8, 8)
_FIELDS = len(_LENGTHS) + 2  # with words and check


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """V3: one party's vector of one round. Equal to `enc` of its fields, built and read without copying the words.

    Attributes:
        sid: Session id.
        vid: View id.
        number: Round.
        index: The sender's place in the roster.
        ctx: Hash of all that the input depends on.
        words: uint32[L] or uint64[L], little-endian; a view into the frame.
        check: Of the words, masked mod p; None where nothing is protected.
    """

    sid: bytes
    vid: bytes
    number: int
    index: int
    ctx: bytes
    words: Words = field(repr=False)
    check: int | None = field(repr=False)

    @classmethod
    def frame(
        cls,
        sid: bytes,
        vid: bytes,
        number: int,
        index: int,
        ctx: bytes,
        size: int,
        bits: int,
        memory: BufferPool | None = None,
        *,
        checked: bool = True,
    ) -> tuple[NDArray[np.uint8], Words]:
        """Returns a message with its header filled in, and a view of its words, not yet set; nor is its check.

        Args:
            sid: Session id.
            vid: View id.
            number: Round.
            index: The sender's place in the roster.
            ctx: Hash of all that the input depends on.
            size: Words L.
            bits: Bits l of a word.
            memory: What the message's memory is taken from; None for new memory.
            checked: Whether there is room for a check behind the words.

        Raises:
            EncodingError: The words take 4 GiB or more.
        """
        # The length field has 32 bits; a longer vector would wrap around there and be read as a shorter one.
        payload = size * bits // 8
        if payload >= 1 << 32:
            raise EncodingError(f"{size} words of {bits} bits do not fit one message of 4 GiB: sum fewer tensors")
        label = (LABEL + _MASKED_PURPOSE).encode()
        values = (label, sid, vid, number, index, ctx, size, bits)
        fields = [x for pair in zip(_LENGTHS, values, strict=True) for x in pair]
        tail, end = CHECK_FIELD if checked else NO_CHECK, _HEADER.size + payload
        frame = (memory or BufferPool()).take(end + len(tail))
        frame[: _HEADER.size] = np.frombuffer(_HEADER.pack(_FIELDS, *fields, payload), np.uint8)
        frame[end:] = np.frombuffer(tail, np.uint8)
        return frame, frame[_HEADER.size : end].view(f"<u{bits // 8}")

    @classmethod
    def decode(cls, message: Message) -> Masked:
        """Parses a message; its words stay where they are.

        Raises:
            EncodingError: It is not such a message.
        """
        data = as_bytes(message)
        if len(data) < _HEADER.size:
            raise EncodingError(f"masked: expected at least {_HEADER.size} bytes, found {len(data)}")
        count, *fields, payload = _HEADER.unpack(data[: _HEADER.size].tobytes())
        label, sid, vid, number, index, ctx, size, bits = fields[1::2]
        if count != _FIELDS or tuple(fields[::2]) != _LENGTHS or label != (LABEL + _MASKED_PURPOSE).encode():
            raise EncodingError("masked: the header is not that of a masked vector")
        end = _HEADER.size + payload
        if bits not in (32, 64) or payload != size * bits // 8 or len(data) - end not in (4, len(CHECK_FIELD)):
            raise EncodingError(f"masked: {size} words of {bits} bits do not match {len(data)} bytes")
        check = check_of("masked", data[end:].tobytes())
        return cls(sid, vid, number, index, ctx, data[_HEADER.size : end].view(f"<u{bits // 8}"), check)
