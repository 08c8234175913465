# SPDX-License-Identifier: Apache-2.0
"""The records of a round that survives dropouts (SECAGG section 7, R1 to R4), with strict byte encodings.

Knows which bytes are acceptable. Does not check signatures, and does not know whose turn it is. A decoder either
returns a record or raises `EncodingError`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError
from fedray.protocol.crypto.shamir import SHARE_BYTES, check_share
from fedray.protocol.messages import (
    CHECK_FIELD,
    HASH_BYTES,
    LABEL,
    SIGNATURE_BYTES,
    Words,
    as_bytes,
    check_bytes,
    check_of,
    dec,
    digest,
    enc,
)
from fedray.types import Message

INDEX_BYTES = 4
SELF, PAIR = 0, 1
"""Which secret a released share belongs to: the self mask of a survivor, or the pair key of a dropped party."""


def pack_indices(indices: Iterable[int]) -> bytes:
    """Returns indices as u32 each."""
    return b"".join(i.to_bytes(INDEX_BYTES, "big") for i in indices)


def unpack_indices(purpose: str, data: bytes) -> tuple[int, ...]:
    """Returns strictly increasing indices.

    Raises:
        EncodingError: They are not strictly increasing, or the bytes are cut short.
    """
    indices = tuple(int.from_bytes(part, "big") for part in unpack(purpose, data, INDEX_BYTES))
    # Strictly: a party listed twice, or in two orders, would be another statement about the same set.
    if any(b <= a for a, b in pairwise(indices)):
        raise EncodingError(f"{purpose}: indices must be strictly increasing")
    return indices


def unpack(purpose: str, data: bytes, size: int) -> tuple[bytes, ...]:
    """Returns entries of one size that were joined.

    Args:
        purpose: For the error message.
        data: The joined entries.
        size: Bytes of one.

    Raises:
        EncodingError: The bytes are no multiple of the size.
    """
    if len(data) % size:
        raise EncodingError(f"{purpose}: {len(data)} bytes are no multiple of {size}")
    return tuple(data[place : place + size] for place in range(0, len(data), size))


@dataclass(frozen=True)
class Survivors:
    """R2: whose inputs the coordinator wants to open, and what it received from them.

    Attributes:
        sid: Session id.
        number: Round.
        ctx: Hash of all that the inputs depend on.
        members: Indices of U, increasing.
        hashes: SHA-256 of each member's masked vector, in the same order.
    """

    sid: bytes
    number: int
    ctx: bytes
    members: tuple[int, ...]
    hashes: tuple[bytes, ...]

    @cached_property
    def statement(self) -> bytes:
        """What a survivor signs; every signature of a round is checked against it."""
        members = pack_indices(self.members)
        return enc("survive", self.sid, self.number, self.ctx, members, digest("hashes", b"".join(self.hashes)))

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("survivors", self.sid, self.number, self.ctx, pack_indices(self.members), b"".join(self.hashes))

    @classmethod
    def decode(cls, data: bytes) -> Survivors:
        """Parses wire bytes.

        Raises:
            EncodingError: They are not such a message.
        """
        sid, number, ctx, members, hashes = dec("survivors", data, (HASH_BYTES, int, HASH_BYTES, bytes, bytes))
        indices, digests = unpack_indices("survivors", members), unpack("survivors", hashes, HASH_BYTES)
        if len(indices) != len(digests):
            raise EncodingError(f"survivors: {len(indices)} members but {len(digests)} hashes")
        return cls(sid, number, ctx, indices, digests)


@dataclass(frozen=True, slots=True)
class Survive:
    """R2: one survivor's signature. It carries its statement, so that two of them prove misbehaviour.

    Attributes:
        statement: `Survivors.statement` as the signer saw it.
        index: The signer's place in the roster.
        signature: Ed25519 over the statement.
    """

    statement: bytes
    index: int
    signature: bytes

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("signed-survive", self.statement, self.index, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Survive:
        """Parses wire bytes.

        Raises:
            EncodingError: They are not such a message.
        """
        return cls(*dec("signed-survive", data, (bytes, int, SIGNATURE_BYTES)))


@dataclass(frozen=True, slots=True)
class Quorum:
    """R3: the signatures on one statement.

    Attributes:
        survivors: The statement's content.
        signers: Indices of the signers, increasing.
        signatures: Their signatures, in the same order.
    """

    survivors: Survivors
    signers: tuple[int, ...]
    signatures: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("quorum", self.survivors.encode(), pack_indices(self.signers), b"".join(self.signatures))

    @classmethod
    def decode(cls, data: bytes) -> Quorum:
        """Parses wire bytes; signatures are not checked here.

        Raises:
            EncodingError: They are not such a message.
        """
        survivors, signers, signatures = dec("quorum", data, (bytes, bytes, bytes))
        indices, signed = unpack_indices("quorum", signers), unpack("quorum", signatures, SIGNATURE_BYTES)
        if len(indices) != len(signed):
            raise EncodingError(f"quorum: {len(indices)} signers but {len(signed)} signatures")
        return cls(Survivors.decode(survivors), indices, signed)


@dataclass(frozen=True, slots=True)
class Unmask:
    """R3: one holder's shares, exactly one for each party whose shares it holds.

    Attributes:
        sid: Session id.
        number: Round.
        index: The holder's place in the roster.
        owners: Whose secrets the shares belong to, increasing.
        kinds: `SELF` or `PAIR` for each owner.
        shares: 33 bytes for each owner.
    """

    sid: bytes
    number: int
    index: int
    owners: tuple[int, ...]
    kinds: bytes
    shares: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        owners, shares = pack_indices(self.owners), b"".join(self.shares)
        return enc("unmask", self.sid, self.number, self.index, owners, self.kinds, shares)

    @classmethod
    def decode(cls, data: bytes) -> Unmask:
        """Parses wire bytes.

        Raises:
            EncodingError: They are not such a message.
        """
        schema = (HASH_BYTES, int, int, bytes, bytes, bytes)
        sid, number, index, owners, kinds, shares = dec("unmask", data, schema)
        indices, values = unpack_indices("unmask", owners), unpack("unmask", shares, SHARE_BYTES)
        if not len(indices) == len(kinds) == len(values) or any(kind not in (SELF, PAIR) for kind in kinds):
            raise EncodingError(
                f"unmask: {len(indices)} owners, {len(kinds)} kinds and {len(values)} shares do not fit"
            )
        for value in values:
            check_share(value)
        return cls(sid, number, index, indices, kinds, values)


_PURPOSE = "mask"  # with the label 20 bytes, so that the words start at byte 256, a multiple of 64
_LENGTHS = (20, 32, 8, 8, 32, 8, 8, 32, 64)
_FIELDS = len(_LENGTHS) + 2  # with words and check
_HEADER = struct.Struct(">I" + "".join(f"I{size}s" if size not in (8,) else "IQ" for size in _LENGTHS) + "I")


@dataclass(frozen=True, slots=True, eq=False)
class MaskedInput:
    """R1: one party's masked vector, signed. Equal to `enc` of its fields, built and read without copying the words.

    Attributes:
        sid: Session id.
        number: Round.
        index: The sender's place in the roster.
        ctx: Hash of all that the input depends on.
        words_hash: SHA-256 of the words and the check.
        signature: Ed25519 over `statement`.
        words: uint32[L] or uint64[L], little-endian; a view into the message.
        check: Of the words, masked mod p.
    """

    sid: bytes
    number: int
    index: int
    ctx: bytes
    words_hash: bytes
    signature: bytes
    words: Words = field(repr=False)
    check: int = field(repr=False)

    @property
    def statement(self) -> bytes:
        """What is signed."""
        return masked_statement(self.sid, self.number, self.index, self.ctx, self.words, self.words_hash)

    @classmethod
    def decode(cls, message: Message) -> MaskedInput:
        """Parses a message; its words stay where they are, and neither hash nor signature is checked.

        Raises:
            EncodingError: It is not such a message.
        """
        data = as_bytes(message)
        if len(data) < _HEADER.size:
            raise EncodingError(f"masked input: expected at least {_HEADER.size} bytes, found {len(data)}")
        count, *fields, payload = _HEADER.unpack(data[: _HEADER.size].tobytes())
        label, sid, number, index, ctx, size, bits, words_hash, signature = fields[1::2]
        if count != _FIELDS or tuple(fields[::2]) != _LENGTHS or label != (LABEL + _PURPOSE).encode():
            raise EncodingError("masked input: the header is not that of a masked vector")
        end = _HEADER.size + payload
        if bits not in (32, 64) or payload != size * bits // 8 or len(data) != end + len(CHECK_FIELD):
            raise EncodingError(f"masked input: {size} words of {bits} bits do not match {len(data)} bytes")
        check = check_of("masked input", data[end:].tobytes())
        if check is None:
            raise EncodingError("masked input: there is no check behind the words")
        words = data[_HEADER.size : end].view(f"<u{bits // 8}")
        return cls(sid, number, index, ctx, words_hash, signature, words, check)

    def hash(self) -> bytes:
        """Returns what `words_hash` should be."""
        hashed = hashlib.sha256(self.words.data)
        hashed.update(check_bytes(self.check))
        return hashed.digest()


def masked_statement(sid: bytes, number: int, index: int, ctx: bytes, words: Words, words_hash: bytes) -> bytes:
    """Returns what a party signs of its masked vector.

    Args:
        sid: Session id.
        number: Round.
        index: The party's place in the roster.
        ctx: Hash of all that the input depends on.
        words: The masked vector, for its length and type.
        words_hash: SHA-256 of its words and its check.
    """
    return enc("masked", sid, number, index, ctx, len(words), words.itemsize * 8, words_hash)


def masked_frame(size: int, bits: int) -> tuple[NDArray[np.uint8], Words]:
    """Returns an unfilled message for L words of l bits and their check, and a view of its words.

    Raises:
        EncodingError: The words take 4 GiB or more.
    """
    payload = size * bits // 8
    if payload >= 1 << 32:
        raise EncodingError(f"{size} words of {bits} bits do not fit one message of 4 GiB: sum fewer tensors")
    end = _HEADER.size + payload
    frame = np.empty(end + len(CHECK_FIELD), np.uint8)
    frame[end:] = np.frombuffer(CHECK_FIELD, np.uint8)
    return frame, frame[_HEADER.size : end].view(f"<u{bits // 8}")


def fill_header(frame: NDArray[np.uint8], values: Sequence[int | bytes]) -> None:
    """Writes the header of a masked input: sid, number, index, ctx, L, l, hash and signature."""
    labelled = ((LABEL + _PURPOSE).encode(), *values)
    fields = [x for pair in zip(_LENGTHS, labelled, strict=True) for x in pair]
    header = _HEADER.pack(_FIELDS, *fields, len(frame) - _HEADER.size - len(CHECK_FIELD))
    frame[: _HEADER.size] = np.frombuffer(header, np.uint8)
