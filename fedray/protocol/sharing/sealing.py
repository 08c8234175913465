# SPDX-License-Identifier: Apache-2.0
"""One owner's share on its way to one compute party: what is said in clear, and the sealed rest.

Knows which bytes are acceptable and how a share is sealed. Does not know rounds, rules or what a share is for. A
decoder either returns a record or raises `EncodingError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from numpy.typing import NDArray

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.messages import CHECK_BYTES, HASH_BYTES, as_bytes, dec, enc
from fedray.types import Message, Round

SEED_BYTES = 32
TAG_BYTES = 16
_ROUNDS = b"rnds"

ShareForm: TypeAlias = Literal["words", "seed", "bare"]
_FORMS: tuple[ShareForm, ...] = ("words", "seed", "bare")
"""How a share is written: out, with the share of its check behind it; as the seed of a keystream; or out, unchecked, as
values in shares are. A form's place is its number in the header."""


@dataclass(frozen=True, slots=True)
class ShareHeader:
    """What a share says in clear; all of it is authenticated with the share.

    Attributes:
        sid: Session id.
        number: Round.
        owner: The owner's place in the roster.
        compute_party: The receiver's number among the compute parties.
        ctx: Hash of all that the input depends on.
        size: Words of the vector.
        bits: Bits of a word, 32 or 64.
        form: Words and the share of their check, a seed for both, or words alone.
        repeats: The round whose inputs this one sums once more, over the same owners; None for a round of its own.
        whole: Whether the owner allows a sum over all owners only.
    """

    sid: bytes
    number: Round
    owner: int
    compute_party: int
    ctx: bytes
    size: int
    bits: int
    form: ShareForm
    repeats: Round | None = None
    whole: bool = False

    def encode(self) -> bytes:
        """Returns the bytes that stand in front of the sealed share, always of one length."""
        form, repeats = _FORMS.index(self.form), 0 if self.repeats is None else 1 + self.repeats
        place = (self.sid, self.number, self.owner, self.compute_party, self.ctx)
        return enc("share", *place, self.size, self.bits, form, int(self.whole), repeats)

    @property
    def payload(self) -> int:
        """Bytes of the share before it is sealed."""
        if self.form == "seed":
            return SEED_BYTES
        return self.size * self.bits // 8 + (CHECK_BYTES if self.form == "words" else 0)

    @classmethod
    def decode(cls, data: bytes) -> ShareHeader:
        """Parses the bytes in front of a sealed share.

        Raises:
            EncodingError: They are not such a header.
        """
        schema = (HASH_BYTES, int, int, int, HASH_BYTES, int, int, int, int, int)
        sid, number, owner, receiver, ctx, size, bits, form, whole, repeats = dec("share", data, schema)
        if bits not in (32, 64) or not 0 <= form < len(_FORMS):
            raise EncodingError(f"share: expected words of 32 or 64 bits, written out or as a seed, found {bits}")
        if whole not in (0, 1):
            raise EncodingError(f"share: expected 1 for a sum over all owners only, or 0, found {whole}")
        again = repeats - 1 if repeats else None
        return cls(sid, number, owner, receiver, ctx, size, bits, _FORMS[form], again, bool(whole))


HEADER_BYTES = len(ShareHeader(bytes(32), 0, 0, 0, bytes(32), 0, 64, "seed").encode())


def seal(key: bytes, header: ShareHeader, share: bytes | NDArray[Any]) -> NDArray[np.uint8]:
    """Returns one share's message: its header, then the share under the channel's AEAD, uint8[n].

    The round is the nonce: a channel carries one share per round, and a repeated request gets the same bytes.

    Args:
        key: Key of the channel, 32 bytes.
        header: What is said in clear.
        share: A seed, or words and the share of the check behind them, uint8[n].

    Raises:
        EncodingError: The share is not as long as its header says.
    """
    clear = memoryview(share) if isinstance(share, bytes) else share.data.cast("B")
    head = header.encode()
    if len(clear) != header.payload:
        raise EncodingError(f"share: expected {header.payload} bytes, found {len(clear)}")
    # The header is authenticated and not hidden: the receiver must know it before it has the key.
    sealed = ChaCha20Poly1305(key).encrypt(_nonce(header.number), clear, head)
    return np.frombuffer(b"".join((head, sealed)), np.uint8)


def header_of(message: Message) -> ShareHeader:
    """Returns what a share's message says in clear, not yet authenticated.

    Raises:
        EncodingError: It is no such message.
    """
    data = as_bytes(message).data
    if len(data) < HEADER_BYTES:
        raise EncodingError(f"share: expected at least {HEADER_BYTES} bytes, found {len(data)}")
    header = ShareHeader.decode(bytes(data[:HEADER_BYTES]))
    if len(data) != HEADER_BYTES + header.payload + TAG_BYTES:
        raise EncodingError(
            f"share: {header.size} words of {header.bits} bits as {header.form} do not match {len(data)} bytes"
        )
    return header


def unseal(key: bytes, message: Message) -> bytes:
    """Returns the share: a seed, or little-endian words and behind them the share of the check.

    Raises:
        EncodingError: It is no share's message.
        ProtocolError: It was not sealed with this key, or was altered.
    """
    header, data = header_of(message), as_bytes(message).data
    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(header.number), data[HEADER_BYTES:], header.encode())
    except InvalidTag:
        raise ProtocolError(f"the share of round {header.number} is not from its owner, or was altered") from None


def _nonce(number: Round) -> bytes:
    return _ROUNDS + number.to_bytes(8, "big")
