# SPDX-License-Identifier: Apache-2.0
"""S2 to S4: from a Config and a roster to session keys, for every scheme that has keys.

Knows Hellos, Confirms and the rule that a Hello serves one session. Does not know what the keys are used for, nor how
the bytes travel. Any fault ends the set-up; the next one starts with a new object.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Guarded, Roster, exchange, kdf, public_bytes, sign, verify
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import Confirm, Hello, digest, enc
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Shield
from fedray.types import PartyName


class SessionKeys(Guarded):
    """What one party holds after set-up.

    Attributes:
        sid: Session id.
        gseed: Seed of the graph, the same at all parties.
        index: The party's own place in the roster.
        roots: Per other index, the secret that both ends share for pads (part A).
        sending: Per other index, the key of the channel to it.
        receiving: Per other index, the key of the channel from it.
    """

    def __init__(self, sid: bytes, gseed: bytes, index: int, shared: Mapping[int, bytes]) -> None:
        self.sid, self.gseed, self.index = sid, gseed, index
        self.roots = {
            j: kdf(secret, sid, enc("pairroot", min(index, j), max(index, j))) for j, secret in shared.items()
        }
        self.sending = {j: kdf(secret, sid, enc("chan", index, j)) for j, secret in shared.items()}
        self.receiving = {j: kdf(secret, sid, enc("chan", j, index)) for j, secret in shared.items()}


class Handshake(Guarded):
    """One party's side of one set-up: `hello`, `confirm`, `start`, in this order and once."""

    def __init__(
        self,
        config: Config,
        name: PartyName,
        identity: Ed25519PrivateKey,
        roster: Roster,
        policy: Policy,
        memory: ModelMemory,
    ) -> None:
        """Checks the Config and draws this session's secrets.

        Raises:
            ProtocolError: The policy refuses the Config, the roster holds another key for this party, or too many
                set-ups were left unfinished.
        """
        policy.accept(config, roster)
        self.index = roster.index(name)
        if roster.keys[self.index] != public_bytes(identity):
            raise ProtocolError(f"{name}: the roster holds another identity key for this party")
        if config.scheme == "recovery":  # only there can who answers last choose something: the graph
            memory.begin(roster.hash, policy.attempts)
        self._config, self._name, self._roster, self._memory = config, name, roster, memory
        self._identity = identity
        self._private: X25519PrivateKey | None = X25519PrivateKey.generate()
        self._reveal = secrets.token_bytes(32)
        self._stage: Literal["new", "confirmed", "started", "failed"] = "new"
        self._hello = self._make_hello(public_bytes(self._private))
        self._hellos: tuple[bytes, ...] = ()
        self._publics: tuple[bytes, ...] = ()
        self._commitments: tuple[bytes, ...] = ()
        self._confirm = b""
        self.sid = b""

    def _make_hello(self, public: bytes) -> bytes:
        commitment = digest("commit", self.index, self._reveal)
        body = Hello(self._config.hash, self.index, public, commitment, bytes(64))
        signature = sign(self._identity, body.statement)
        return Hello(self._config.hash, self.index, public, commitment, signature).encode()

    def hello(self) -> bytes:
        """Returns the signed Hello, the same bytes each time."""
        return self._hello

    def confirm(self, hellos: Sequence[bytes]) -> bytes:
        """Checks all Hellos and returns the signed Confirm; the same Hellos again get the same bytes.

        Args:
            hellos: One per party, in roster order.

        Raises:
            ProtocolError: A Hello is missing, wrong or altered, or this party's own one already served.
        """
        given = tuple(hellos)
        if self._stage == "confirmed" and given == self._hellos:
            return self._confirm
        self._enter("new", "a Hello serves one session: these Hellos are a second set around it")
        decoded = self._checked_hellos(given)
        self._publics = tuple(h.public for h in decoded)
        self._commitments = tuple(h.commitment for h in decoded)
        statements = (h.statement for h in decoded)
        self.sid = digest("sid", self._config.encode(), *statements)
        body = Confirm(self.sid, self.index, self._reveal, bytes(64))
        self._confirm = Confirm(self.sid, self.index, self._reveal, sign(self._identity, body.statement)).encode()
        self._hellos, self._stage = given, "confirmed"
        return self._confirm

    def start(self, confirms: Sequence[bytes]) -> SessionKeys:
        """Checks all Confirms, derives the session's keys and forgets the private one.

        Args:
            confirms: One per party, in roster order.

        Raises:
            ProtocolError: A Confirm is missing, wrong, or for another session.
        """
        self._enter("confirmed", "Confirms were not expected now")
        if len(confirms) != len(self._roster.names):
            raise ProtocolError(f"{self._name}: expected {len(self._roster.names)} Confirms, found {len(confirms)}")
        reveals = [self._checked_confirm(i, data) for i, data in enumerate(confirms)]
        private, self._private = self._private, None
        if private is None:
            raise ProtocolError(f"{self._name}: this set-up's key is gone")
        shared = {j: exchange(private, key) for j, key in enumerate(self._publics) if j != self.index}
        self._stage = "started"
        if self._config.scheme == "recovery":
            self._memory.finish(self._roster.hash)
        return SessionKeys(self.sid, digest("graph", self.sid, *reveals), self.index, shared)

    def _enter(self, stage: str, otherwise: str) -> None:
        """Leaves the set-up failed unless what follows succeeds."""
        if self._stage != stage:
            raise ProtocolError(f"{self._name}: {otherwise}; start a new set-up")
        self._stage = "failed"

    def _checked_hellos(self, hellos: tuple[bytes, ...]) -> list[Hello]:
        names = self._roster.names
        if len(hellos) != len(names):
            raise ProtocolError(f"{self._name}: expected {len(names)} Hellos, found {len(hellos)}")
        if hellos[self.index] != self._hello:
            raise ProtocolError(f"{self._name}: its own Hello was altered on the way")
        decoded, expected = [Hello.decode(data) for data in hellos], self._config.hash
        for place, (hello, sender, key) in enumerate(zip(decoded, names, self._roster.keys, strict=True)):
            if hello.config != expected:
                raise ProtocolError(f"{self._name}: {sender} was given another Config")
            if hello.index != place or not verify(key, hello.statement, hello.signature):
                raise ProtocolError(f"{self._name}: the Hello of {sender} is not signed by it")
        if len({h.public for h in decoded}) != len(names) or len({h.commitment for h in decoded}) != len(names):
            raise ProtocolError(f"{self._name}: two parties sent the same key or commitment")
        return decoded

    def _checked_confirm(self, place: int, data: bytes) -> bytes:
        sender, key = self._roster.names[place], self._roster.keys[place]
        confirm = Confirm.decode(data)
        if confirm.sid != self.sid:
            raise ProtocolError(f"{self._name}: {sender} saw other Hellos")
        if confirm.index != place or not verify(key, confirm.statement, confirm.signature):
            raise ProtocolError(f"{self._name}: the Confirm of {sender} is not signed by it")
        if digest("commit", place, confirm.reveal) != self._commitments[place]:
            raise ProtocolError(f"{self._name}: {sender} did not open its commitment")
        return confirm.reveal


class Introduced(Guarded):
    """Base of every end that sets its session up by a handshake; what `start` makes of the keys is its own."""

    _handshake: Handshake

    def hello(self) -> bytes:
        """Returns this party's signed Hello."""
        return self._handshake.hello()

    def confirm(self, hellos: Sequence[bytes]) -> bytes:
        """Checks everybody's Hello, in roster order, and returns the signed Confirm.

        Raises:
            ProtocolError: A Hello is wrong, or this party's own one already served.
        """
        return self._handshake.confirm(hellos)


def introduce(shields: Sequence[Shield]) -> None:
    """Runs the whole set-up among shields in one process, given in roster order.

    Raises:
        ProtocolError: A shield refuses.
    """
    hellos = [shield.hello() for shield in shields]
    confirms = [shield.confirm(hellos) for shield in shields]
    for shield in shields:
        shield.start(confirms)
