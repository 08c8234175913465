# SPDX-License-Identifier: Apache-2.0
"""S2 to S4: from a Config and a roster to session keys, for every scheme that has keys.

Knows Hellos, Confirms and the rule that a Hello serves one session. Does not know what the keys are used for, nor how
the bytes travel. Any fault ends the set-up; the next one starts with a new object.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.checks.secret import SEALED_BYTES, SECRET_BYTES, GroupSecret, deal, owners_of, receive
from fedray.protocol.config import Config, SchemeName
from fedray.protocol.crypto.keys import Guarded, exchange, kdf, public_bytes, sign, verify
from fedray.protocol.member import Member
from fedray.protocol.messages import Confirm, Hello, digest, enc
from fedray.protocol.scheme import Joining

End = TypeVar("End")
EndOfSession = TypeVar("EndOfSession", covariant=True)


class SessionKeys(Guarded):
    """What one party holds after set-up.

    Attributes:
        sid: Session id.
        gseed: Seed of the graph, the same at all parties.
        index: The party's own place in the roster.
        roots: Per other index, the secret that both ends share for pads; empty but for scheme masking.
        sending: Per other index, the key of the channel to it; empty for scheme masking, which has no channels.
        receiving: Per other index, the key of the channel from it; likewise.
        group: The secret for the checks of sums; None for a party that contributes nothing.
    """

    def __init__(
        self,
        scheme: SchemeName,
        sid: bytes,
        gseed: bytes,
        index: int,
        shared: Mapping[int, bytes],
        group: GroupSecret | None,
    ) -> None:
        """Takes what is agreed.

        Args:
            scheme: Which keys are needed.
            sid: Session id.
            gseed: Seed of the graph.
            index: The party's own place in the roster.
            shared: Other place -> X25519 shared secret.
            group: The secret for the checks of sums, where the party contributes.
        """
        self.sid, self.gseed, self.index, self.group = sid, gseed, index, group
        self.roots: dict[int, bytes] = {}
        self.sending: dict[int, bytes] = {}
        self.receiving: dict[int, bytes] = {}
        # A key that nobody needs is one more to be stolen.
        if scheme == "masking":
            self.roots = {
                j: kdf(secret, sid, enc("pairroot", min(index, j), max(index, j))) for j, secret in shared.items()
            }
        else:
            self.sending = {j: _channel(secret, sid, index, j) for j, secret in shared.items()}
            self.receiving = {j: _channel(secret, sid, j, index) for j, secret in shared.items()}


class Handshake(Guarded, Generic[End]):
    """One party's way into a session with keys: `hello`, `confirm`, `start`, in this order and once."""

    def __init__(self, config: Config, member: Member, make: Callable[[SessionKeys], End]) -> None:
        """Checks the Config and draws this session's secrets.

        Args:
            config: What the coordinator proposes.
            member: The party.
            make: What becomes of the session's keys: the party's end.

        Raises:
            ProtocolError: The policy refuses the Config, or too many set-ups were left unfinished.
        """
        member.policy.accept(config, member.roster)
        if config.scheme == "recovery":  # only there can who answers last choose something: the graph
            member.memory.begin(member.roster.hash, member.policy.attempts)
        self._config, self._member, self._make = config, member, make
        self._private: X25519PrivateKey | None = X25519PrivateKey.generate()
        self._reveal = secrets.token_bytes(32)
        self._stage: Literal["new", "confirmed", "started", "failed"] = "new"
        self._hello = self._make_hello(public_bytes(self._private))
        self._hellos: tuple[bytes, ...] = ()
        self._owners = owners_of(config, member.roster)
        self._shared: dict[int, bytes] = {}
        self._secret = b""
        self._commitments: tuple[bytes, ...] = ()
        self._confirm = b""
        self.sid = b""

    def _make_hello(self, public: bytes) -> bytes:
        commitment = digest("commit", self._member.index, self._reveal)
        body = Hello(self._config.hash, self._member.index, public, commitment, bytes(64))
        return replace(body, signature=sign(self._member.identity, body.statement)).encode()

    def hello(self) -> bytes:
        """Returns the signed Hello, the same bytes each time."""
        return self._hello

    def confirm(self, hellos: Sequence[bytes]) -> bytes:
        """Checks all Hellos and returns the signed Confirm; the same Hellos again get the same bytes.

        Args:
            hellos: One per party, in roster order.

        Raises:
            ProtocolError: A Hello is missing, wrong or altered, a key in one is invalid, or this party's own one
                already served.
        """
        given = tuple(hellos)
        if self._stage == "confirmed" and given == self._hellos:
            return self._confirm
        self._enter("new", "a Hello serves one session: these Hellos are a second set around it")
        decoded = self._checked_hellos(given)
        self._commitments = tuple(h.commitment for h in decoded)
        # Without the signatures: a second valid signature under one statement must not make a second session.
        statements = (h.statement for h in decoded)
        self.sid = digest("sid", self._config.encode(), *statements)
        self._exchange([h.public for h in decoded])
        body = Confirm(self.sid, self._member.index, self._reveal, self._deal(), bytes(64))
        self._confirm = replace(body, signature=sign(self._member.identity, body.statement)).encode()
        self._hellos, self._stage = given, "confirmed"
        return self._confirm

    def start(self, confirms: Sequence[bytes]) -> End:
        """Checks all Confirms, derives the session's keys, and returns the party's end.

        Args:
            confirms: One per party, in roster order.

        Raises:
            ProtocolError: A Confirm is missing, wrong, or for another session.
        """
        self._enter("confirmed", "Confirms were not expected now")
        member = self._member
        if len(confirms) != len(member.roster.names):
            raise member.fault(f"expected {len(member.roster.names)} Confirms, found {len(confirms)}")
        decoded = [self._checked_confirm(i, data) for i, data in enumerate(confirms)]
        group = self._group(decoded[self._owners[0]].dealt)
        # Taken out before it is used: no second call, and no error half-way, finds it again.
        shared, self._shared = self._shared, {}
        self._stage = "started"
        if self._config.scheme == "recovery":
            member.memory.finish(member.roster.hash)
        gseed = digest("graph", self.sid, *(confirm.reveal for confirm in decoded))
        return self._make(SessionKeys(self._config.scheme, self.sid, gseed, member.index, shared, group))

    def _exchange(self, publics: Sequence[bytes]) -> None:
        """Makes the secrets that this party shares with each other one, and forgets its private key."""
        private, self._private = self._private, None
        if private is None:
            raise self._member.fault("this set-up's key is gone")
        self._shared = {j: exchange(private, key) for j, key in enumerate(publics) if j != self._member.index}

    def _deal(self) -> bytes:
        """Returns what the Confirm brings the other owners: of the first one the secret for the checks of sums."""
        dealer = self._owners[0]
        if dealer != self._member.index:
            return b""
        self._secret = secrets.token_bytes(SECRET_BYTES)
        channels = {j: _channel(self._shared[j], self.sid, dealer, j) for j in self._owners[1:]}
        return deal(self._secret, self.sid, channels, self._owners)

    def _group(self, dealt: bytes) -> GroupSecret | None:
        """Returns the secret for the checks of sums, if this party is to have it."""
        own, dealer, parties = self._member.index, self._owners[0], self._config.parties
        if own not in self._owners:
            return None
        secret, self._secret = self._secret, b""
        if own != dealer:
            channel = _channel(self._shared[dealer], self.sid, dealer, own)
            try:
                secret = receive(dealt, self.sid, channel, self._owners, own)
            except ProtocolError as error:
                raise self._member.fault(f"{self._member.roster.names[dealer]}: {error}") from None
        return GroupSecret(secret, self.sid, parties)

    def _enter(self, stage: str, otherwise: str) -> None:
        """Leaves the set-up failed unless what follows succeeds."""
        if self._stage != stage:
            raise self._member.fault(f"{otherwise}; start a new set-up")
        # Set before anything is checked: whatever raises below leaves a set-up that cannot be tried again.
        self._stage = "failed"

    def _checked_hellos(self, hellos: tuple[bytes, ...]) -> list[Hello]:
        member, names = self._member, self._member.roster.names
        if len(hellos) != len(names):
            raise member.fault(f"expected {len(names)} Hellos, found {len(hellos)}")
        # Byte for byte: a Hello of this party's from an earlier session would bring that session's key back.
        if hellos[member.index] != self._hello:
            raise member.fault("its own Hello was altered on the way")
        decoded, expected = [Hello.decode(data) for data in hellos], self._config.hash
        for place, (hello, sender, key) in enumerate(zip(decoded, names, member.roster.keys, strict=True)):
            if hello.config != expected:
                raise member.fault(f"{sender} was given another Config")
            if hello.index != place or not verify(key, hello.statement, hello.signature):
                raise member.fault(f"the Hello of {sender} is not signed by it")
        # A repeated key is somebody else's, reflected; a repeated commitment would let its copier follow the original.
        if len({h.public for h in decoded}) != len(names) or len({h.commitment for h in decoded}) != len(names):
            raise member.fault("two parties sent the same key or commitment")
        return decoded

    def _checked_confirm(self, place: int, data: bytes) -> Confirm:
        member = self._member
        sender, key = member.roster.names[place], member.roster.keys[place]
        confirm = Confirm.decode(data)
        if confirm.sid != self.sid:
            raise member.fault(f"{sender} saw other Hellos")
        if confirm.index != place or not verify(key, confirm.statement, confirm.signature):
            raise member.fault(f"the Confirm of {sender} is not signed by it")
        if digest("commit", place, confirm.reveal) != self._commitments[place]:
            raise member.fault(f"{sender} did not open its commitment")
        expected = SEALED_BYTES * (len(self._owners) - 1) if place == self._owners[0] else 0
        if len(confirm.dealt) != expected:
            raise member.fault(
                f"the Confirm of {sender} brings {len(confirm.dealt)} bytes for the checks of sums, expected {expected}"
            )
        return confirm


def _channel(shared: bytes, sid: bytes, sender: int, receiver: int) -> bytes:
    return kdf(shared, sid, enc("chan", sender, receiver))


def introduce(joinings: Sequence[Joining[EndOfSession]]) -> list[EndOfSession]:
    """Runs the whole set-up among parties in one process, and returns their ends.

    Args:
        joinings: One per party, in roster order.

    Raises:
        ProtocolError: A party refuses.
    """
    hellos = [joining.hello() for joining in joinings]
    confirms = [joining.confirm(hellos) for joining in joinings]
    return [joining.start(confirms) for joining in joinings]
