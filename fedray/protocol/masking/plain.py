# SPDX-License-Identifier: Apache-2.0
"""No protection, same shape: the baseline. The words of part A, unmasked, so that both sums are equal bit by bit.

Knows no keys and no limits: one party is allowed, and whoever takes the messages can read them.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.masking.frame import RingShield
from fedray.protocol.masking.rounds import Rounds
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import HASH_BYTES, dec, digest, enc
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Manifest, RoundContext
from fedray.types import PartyName, Round


class PlainShield(RingShield):
    """The contributing party's end without protection."""

    def __init__(
        self,
        config: Config,
        name: PartyName,
        identity: Ed25519PrivateKey | None,
        roster: Roster,
        policy: Policy,
        memory: ModelMemory | None,
    ) -> None:
        """Takes the agreed settings.

        Args:
            config: What the coordinator proposes.
            name: The party's own name.
            identity: Not used: nothing is signed.
            roster: Its own copy of the roster.
            policy: Whether sums without protection are accepted, and values beyond the clip bound refused; nothing
                else of it applies.
            memory: Not used: there is no limit to keep.

        Raises:
            ProtocolError: The Config is for another scheme or another roster, or the policy wants protection.
        """
        del identity, memory
        if not policy.unprotected:
            raise ProtocolError(
                f"{name}: its policy accepts no sum without protection (unprotected); use SecureAggregator"
            )
        if config.scheme != "plain" or config.roster != roster.hash:
            raise ProtocolError(f"{name}: expected a Config for part 'plain' and this party's roster")
        super().__init__(config, name, roster, refuse_overflow=policy.refuse_overflow)
        self._session = digest("plain-sid", config.encode())
        self._confirmed = False

    def hello(self) -> bytes:
        """Returns the party's place and the hash of its Config."""
        return enc("plain-hello", self._config.hash, self._index)

    def confirm(self, hellos: Sequence[bytes]) -> bytes:
        """Checks that everybody has the same Config.

        Raises:
            ProtocolError: Somebody has not, or is missing.
        """
        places = [self._place(hello, "plain-hello", self._config.hash) for hello in hellos]
        if places != list(range(self._config.parties)):
            raise ProtocolError(f"{self._name}: expected one Hello per party in roster order, found {places}")
        self._confirmed = True
        return enc("plain-confirm", self._session, self._index)

    def start(self, confirms: Sequence[bytes]) -> None:
        """Begins the session with all parties.

        Raises:
            ProtocolError: A Confirm is missing or for another session.
        """
        places = [self._place(confirm, "plain-confirm", self._session) for confirm in confirms]
        if not self._confirmed or places != list(range(self._config.parties)):
            raise ProtocolError(f"{self._name}: expected one Confirm per party in roster order, found {places}")
        self._rounds = Rounds(self._config, self._name, self._roster, self._session)

    def _place(self, data: bytes, purpose: str, expected: bytes) -> int:
        found, place = dec(purpose, data, (HASH_BYTES, int))
        if found != expected:
            raise ProtocolError(f"{self._name}: a party was given another Config")
        return int(place)

    @property
    def _sid(self) -> bytes:
        return self._session

    def _check(self, context: RoundContext) -> None:
        """Allows everything: nothing is hidden that a second sum could show."""

    def _record(self, context: RoundContext) -> None:
        """Remembers nothing."""

    def _pad(self, number: Round, ctx: bytes, manifest: Manifest) -> None:
        """Returns None: nothing hides the words."""

    def _close(self, number: Round) -> None:
        """There are no keys to forget."""
