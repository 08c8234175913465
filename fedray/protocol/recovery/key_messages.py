# SPDX-License-Identifier: Apache-2.0
"""The records of the set-up of a batch of rounds (SECAGG section 6, B1 to B3), with strict byte encodings.

Knows which bytes are acceptable. Does not check signatures, open ciphertexts, nor know whose turn it is. A decoder
either returns a record or raises `EncodingError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from fedray.errors import EncodingError
from fedray.protocol.crypto.keys import MOST_PARTIES
from fedray.protocol.crypto.shamir import SHARE_BYTES, check_share
from fedray.protocol.messages import HASH_BYTES, SIGNATURE_BYTES, dec, dec_list, enc, enc_list
from fedray.protocol.recovery.round_messages import unpack
from fedray.types import Round

_ENTRY_BYTES = 8 + 2 * HASH_BYTES
_PAIR_BYTES = 2 * SHARE_BYTES


@dataclass(frozen=True, slots=True)
class Keys:
    """B1: one party's public keys and commitments for all rounds of a batch, signed.

    Attributes:
        sid: Session id.
        batch: Number of the batch.
        index: The sender's place in the roster.
        rounds: The rounds, strictly increasing.
        publics: X25519 public key S of each round.
        commitments: Commitment h to the seed b of each round.
        signature: Ed25519 over `statement`.
    """

    sid: bytes
    batch: int
    index: int
    rounds: tuple[Round, ...]
    publics: tuple[bytes, ...]
    commitments: tuple[bytes, ...]
    signature: bytes = b""

    @property
    def statement(self) -> bytes:
        """What is signed, and what enters the batch's digest."""
        return enc("keys", self.sid, self.batch, self.index, self._entries())

    def _entries(self) -> bytes:
        entries = zip(self.rounds, self.publics, self.commitments, strict=True)
        return b"".join(r.to_bytes(8, "big") + public + commitment for r, public, commitment in entries)

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("signed-keys", self.sid, self.batch, self.index, self._entries(), self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Keys:
        """Parses wire bytes; the signature is not checked here.

        Raises:
            EncodingError: They are not such a message.
        """
        schema = (HASH_BYTES, int, int, bytes, SIGNATURE_BYTES)
        sid, batch, index, packed, signature = dec("signed-keys", data, schema)
        entries = unpack("keys", packed, _ENTRY_BYTES)
        rounds = tuple(int.from_bytes(entry[:8], "big") for entry in entries)
        if not rounds or any(b <= a for a, b in pairwise(rounds)):
            raise EncodingError("keys: rounds must be strictly increasing, and at least one")
        publics = tuple(entry[8 : 8 + HASH_BYTES] for entry in entries)
        commitments = tuple(entry[8 + HASH_BYTES :] for entry in entries)
        return cls(sid, batch, index, rounds, publics, commitments, signature)


@dataclass(frozen=True, slots=True)
class Sharing:
    """B2, inside the channel: one owner's shares for one holder, a pair (s, b) per round in which they are neighbours.

    Attributes:
        batch: Number of the batch.
        owner: Index of whose secrets are shared.
        holder: Index of who holds the shares.
        abscissa: Where the owner's polynomials were evaluated: holder + 1.
        pairs: 66 bytes per round, in order of the rounds: the share of s, then that of b.
    """

    batch: int
    owner: int
    holder: int
    abscissa: int
    pairs: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        """Returns the plaintext bytes."""
        return enc("sharing", self.batch, self.owner, self.holder, self.abscissa, b"".join(self.pairs))

    @classmethod
    def decode(cls, data: bytes) -> Sharing:
        """Parses plaintext bytes.

        Raises:
            EncodingError: They are not such a message, or a share is out of range.
        """
        batch, owner, holder, abscissa, packed = dec("sharing", data, (int, int, int, int, bytes))
        pairs = unpack("sharing", packed, _PAIR_BYTES)
        for pair in pairs:
            check_share(pair[:SHARE_BYTES])
            check_share(pair[SHARE_BYTES:])
        return cls(batch, owner, holder, abscissa, pairs)


@dataclass(frozen=True, slots=True)
class Dealt:
    """B2 on the wire: ciphertexts in roster order; empty where there is none.

    From a party: one for each recipient. To a party: one from each sender.

    Attributes:
        sid: Session id.
        batch: Number of the batch.
        index: The party that sent, or that receives, all of them.
        sealed: One ciphertext per index of the roster.
    """

    sid: bytes
    batch: int
    index: int
    sealed: tuple[bytes, ...] = field(repr=False)

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("dealt", self.sid, self.batch, self.index, enc_list("sealed", self.sealed))

    @classmethod
    def decode(cls, data: bytes) -> Dealt:
        """Parses wire bytes.

        Raises:
            EncodingError: They are not such a message.
        """
        sid, batch, index, sealed = dec("dealt", data, (HASH_BYTES, int, int, bytes))
        return cls(sid, batch, index, tuple(dec_list("sealed", sealed, bytes, MOST_PARTIES)))


@dataclass(frozen=True, slots=True)
class Ack:
    """B3: one party holds all its shares under this digest of all Keys, signed.

    Attributes:
        sid: Session id.
        batch: Number of the batch.
        digest: D, hash of all Keys.
        index: The sender's place in the roster.
        signature: Ed25519 over `statement`.
    """

    sid: bytes
    batch: int
    digest: bytes
    index: int
    signature: bytes

    @property
    def statement(self) -> bytes:
        """What is signed; the key says by whom."""
        return ack_statement(self.sid, self.batch, self.digest)

    def encode(self) -> bytes:
        """Returns the wire bytes."""
        return enc("signed-ack", self.sid, self.batch, self.digest, self.index, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Ack:
        """Parses wire bytes; the signature is not checked here.

        Raises:
            EncodingError: They are not such a message.
        """
        return cls(*dec("signed-ack", data, (HASH_BYTES, int, HASH_BYTES, int, SIGNATURE_BYTES)))


def ack_statement(sid: bytes, batch: int, digest: bytes) -> bytes:
    """Returns what a party signs when it holds all its shares.

    Args:
        sid: Session id.
        batch: Number of the batch.
        digest: D, hash of all Keys.
    """
    return enc("ack", sid, batch, digest)
