# SPDX-License-Identifier: Apache-2.0
"""One party's side of the set-up of a batch of rounds (SECAGG section 6, B1 to B3), and the secrets it leaves behind.

A state machine of byte messages: `keys` begins it, `step` answers each message that the coordinator relays. Knows the
party's channels and whose neighbour it is. Does not know data, models, nor whether rounds are under way meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Guarded, sign, verify
from fedray.protocol.crypto.shamir import SHARE_BYTES, split
from fedray.protocol.messages import dec_list, enc, purpose_of
from fedray.protocol.recovery.key_directory import Directory
from fedray.protocol.recovery.key_messages import Ack, Dealt, Keys, Sharing
from fedray.protocol.recovery.pads import RoundSecrets, self_commitment
from fedray.protocol.recovery.round_messages import PAIR, SELF
from fedray.protocol.recovery.session import RecoverySession
from fedray.types import Round


class KeyBatch(Guarded):
    """What one party holds for a batch that is ready: its own secrets, and shares of its neighbours' and its own.

    Attributes:
        directory: The public side.
    """

    def __init__(
        self,
        directory: Directory,
        around: Mapping[Round, Mapping[int, bytes]],
        own: Mapping[Round, RoundSecrets],
        shares: Mapping[Round, dict[int, bytearray]],
    ) -> None:
        """Takes what set-up has left.

        Args:
            directory: The public side.
            around: Round -> neighbour -> its public key S.
            own: Round -> this party's secrets.
            shares: Round -> owner -> the share of its s, then that of its b.
        """
        self.directory = directory
        self._around, self._own, self._shares = around, dict(own), dict(shares)

    def take(self, number: Round) -> tuple[RoundSecrets, Mapping[int, bytes]]:
        """Returns this party's secrets of one round and forgets them; and the public key S of each neighbour.

        Raises:
            ProtocolError: They were used or erased.
        """
        if number not in self._own:
            raise ProtocolError(f"the secrets of round {number} were used or erased")
        return self._own.pop(number), self._around[number]

    def release(self, number: Round, survivors: Collection[int]) -> tuple[tuple[int, ...], bytes, tuple[bytes, ...]]:
        """Returns one share of each owner, of its seed b if it survived, else of its pair key s; then erases all.

        Never both: who has t_share of each opens an input. What is released once is gone here.

        Args:
            number: The round.
            survivors: Whose inputs are opened.

        Returns:
            The owners in order, `SELF` or `PAIR` for each, and the shares, 33 bytes each.
        """
        owners, kinds, shares = list[int](), bytearray(), list[bytes]()
        for owner, pair in sorted(self._shares.get(number, {}).items()):
            survived = owner in survivors
            owners.append(owner)
            kinds.append(SELF if survived else PAIR)
            shares.append(bytes(pair[SHARE_BYTES:] if survived else pair[:SHARE_BYTES]))
        self.erase(number)
        return tuple(owners), bytes(kinds), tuple(shares)

    def erase(self, number: Round) -> None:
        """Forgets the secrets of one round, and overwrites the shares."""
        self._own.pop(number, None)
        for pair in self._shares.pop(number, {}).values():
            # Overwritten where it lies; Python may have made copies, which nobody promises not to exist.
            pair[:] = bytes(len(pair))

    def erase_before(self, number: Round) -> None:
        """Forgets everything about earlier rounds."""
        for earlier in self.directory.rounds:
            if earlier < number:
                self.erase(earlier)


class KeyBatchSetUp(Guarded):
    """B1 to B3 for one batch. Each message is answered once; the same one again gets the identical bytes.

    Attributes:
        number: Number of the batch.
        rounds: The rounds it serves.
    """

    def __init__(self, session: RecoverySession, number: int, rounds: tuple[Round, ...]) -> None:
        """Draws the batch's secrets.

        Args:
            session: The party in its session; its channels carry one message per batch and direction.
            number: Number of the batch, never used before in this session: it is the nonce of the channels.
            rounds: The rounds it serves, strictly increasing.
        """
        self.number, self.rounds = number, rounds
        self._result: KeyBatch | None = None
        self._member, self._session = session.member, session.keys
        self._roster, graph = session.member.roster, session.thresholds.graph
        self._own = {r: RoundSecrets() for r in rounds}
        self._around = {r: graph.neighbours(session.ring(r), self._member.index) for r in rounds}
        self._threshold = graph.share_threshold
        self._shares: dict[Round, dict[int, bytearray]] = {r: {} for r in rounds}
        self._directory: Directory | None = None
        self._answers: dict[str, tuple[bytes, bytes | None]] = {}
        self._failed = ""
        self._keys = self._signed_keys()

    def keys(self) -> bytes:
        """Returns this party's signed Keys, the same bytes each time."""
        return self._keys

    def step(self, message: bytes) -> bytes | None:
        """Answers what the coordinator relays: all Keys, then the shares for this party, then all Acks.

        Returns:
            The next message for the coordinator, or None when the batch is ready.

        Raises:
            ProtocolError: The message is wrong or out of turn; the set-up of this batch has failed and needs a new
                number. A fault of one party or of one channel is named.
        """
        purpose = purpose_of(message)
        if purpose in self._answers and self._answers[purpose][0] == message:
            return self._answers[purpose][1]
        steps = {"keys-list": self._deal, "dealt": self._hold, "ack-list": self._finish}
        # One order, and each step once: shares sealed for a second list of keys would be under the same nonce.
        if self._failed or purpose not in steps or purpose != [*steps, ""][len(self._answers)]:
            raise self._fault(self._failed or f"{purpose!r} is out of turn, or differs from the one it answered")
        self._failed = "its set-up has failed"
        answer = steps[purpose](message)
        self._failed, self._answers[purpose] = "", (message, answer)
        return answer

    def collect(self) -> KeyBatch | None:
        """Returns the batch, once, when everybody has acknowledged it."""
        batch, self._result = self._result, None
        return batch

    def _signed_keys(self) -> bytes:
        sid, index = self._session.sid, self._session.index
        publics = tuple(own.public for own in self._own.values())
        commitments = tuple(self_commitment(sid, r, index, own.seed) for r, own in self._own.items())
        unsigned = Keys(sid, self.number, index, self.rounds, publics, commitments)
        return replace(unsigned, signature=sign(self._member.identity, unsigned.statement)).encode()

    def _deal(self, message: bytes) -> bytes:
        """B2: shares of this party's secrets, sealed for each neighbour."""
        signed = dec_list("keys-list", message, bytes, len(self._roster.names))
        directory = Directory.check(self._roster, self._session.sid, self.number, signed)
        # Else others would mask with a key that this party does not have, or that somebody else has.
        if signed[self._session.index] != self._keys:
            raise self._fault("its own Keys were altered on the way")
        self._directory = directory
        pairs = self._split()
        sealed = [b""] * len(self._roster.names)
        for holder, held in pairs.items():
            sealed[holder] = self._seal(holder, held)
        return Dealt(self._session.sid, self.number, self._session.index, tuple(sealed)).encode()

    def _split(self) -> dict[int, list[bytes]]:
        """Splits every secret; keeps this party's own shares and returns those of the others, in order of rounds."""
        me, pairs = self._session.index, dict[int, list[bytes]]()
        for number, own in self._own.items():
            holders = sorted((*self._around[number], me))
            places = [j + 1 for j in holders]
            private = split(own.private.private_bytes_raw(), self._threshold, places)
            seed = split(own.seed, self._threshold, places)
            for holder, s, b in zip(holders, private, seed, strict=True):
                if holder == me:
                    self._shares[number][me] = bytearray(s + b)
                else:
                    pairs.setdefault(holder, []).append(s + b)
        return pairs

    def _seal(self, holder: int, pairs: list[bytes]) -> bytes:
        me = self._session.index
        plain = Sharing(self.number, me, holder, holder + 1, tuple(pairs)).encode()
        cipher = ChaCha20Poly1305(self._session.sending[holder])
        return cipher.encrypt(self._nonce(), plain, self._associated(me, holder))

    def _hold(self, message: bytes) -> bytes:
        """B3: opens the shares of all neighbours and acknowledges them."""
        dealt, me = Dealt.decode(message), self._session.index
        if (dealt.sid, dealt.batch, dealt.index) != (self._session.sid, self.number, me):
            raise self._fault("these shares are for another session, batch or party")
        shared = {j: [r for r in self.rounds if j in self._around[r]] for j in range(len(self._roster.names))}
        if len(dealt.sealed) != len(shared):
            raise self._fault(f"expected shares from {len(shared)} places, found {len(dealt.sealed)}")
        for owner, rounds in shared.items():
            if not rounds:
                continue
            for number, pair in zip(rounds, self._opened(owner, dealt.sealed[owner], len(rounds)), strict=True):
                self._shares[number][owner] = bytearray(pair)
        directory = self._public()
        signature = sign(self._member.identity, directory.ack_statement)
        return Ack(self._session.sid, self.number, directory.digest, me, signature).encode()

    def _opened(self, owner: int, sealed: bytes, count: int) -> tuple[bytes, ...]:
        me, name = self._session.index, self._roster.names[owner]
        cipher = ChaCha20Poly1305(self._session.receiving[owner])
        try:
            plain = cipher.decrypt(self._nonce(), sealed, self._associated(owner, me))
        except InvalidTag:
            raise self._fault(f"complaint about the channel from {name}: its shares do not open") from None
        sharing = Sharing.decode(plain)
        found = (sharing.batch, sharing.owner, sharing.holder, sharing.abscissa, len(sharing.pairs))
        if found != (self.number, owner, me, me + 1, count):
            raise self._fault(f"complaint about {name}: its shares are for another batch, party, place or round")
        return sharing.pairs

    def _finish(self, message: bytes) -> None:
        """Checks that the full roster acknowledged the same Keys."""
        directory, names = self._public(), self._roster.names
        acks = [Ack.decode(data) for data in dec_list("ack-list", message, bytes, len(names))]
        # The full roster: with one party missing, the coordinator could have shown it other keys.
        if [ack.index for ack in acks] != list(range(len(names))):
            raise self._fault(f"expected an acknowledgement of each of {len(names)} parties, in order")
        for ack, name, key in zip(acks, names, self._roster.keys, strict=True):
            if ack.statement != directory.ack_statement or not verify(key, directory.ack_statement, ack.signature):
                raise self._fault(f"{name} acknowledged other Keys, or did not sign")
        around = {r: directory.publics(neighbours, r) for r, neighbours in self._around.items()}
        self._result = KeyBatch(directory, around, self._own, self._shares)
        self._own, self._shares = {}, {}

    def _public(self) -> Directory:
        if self._directory is None:
            raise self._fault("all Keys come first")
        return self._directory

    def _nonce(self) -> bytes:
        return self.number.to_bytes(12, "big")

    def _associated(self, owner: int, holder: int) -> bytes:
        return enc("shares", self._session.sid, self.number, self._public().digest, owner, holder)

    def _fault(self, message: str) -> ProtocolError:
        return self._member.fault(f"batch {self.number}: {message}")
