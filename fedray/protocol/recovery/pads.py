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
from fedray.protocol.messages import digest, enc
from fedray.types import Round


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
            ProtocolError: A public key is invalid.
        """
        shared = {}
        for other, public in publics.items():
            try:
                shared[other] = exchange(private, public)
            except ProtocolError as error:
                raise ProtocolError(f"the party in place {other}: {error}") from None
        scope = (self.ctx, self.size, self.bits)
        infos = {j: enc("pair", self.sid, self.number, min(mine, j), max(mine, j), *scope) for j in shared}
        return {j: kdf(secret, self.batch_digest, infos[j]) for j, secret in shared.items()}

    def self_key(self, secret: bytes, owner: int) -> bytes:
        """Returns the key k_i of a party's own pad."""
        info = enc("self", self.sid, self.number, owner, self.ctx, self.size, self.bits)
        return kdf(secret, self.batch_digest, info)


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


def self_commitment(sid: bytes, number: Round, owner: int, seed: bytes) -> bytes:
    """Returns h, what a party publishes of its seed b."""
    return digest("selfcommit", sid, number, owner, seed)
