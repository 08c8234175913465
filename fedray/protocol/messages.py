# SPDX-License-Identifier: Apache-2.0
"""The bytes of the protocol: one injective encoding, and the records of set-up.

Knows how fields become bytes and which bytes are acceptable. Does not know what a field is for: signatures, keys and
the order of messages are checked elsewhere. A decoder either returns a record or raises `EncodingError`; no input makes
it do anything else.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError
from fedray.protocol.crypto.field import PRIME
from fedray.types import Message

LABEL = "fedray/secagg/1/"
HASH_BYTES = 32
SIGNATURE_BYTES = 64
CHECK_BYTES = 8
CHECK_FIELD = CHECK_BYTES.to_bytes(4, "big") + bytes(CHECK_BYTES)
"""The last field of a vector's message, with its length in front, before the check is written there."""
NO_CHECK = bytes(4)
"""The same where nothing is protected: an empty field."""
_LABEL_WITHIN = 256  # a label ends well before: a longer field is none, and is not read

Words: TypeAlias = NDArray[np.uint32] | NDArray[np.uint64]
"""Ring words, little-endian, uint32[L] or uint64[L]."""

FieldKind: TypeAlias = type[int] | type[str] | type[bytes] | int
"""Schema of one field: `int` (u64), `str` (UTF-8 in NFC), `bytes` of any length, or bytes of the given length."""


def enc(purpose: str, *fields: int | str | bytes) -> bytes:
    """Returns the fields as bytes: u32 count, then u32 length and bytes of each; the first is the purpose's label.

    Args:
        purpose: What the statement is for, e.g. `"hello"`; it keeps statements of different kinds apart.
        *fields: Integers become u64, strings UTF-8 in NFC; everything is big-endian.

    Raises:
        EncodingError: An integer is outside 0..2^64-1 or a string is not Unicode text.
    """
    parts = [(len(fields) + 1).to_bytes(4, "big")]
    for one in (LABEL + purpose, *fields):
        part = _field(one)
        parts += (len(part).to_bytes(4, "big"), part)
    return b"".join(parts)


def dec(purpose: str, data: bytes, schema: tuple[FieldKind, ...]) -> list[Any]:
    """Returns the fields of what `enc` made for the same purpose; accepts exactly the bytes that `enc` makes.

    Args:
        purpose: What the statement must be for.
        data: Its bytes.
        schema: What each field must be, in order.

    Raises:
        EncodingError: The bytes are not such a statement.
    """
    if not isinstance(data, bytes):
        raise EncodingError(f"{purpose}: expected bytes, found {type(data).__name__}")
    parts = _split(purpose, data)
    if len(parts) != len(schema) + 1 or parts[0] != (LABEL + purpose).encode():
        raise EncodingError(f"{purpose}: expected its label and {len(schema)} fields, found {len(parts)} fields")
    return [_value(purpose, part, kind) for part, kind in zip(parts[1:], schema, strict=True)]


def enc_list(purpose: str, items: tuple[int | str | bytes, ...]) -> bytes:
    """Returns a list of any length as one field for `enc`."""
    return enc(purpose, *items)


def dec_list(purpose: str, data: bytes, kind: FieldKind, most: int) -> list[Any]:
    """Returns the items of what `enc_list` made.

    Args:
        purpose: What the list must be for.
        data: Its bytes.
        kind: What each item must be.
        most: How many items are allowed.

    Raises:
        EncodingError: The bytes are not such a list, or it has more than `most` items.
    """
    if not isinstance(data, bytes):
        raise EncodingError(f"{purpose}: expected bytes, found {type(data).__name__}")
    parts = _split(purpose, data)
    if not parts or len(parts) - 1 > most:
        raise EncodingError(f"{purpose}: expected at most {most} items, found {len(parts) - 1}")
    return dec(purpose, data, (kind,) * (len(parts) - 1))


def digest(purpose: str, *fields: int | str | bytes) -> bytes:
    """Returns SHA-256 of the encoded fields, 32 bytes."""
    return hashlib.sha256(enc(purpose, *fields)).digest()


def purpose_of(message: Message) -> str:
    """Returns what a message says it is for; nothing else about it is checked.

    Raises:
        EncodingError: It has no label.
    """
    data = as_bytes(message)[:_LABEL_WITHIN].tobytes()
    size = int.from_bytes(data[4:8], "big")
    label = data[8 : 8 + size]
    if not label.startswith(LABEL.encode()) or not label.isascii():
        raise EncodingError(f"expected a protocol message, found {len(message)} bytes without a label")
    return label.decode()[len(LABEL) :]


