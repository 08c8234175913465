# SPDX-License-Identifier: Apache-2.0
"""What the compute parties of a round say: whose inputs they open together, and their sums over these.

Knows which bytes are acceptable, and whether all signatures under a statement are there. Does not know rules or shares.
A decoder either returns a record or raises `EncodingError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keys import MOST_PARTIES, verify
from fedray.protocol.messages import (
    HASH_BYTES,
    SIGNATURE_BYTES,
    FieldKind,
    Words,
    as_bytes,
    dec,
    dec_list,
    enc,
    enc_list,
)
from fedray.types import Message, Round


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whose inputs of one round are opened together, and what they were computed on.

    Attributes:
        sid: Session id.
        number: Round.
        ctx: Hash of all that the inputs depend on.
        members: Roster places of U, in order.
    """

    sid: bytes
    number: Round
    ctx: bytes
    members: tuple[int, ...]

    @property
    def statement(self) -> bytes:
        """What each compute party signs, for one U per round."""
        return enc("survive", self.sid, self.number, self.ctx, enc_list("members", self.members))


@dataclass(frozen=True, slots=True)
class AgreementSignature:
    """One compute party's signature under an agreement.

    Attributes:
        agreement: What it signed.
        compute_party: Its number among the compute parties.
        signature: Ed25519 over the statement.
    """

    agreement: Agreement
    compute_party: int
    signature: bytes

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("node-survive", *_agreed(self.agreement), self.compute_party, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> AgreementSignature:
        """Parses wire bytes; the signature is not checked here.

        Raises:
            EncodingError: They are not such a message.
        """
        *agreed, number, signature = dec("node-survive", data, (*_AGREED, int, SIGNATURE_BYTES))
        return cls(_agreement(*agreed), number, signature)


@dataclass(frozen=True, slots=True)
class Proof:
    """All compute parties' signatures under one agreement.

    Attributes:
        agreement: What they signed.
        signatures: Theirs, in the compute parties' order.
    """

    agreement: Agreement
    signatures: tuple[bytes, ...]

    def check(self, keys: Sequence[bytes]) -> None:
        """Checks that every compute party signed.

        Args:
            keys: Their identity keys, in order.

        Raises:
            ProtocolError: A signature is missing or wrong.
        """
        if len(self.signatures) != len(keys):
            raise ProtocolError(
                f"round {self.agreement.number}: expected the signatures of all {len(keys)} compute parties, found "
                f"{len(self.signatures)}"
            )
        statement, number = self.agreement.statement, self.agreement.number
        for place, (key, signature) in enumerate(zip(keys, self.signatures, strict=True)):
            if not verify(key, statement, signature):
                raise ProtocolError(f"round {number}: compute party {place} did not sign whose sum this is")

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("proof", *_agreed(self.agreement), enc_list("signatures", self.signatures))

    @classmethod
    def decode(cls, data: bytes) -> Proof:
        """Parses wire bytes; the signatures are not checked here.

        Raises:
            EncodingError: They are not such a message.
        """
        *agreed, signatures = dec("proof", data, (*_AGREED, bytes))
        listed = tuple(dec_list("signatures", signatures, SIGNATURE_BYTES, MOST_PARTIES))
        return cls(_agreement(*agreed), listed)


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """One compute party's published sum of its shares.

    Attributes:
        proof: That all compute parties agreed on whose shares are in it.
        compute_party: Its number among the compute parties.
        words: uint32[L] or uint64[L], little-endian.
        check: The sum of its shares of the checks, mod p.
    """

    proof: Proof
    compute_party: int
    words: Words = field(repr=False)
    check: int = field(repr=False)

    def encode(self) -> NDArray[np.uint8]:
        """Returns the wire bytes, uint8[n]."""
        # The head has its own length in front, so that the words behind it are never copied to be parsed.
        size, bits = len(self.words), self.words.itemsize * 8
        head = enc("partial", self.proof.encode(), self.compute_party, size, bits, self.check)
        data = b"".join((len(head).to_bytes(4, "big"), head, self.words.tobytes()))
        return np.frombuffer(data, np.uint8)

    @classmethod
    def decode(cls, message: Message) -> Partial:
        """Parses wire bytes; signatures are not checked here, and the words stay where they are.

        Raises:
            EncodingError: They are not such a message.
        """
        data = as_bytes(message).data
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < 4 or end > len(data):
            raise EncodingError(f"partial: the message is cut short at {len(data)} bytes")
        proof, number, size, bits, check = dec("partial", bytes(data[4:end]), (bytes, int, int, int, int))
        if bits not in (32, 64) or len(data) - end != size * bits // 8:
            raise EncodingError(f"partial: {size} words of {bits} bits do not match {len(data) - end} bytes")
        if check >= PRIME:
            raise EncodingError("partial: expected a check below 2^61 - 1")
        return cls(Proof.decode(proof), number, np.frombuffer(data[end:], f"<u{bits // 8}"), check)


_AGREED: tuple[FieldKind, ...] = (HASH_BYTES, int, HASH_BYTES, bytes)


def _agreed(agreement: Agreement) -> tuple[bytes, int, bytes, bytes]:
    members = enc_list("members", agreement.members)
    return agreement.sid, agreement.number, agreement.ctx, members


def _agreement(sid: bytes, number: int, ctx: bytes, members: bytes) -> Agreement:
    return Agreement(sid, number, ctx, tuple(dec_list("members", members, int, MOST_PARTIES)))
