# SPDX-License-Identifier: Apache-2.0
"""The secrets of one round and the keys of its pads (SECAGG section 7, R1).

Knows how two one-round secrets become pad keys, and what the public sees of the secrets. Does not know who drops out.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Guarded, exchange, kdf, public_bytes
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.messages import digest, enc
from fedray.types import Round


class RoundSecrets(Guarded):
    """What one party draws for one round: a fresh key for pads with others, a fresh seed for its own pad.

    Attributes:
        private: s, X25519 private key.
        seed: b, 32 bytes.
    """

    def __init__(self) -> None:
        self.private = X25519PrivateKey.generate()
        self.seed = secrets.token_bytes(32)

    @property
    def public(self) -> bytes:
        """S, the public half of s, 32 bytes."""
        return public_bytes(self.private)


@dataclass(frozen=True, slots=True)
class PadScope:
    """What every pad key of one round is bound to.

    Attributes:
        sid: Session id.
        batch_digest: D, hash of all Keys of the batch.
        number: Round.
        ctx: Hash of all that the input depends on.
        size: Words L of the vector.
        bits: Bits l of a word.
    """

    sid: bytes
    batch_digest: bytes
    number: Round
    ctx: bytes
    size: int
    bits: int

    def pair_keys(self, private: X25519PrivateKey, publics: Mapping[int, bytes], mine: int) -> dict[int, bytes]:
        """Returns the key k_ij of the pad that one party shares with each of some others, by the other's index.

        Args:
            private: s of the one party.
            publics: Other party -> its S.
            mine: Index of the one party.

        Raises:
            ProtocolError: A public key is invalid; the message says whose, by index.
        """
        shared, infos, scope = {}, {}, (self.ctx, self.size, self.bits)
        for other, public in publics.items():
            try:
                shared[other] = exchange(private, public)
            except ProtocolError as error:
                raise ProtocolError(f"the party in place {other}: {error}") from None
        for other in shared:
            infos[other] = enc("pair", self.sid, self.number, min(mine, other), max(mine, other), *scope)
        for other, info in infos.items():
            shared[other] = kdf(shared[other], self.batch_digest, info)
        return shared

    def self_key(self, secret: bytes, owner: int) -> bytes:
        """Returns the key k_i of a party's own pad."""
        info = enc("self", self.sid, self.number, owner, self.ctx, self.size, self.bits)
        return kdf(secret, self.batch_digest, info)


def double_pad(scope: PadScope, own: RoundSecrets, publics: Mapping[int, bytes], mine: int) -> Pad:
    """Returns what hides one party's words: its own pad, and one with each neighbour; the lower index adds.

    The pads with neighbours cancel in the sum of all. Its own one does not: it goes only when others release shares of
    its seed, so that an input that came too late stays hidden although everybody else's keys are known by then.

    Args:
        scope: What every pad key of the round is bound to.
        own: The party's secrets of the round, which serve this pad only.
        publics: Neighbour -> its S.
        mine: The party's index.

    Raises:
        ProtocolError: A neighbour's public key is invalid.
    """
    pairs = scope.pair_keys(own.private, publics, mine)
    plus, minus = [scope.self_key(own.seed, mine)], list[bytes]()
    for other, key in pairs.items():
        (plus if other > mine else minus).append(key)
    return Pad(plus, minus)


def self_commitment(sid: bytes, number: Round, owner: int, seed: bytes) -> bytes:
    """Returns h, what a party publishes of its seed b.

    Args:
        sid: Session id.
        number: Round.
        owner: The party's index.
        seed: b, 32 bytes.
    """
    return digest("selfcommit", sid, number, owner, seed)