def _field(value: int | str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        if value.isascii():  # and so in NFC: nearly all text in statements, of which a round makes a dozen
            return value.encode()
        try:
            return unicodedata.normalize("NFC", value).encode()
        except UnicodeEncodeError:
            raise EncodingError("a string field is not Unicode text (it holds a lone surrogate)") from None
    # True and 1 are equal and would be two things said in one way.
    if isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise EncodingError(f"an integer field must be 0..2^64-1, found {value!r}")
    return int(value).to_bytes(8, "big")


def _split(purpose: str, data: bytes) -> list[bytes]:
    """Returns the fields of one statement, label first."""
    if len(data) < 4:
        raise EncodingError(f"{purpose}: expected at least 4 bytes, found {len(data)}")
    count = int.from_bytes(data[:4], "big")
    # Every field has a length of its own: more of them than that cannot be there, and the loop ends early.
    if count > len(data) // 4:
        raise EncodingError(f"{purpose}: {count} fields do not fit in {len(data)} bytes")
    parts, place = [], 4
    for _ in range(count):
        start = place + 4
        place = start + int.from_bytes(data[start - 4 : start], "big")
        if start > len(data) or place > len(data):
            raise EncodingError(f"{purpose}: the message is cut short")
        parts.append(data[start:place])
    if place != len(data):
        raise EncodingError(f"{purpose}: {len(data) - place} bytes too many")
    return parts


def _value(purpose: str, part: bytes, kind: FieldKind) -> int | str | bytes:
    if kind is bytes:
        return part
    if kind is str:
        try:
            text = part.decode()
        except UnicodeDecodeError:
            raise EncodingError(f"{purpose}: a string field is not UTF-8") from None
        if unicodedata.normalize("NFC", text) != text:
            raise EncodingError(f"{purpose}: a string field is not in NFC")
        return text
    expected = 8 if kind is int else kind
    if len(part) != expected:
        raise EncodingError(f"{purpose}: expected a field of {expected} bytes, found {len(part)}")
    return int.from_bytes(part, "big") if kind is int else part


@dataclass(frozen=True, slots=True)
class Hello:
    """S2: one party's key for one session, signed.

    Attributes:
        config: SHA-256 of the proposed Config.
        index: The sender's place in the roster.
        public: X25519 public key, 32 bytes.
        commitment: SHA-256 of the sender's share of the graph seed.
        signature: Ed25519 over `statement`.
    """

    config: bytes
    index: int
    public: bytes
    commitment: bytes
    signature: bytes

    @property
    def statement(self) -> bytes:
        """What is signed, and what enters the session id."""
        return enc("hello", self.config, self.index, self.public, self.commitment)

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("signed-hello", self.config, self.index, self.public, self.commitment, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        """Parses wire bytes; the signature is not checked here.

        Raises:
            EncodingError: They are not a Hello.
        """
        schema = (HASH_BYTES, int, HASH_BYTES, HASH_BYTES, SIGNATURE_BYTES)
        return cls(*dec("signed-hello", data, schema))


@dataclass(frozen=True, slots=True)
class Confirm:
    """S3: one party saw these Hellos; opens its commitment, signed.

    Attributes:
        sid: Session id over the Config and all Hellos.
        index: The sender's place in the roster.
        reveal: The committed 32 bytes.
        dealt: Of the first owner the secret for the checks of sums, sealed for each other owner; else empty.
        signature: Ed25519 over `statement`.
    """

    sid: bytes
    index: int
    reveal: bytes
    dealt: bytes
    signature: bytes

    @property
    def statement(self) -> bytes:
        """What is signed."""
        return enc("confirm", self.sid, self.index, self.reveal, self.dealt)

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("signed-confirm", self.sid, self.index, self.reveal, self.dealt, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Confirm:
        """Parses wire bytes; the signature is not checked here.

        Raises:
            EncodingError: They are not a Confirm.
        """
        return cls(*dec("signed-confirm", data, (HASH_BYTES, int, HASH_BYTES, bytes, SIGNATURE_BYTES)))


def check_of(purpose: str, tail: bytes) -> int | None:
    """Returns the check in the last field of a vector's message; None where that field is empty.

    Args:
        purpose: What the message is, for the error.
        tail: The field, with its length in front.

    Raises:
        EncodingError: It is neither empty nor a number below 2^61 - 1.
    """
    if tail == NO_CHECK:
        return None
    value = int.from_bytes(tail[4:], "big")
    if len(tail) != len(CHECK_FIELD) or tail[:4] != CHECK_FIELD[:4] or value >= PRIME:
        raise EncodingError(f"{purpose}: expected a check below 2^61 - 1 behind the words, or none")
    return value


def check_bytes(check: int) -> bytes:
    """Returns a check as it stands in a message."""
    return check.to_bytes(CHECK_BYTES, "big")


def put_check(frame: NDArray[np.uint8], check: int) -> None:
    """Writes a check into the last field of a vector's message, uint8[n], which has room for it."""
    frame[-CHECK_BYTES:] = np.frombuffer(check_bytes(check), np.uint8)


def as_bytes(message: Message) -> NDArray[np.uint8]:
    """Returns a message as uint8[n] without copying it.

    Raises:
        EncodingError: It is neither bytes nor a contiguous uint8[n].
    """
    if isinstance(message, bytes):
        return np.frombuffer(message, np.uint8)
    if not isinstance(message, np.ndarray) or message.dtype != np.uint8 or message.ndim != 1:
        raise EncodingError(f"message: expected bytes or uint8[n], found {type(message).__name__}")
    if not message.flags.c_contiguous:
        raise EncodingError("message: the array is not contiguous")
    return message
