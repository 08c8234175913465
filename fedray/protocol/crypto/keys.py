# SPDX-License-Identifier: Apache-2.0
"""Identities, the roster, and how one shared secret becomes many keys.

Knows Ed25519, X25519 and HKDF-SHA256, and who is who. Does not know where keys are kept or how a roster reaches a
party; that path must not run through the coordinator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedray.errors import PlanError, ProtocolError
from fedray.protocol.crypto.names import check_name
from fedray.protocol.messages import HASH_BYTES, dec, dec_list, digest, enc, enc_list
from fedray.types import PartyName

MOST_PARTIES = 1 << 14


class Guarded:
    """Base of every class that holds secrets: it is neither pickled nor copied, and its repr is written by hand."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuses.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{type(self).__name__} holds secrets: it is never pickled or copied")

    def __repr__(self) -> str:
        """Shows the class only."""
        return f"<{type(self).__name__}>"


def generate_identity() -> Ed25519PrivateKey:
    """Returns a new identity key from the operating system's randomness."""
    return Ed25519PrivateKey.generate()


def public_bytes(private: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    """Returns the 32 bytes of the public half."""
    return private.public_key().public_bytes_raw()


def sign(identity: Ed25519PrivateKey, statement: bytes) -> bytes:
    """Returns the Ed25519 signature, 64 bytes."""
    return identity.sign(statement)


def verify(public: bytes, statement: bytes, signature: bytes) -> bool:
    """Returns whether the signature over the statement is valid under the 32-byte public key.

    Args:
        public: Ed25519 public key, 32 bytes.
        statement: What was signed.
        signature: 64 bytes; of any other length it is not valid.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True


def kdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Returns HKDF-SHA256 of a secret, 32 bytes.

    Args:
        secret: Input keying material.
        salt: What the session or batch has in common.
        info: What the key is for: one secret and salt give unrelated keys for different ones.
    """
    return HKDF(SHA256(), 32, salt, info).derive(secret)


def fingerprint(public: bytes) -> str:
    """Returns 128 bits of a public key's hash in groups of four digits, to be compared by people."""
    text = digest("fingerprint", public).hex()[:32]
    return " ".join(text[at : at + 4] for at in range(0, 32, 4))


def exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    """Returns the X25519 shared secret, 32 bytes.

    Raises:
        ProtocolError: The other key is one that forces the secret to zero, or is no key.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ProtocolError("an X25519 public key is invalid: the shared secret would be zero") from None


@dataclass(frozen=True, slots=True)
class Roster:
    """Who takes part: names with their Ed25519 keys, in the order of the names' UTF-8 bytes.

    Attributes:
        names: Party names, unique, in order.
        keys: Their Ed25519 public keys, 32 bytes each, unique.
    """

    names: tuple[PartyName, ...]
    keys: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.keys) or len(self.names) > MOST_PARTIES:
            raise PlanError(
                f"a roster has 1 to {MOST_PARTIES} parties with one key each, "
                f"found {len(self.names)} names and {len(self.keys)} keys"
            )
        for name in self.names:
            check_name(name)
        # By UTF-8 bytes: every language sorts text in its own way, and the place is in every key.
        if list(self.names) != sorted(set(self.names), key=str.encode):
            raise PlanError(f"a roster's names must be unique and in UTF-8 order, found {self.names}: use Roster.of")
        if any(not isinstance(k, bytes) or len(k) != 32 for k in self.keys) or len(set(self.keys)) != len(self.keys):
            raise PlanError("a roster's keys must be different Ed25519 public keys of 32 bytes")

    @classmethod
    def of(cls, keys: Mapping[PartyName, bytes]) -> Roster:
        """Returns the roster of these parties, whatever their order in the mapping.

        Raises:
            PlanError: A name or key is not acceptable, or two are equal.
        """
        for name in keys:
            check_name(name)
        names = tuple(sorted(keys, key=str.encode))
        return cls(names, tuple(keys[n] for n in names))

    def differences(self, found: Mapping[PartyName, bytes]) -> list[str]:
        """Returns how other keys of the same parties, or of some of them, differ from these; one line for each."""
        mine = dict(zip(self.names, self.keys, strict=True))
        lines = []
        for name, key in found.items():
            if name not in mine:
                lines.append(f"{name!r} is not in it")
            elif mine[name] != key:
                theirs, ours = fingerprint(key), fingerprint(mine[name])
                lines.append(f"the key of {name!r} has fingerprint {theirs}, in the roster it is {ours}")
        return lines

    @property
    def hash(self) -> bytes:
        """SHA-256 over names and keys; parties compare it before they trust a session."""
        return digest("roster", self.encode())

    def index(self, name: PartyName) -> int:
        """Returns a party's place.

        Raises:
            ProtocolError: The roster does not name it.
        """
        if name not in self.names:
            raise ProtocolError(f"{name!r} is not in the roster {self.names}")
        return self.names.index(name)

    def subset(self, names: Iterable[PartyName]) -> Roster:
        """Returns the roster of some of the parties.

        Raises:
            ProtocolError: A name is not in the roster.
        """
        return Roster.of({n: self.keys[self.index(n)] for n in names})

    def encode(self) -> bytes:
        """Returns canonical bytes."""
        return enc("roster-list", enc_list("roster-names", self.names), enc_list("roster-keys", self.keys))

    @classmethod
    def decode(cls, data: bytes) -> Roster:
        """Parses canonical bytes.

        Raises:
            EncodingError: They are not a roster's bytes.
            PlanError: They name an unacceptable roster.
        """
        names, keys = dec("roster-list", data, (bytes, bytes))
        return cls(
            tuple(dec_list("roster-names", names, str, MOST_PARTIES)),
            tuple(dec_list("roster-keys", keys, HASH_BYTES, MOST_PARTIES)),
        )
