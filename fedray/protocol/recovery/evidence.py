# SPDX-License-Identifier: Apache-2.0
"""Evidence: statements that a party signed, kept so that others can see for themselves what it did.

Knows what the bytes prove to somebody who has the party's public key, and nothing of who shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import verify
from fedray.protocol.messages import HASH_BYTES, SIGNATURE_BYTES, dec, enc, purpose_of
from fedray.protocol.recovery.round_messages import Survive, unpack_indices


@dataclass(frozen=True, slots=True)
class TwoInputs:
    """Two different masked inputs that one party signed for one round: what no party does that keeps to the protocol.

    Attributes:
        first: `MaskedInput.statement` of the one that came first.
        first_signature: Ed25519 over it.
        second: The other one.
        second_signature: Ed25519 over that.
    """

    first: bytes
    first_signature: bytes
    second: bytes
    second_signature: bytes

    def encode(self) -> bytes:
        """Returns the bytes that are kept."""
        return enc("two-inputs", self.first, self.first_signature, self.second, self.second_signature)

    @classmethod
    def decode(cls, data: bytes) -> TwoInputs:
        """Parses what is kept.

        Raises:
            EncodingError: It is no such evidence.
        """
        return cls(*dec("two-inputs", data, (bytes, SIGNATURE_BYTES, bytes, SIGNATURE_BYTES)))


def proves(evidence: bytes, key: bytes) -> str:
    """Returns what a party's signed statements prove to whoever knows its public key, in words.

    Args:
        evidence: `Fault.evidence`.
        key: The party's public identity key, 32 bytes.

    Raises:
        EncodingError: It is no evidence.
        ProtocolError: The holder of that key did not sign it, or it proves nothing.
    """
    if purpose_of(evidence) == "two-inputs":
        two = TwoInputs.decode(evidence)
        _check(key, (two.first, two.first_signature), (two.second, two.second_signature))
        shape = (HASH_BYTES, int, int, HASH_BYTES, int, int, HASH_BYTES)
        first, second = dec("masked", two.first, shape), dec("masked", two.second, shape)
        if first[:3] != second[:3] or first == second:
            raise ProtocolError("evidence: expected two different inputs of one party for one round, found others")
        return f"it signed two different masked inputs for round {first[1]}"
    survive = Survive.decode(evidence)
    _check(key, (survive.statement, survive.signature))
    _, number, _, members, _ = dec("survive", survive.statement, (HASH_BYTES, int, HASH_BYTES, bytes, HASH_BYTES))
    places = ", ".join(map(str, unpack_indices("survive", members)))
    return f"it signed that round {number} is opened over the parties at the places {places} of the roster"


def _check(key: bytes, *signed: tuple[bytes, bytes]) -> None:
    if not all(verify(key, statement, signature) for statement, signature in signed):
        raise ProtocolError("evidence: expected statements that are signed with the party's key, found others")
