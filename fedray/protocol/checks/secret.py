# SPDX-License-Identifier: Apache-2.0
"""g, the secret that the owners of one session share and the server does not know, and what comes of it each round.

The first owner draws it and deals it inside its Confirm, one sealed copy for every other owner. Whoever holds g can
make the check of any sum: one owner that tells it the server is an ally of the server's, whoever has dealt it.

Knows keys and places. Does not know words, messages of rounds, nor rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedray.errors import ProtocolError
from fedray.protocol.checks.inner_product import COLUMNS, InnerProduct, limbs
from fedray.protocol.config import Config
from fedray.protocol.crypto.field import ELEMENT_BYTES, PRIME, elements
from fedray.protocol.crypto.keys import Guarded, Roster, kdf
from fedray.protocol.crypto.keystream import Keystream
from fedray.protocol.messages import enc
from fedray.types import Round

SECRET_BYTES = 32
SEALED_BYTES = SECRET_BYTES + 16
_NONCE = b"gsum" + bytes(8)  # of every channel once; no number of a batch or a round begins with these four bytes


def owners_of(config: Config, roster: Roster) -> tuple[int, ...]:
    """Returns the places of those who contribute, and so hold g; the first of them deals it."""
    return tuple(roster.index(name) for name in (config.owners or roster.names))


def deal(secret: bytes, sid: bytes, channels: Mapping[int, bytes], owners: Sequence[int]) -> bytes:
    """Returns g for every owner but the first, each copy sealed, joined in the owners' order.

    Args:
        secret: g, 32 bytes.
        sid: Session id.
        channels: Other place -> key of the channel from the first owner.
        owners: Places of all owners.
    """
    dealer, *others = owners
    sealed = (ChaCha20Poly1305(channels[j]).encrypt(_NONCE, secret, _scope(sid, dealer, j)) for j in others)
    return b"".join(sealed)


def receive(dealt: bytes, sid: bytes, channel: bytes, owners: Sequence[int], own: int) -> bytes:
    """Returns g, as the first owner dealt it to another one.

    Args:
        dealt: What the first owner's Confirm brought, of the right length.
        sid: Session id.
        channel: Key of the channel from the first owner.
        owners: Places of all owners.
        own: The receiver's.

    Raises:
        ProtocolError: This copy is not from the first owner, or was altered.
    """
    at = SEALED_BYTES * (owners.index(own) - 1)
    try:
        return ChaCha20Poly1305(channel).decrypt(_NONCE, dealt[at : at + SEALED_BYTES], _scope(sid, owners[0], own))
    except InvalidTag:
        raise ProtocolError("the secret for the checks of sums is not from its dealer, or was altered") from None


def _scope(sid: bytes, dealer: int, receiver: int) -> bytes:
    return enc("check-secret", sid, dealer, receiver)


class GroupSecret(Guarded):
    """g at one owner.

    Attributes:
        confirm: What enters every context: owners that were dealt another g have other pads, and their sum is noise.
    """

    def __init__(self, secret: bytes, sid: bytes, places: int) -> None:
        """Takes what was dealt.

        Args:
            secret: g, 32 bytes.
            sid: Session id.
            places: Parties of the roster.
        """
        self._secret, self._sid, self._places = secret, sid, places
        self.confirm = kdf(secret, sid, enc("check-confirm"))

    def checks(self, scheme: str, over: bytes, number: Round, ctx: bytes, size: int, bits: int) -> RoundChecks:
        """Returns the coefficients and offsets of one round.

        Args:
            scheme: The scheme.
            over: Names the set of parties, or the keys, that the round's sum is over.
            number: The round.
            ctx: Hash of all that the inputs depend on.
            size: Words L of the vector.
            bits: Bits l of a word.
        """
        info = enc("checks", scheme, over, number, ctx, size, bits)
        return RoundChecks(kdf(self._secret, self._sid, info), self._places, size)


class RoundChecks(Guarded):
    """Coefficients and offsets of one round: the stream of one key, first an offset for each place of the roster."""

    def __init__(self, key: bytes, places: int, size: int) -> None:
        """Takes the key.

        Args:
            key: 32 bytes.
            places: Parties of the roster.
            size: Words L of the vector.
        """
        self._key = key
        # All at once, and for both products of a round, a party's own words' and the sum's: for short vectors the
        # calls cost more than the numbers, and for long ones the coefficients are a hundredth of the vector.
        drawn = elements(Keystream(key).read((places + COLUMNS + -(-size // COLUMNS)) * ELEMENT_BYTES))
        self._offsets, coefficients = drawn[:places].tolist(), limbs(drawn[places:])
        self._columns, self._rows = coefficients[:COLUMNS], coefficients[COLUMNS:]

    def product(self) -> InnerProduct:
        """Returns an inner product with this round's coefficients, of which nothing was taken yet."""
        return InnerProduct(self._columns, self._rows)

    def check(self, product: InnerProduct, members: Iterable[int]) -> int:
        """Returns the check of a vector, or of a sum: its inner product and the offsets of those whose words are in it.

        Args:
            product: The inner product with it.
            members: Places of these parties.
        """
        offsets: int = sum(self._offsets[place] for place in members)
        return (product.result() + offsets) % PRIME
