# SPDX-License-Identifier: Apache-2.0
"""Scheme recovery, the summing end: adds masked inputs, fixes the survivors, gathers signatures and shares, opens.

Knows what is public, and the sum. Keeps no vector. Faults of parties are named and kept; a message that comes too late
is dropped unread.
"""

from __future__ import annotations

import numpy as np

from fedray.errors import ProtocolError
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keys import verify
from fedray.protocol.messages import Words, purpose_of
from fedray.protocol.opened import OpenedSum
from fedray.protocol.recovery.evidence import TwoInputs
from fedray.protocol.recovery.opening import Opening
from fedray.protocol.recovery.round_messages import (
    MaskedInput,
    Quorum,
    Survive,
    Survivors,
    Unmask,
)
from fedray.protocol.recovery.round_public import RoundPublic
from fedray.protocol.scheme import Fault
from fedray.types import Message, PartyName

_PURPOSES = ("mask", "signed-survive", "unmask")


class _ProvenFaultError(ProtocolError):
    """A fault with a signed statement that proves it."""

    def __init__(self, message: str, evidence: bytes) -> None:
        super().__init__(message)
        self.evidence = evidence


class RecoveryCollector:
    """One round at the server: three stages of `add` and `advance`, then `open`.

    A stage may be closed while messages are missing; `sufficient` says whether that would abort the round.

    Attributes:
        faults: What parties did wrong, in order of discovery.
        late: Whose masked input came after the round had closed; it stays masked.
    """

    def __init__(self, public: RoundPublic) -> None:
        self.faults: list[Fault] = []
        self.late: list[PartyName] = []
        self._public = public
        self._stage = 0
        self._hashes: dict[int, tuple[bytes, bytes]] = {}
        self._signed: dict[int, tuple[bytes, bytes]] = {}
        self._totals: dict[bytes, Words] = {}
        self._checks: dict[bytes, int] = {}
        self._survivors: Survivors | None = None
        self._signatures: dict[int, bytes] = {}
        self._opening: Opening | None = None
        self._opened: OpenedSum | None = None

    def add(self, sender: PartyName, message: Message) -> None:
        """Takes one message of the current stage; the same one again, or one of an earlier stage, changes nothing.

        Raises:
            ProtocolError: The message is not what its sender owes at this stage; the sender counts as silent, and the
                fault is kept.
        """
        public = self._public
        place = public.roster.index(sender)
        try:
            purpose = purpose_of(message)
            # Of an earlier stage: a retry whose answer was lost, or an input that came too late. Both are left unread.
            if purpose in _PURPOSES[: self._stage]:
                if purpose == "mask" and place not in self._members:
                    self.late.append(sender)
                return
            if self._stage >= len(_PURPOSES) or purpose != _PURPOSES[self._stage]:
                raise ProtocolError(f"{purpose!r} is out of turn")
            if self._stage == 0:
                self._add_input(place, message)
            elif place not in self._members:
                raise ProtocolError("not among the survivors of this round")
            elif self._stage == 1:
                self._add_signature(place, bytes(message))
            else:
                self._add_shares(place, bytes(message))
        except ProtocolError as error:
            evidence = error.evidence if isinstance(error, _ProvenFaultError) else b""
            self.faults.append(Fault(public.number, sender, str(error), evidence))
            raise ProtocolError(f"{sender}: round {public.number}: {error}") from None

    def missing(self) -> frozenset[PartyName]:
        """Returns whose message of the current stage is still awaited."""
        names = self._public.roster.names
        if self._stage == 0:
            return frozenset(names) - {names[i] for i in self._hashes}
        heard = set(self._signatures) if self._stage == 1 else self._opened_by
        return frozenset(names[i] for i in self._members if i not in heard)

    def sufficient(self) -> bool:
        """Returns whether the current stage may be closed without those who are missing."""
        try:
            self._check_stage()
        except ProtocolError:
            return False
        return True

    def advance(self) -> bytes | None:
        """Closes the current stage: returns the survivors to sign, then the quorum, then None: the sum can be opened.

        Raises:
            ProtocolError: Too few answered: the round is aborted and nothing is opened.
        """
        self._check_stage()
        self._stage += 1
        if self._stage == 1:
            return self._close_inputs().encode()
        if self._stage == 2:
            return self._close_signatures().encode()
        return None

    def open(self) -> OpenedSum:
        """Returns the sum over the survivors.

        Raises:
            ProtocolError: The round is not that far, a secret cannot be reconstructed, or the sum is noise.
        """
        if self._opened is not None:
            return self._opened
        if self._stage < len(_PURPOSES) or self._survivors is None:
            raise ProtocolError(f"round {self._public.number} is not ready to be opened")
        # Tried once: opening overwrites the total.
        opening, self._opening = self._opening, None
        if opening is None:
            raise ProtocolError(f"round {self._public.number} was tried before and did not open")
        total, check = self._totals.pop(self._survivors.ctx), self._checks[self._survivors.ctx]
        try:
            self._opened = opening.open(total, check)
        finally:
            names = self._public.roster.names
            self.faults += [Fault(self._public.number, names[i], what) for i, what in opening.faulty.items()]
        return self._opened

    @property
    def _members(self) -> tuple[int, ...]:
        return self._survivors.members if self._survivors else ()

    @property
    def _opened_by(self) -> set[int]:
        return self._opening.holders if self._opening else set()

    def _add_input(self, place: int, message: Message) -> None:
        public, masked = self._public, MaskedInput.decode(message)
        size, bits = public.manifest.words(public.config.contributors), public.config.encoding.ring
        found = (masked.sid, masked.number, masked.index, len(masked.words), masked.words.itemsize * 8)
        if found != (public.sid, public.number, place, size, bits):
            raise ProtocolError(f"a masked input of another session, round, party, length or ring: {found[1:]}")
        if masked.hash() != masked.words_hash:
            raise ProtocolError("the hash of its masked input is wrong")
        if not verify(public.roster.keys[place], masked.statement, masked.signature):
            raise ProtocolError("its masked input is not signed by it")
        sent = (masked.ctx, masked.words_hash)
        # Two signed inputs for one round are proof; the first one counts.
        if place in self._hashes:
            if self._hashes[place] != sent:
                both = TwoInputs(*self._signed[place], masked.statement, masked.signature)
                raise _ProvenFaultError("a second, different masked input", both.encode())
            return
        if masked.ctx in self._totals:
            np.add(self._totals[masked.ctx], masked.words, out=self._totals[masked.ctx])
        # One total for the honest context and one for each liar: more would let one party fill the memory.
        elif len(self._totals) <= public.thresholds.colluders:
            self._totals[masked.ctx] = masked.words.copy()
        else:
            raise ProtocolError(
                f"a further context: honest parties agree on one, colluders make at most {len(self._totals)}"
            )
        self._checks[masked.ctx] = (self._checks.get(masked.ctx, 0) + masked.check) % PRIME
        self._hashes[place], self._signed[place] = sent, (masked.statement, masked.signature)

    def _check_stage(self) -> None:
        public = self._public
        if self._stage == 0:
            try:
                public.thresholds.check_survivors(self._usual()[1], public.ring)
            except ProtocolError as error:
                raise ProtocolError(f"round {public.number} is aborted: {error}") from None
        elif self._stage == 1 and len(self._signatures) < public.thresholds.signatures:
            raise ProtocolError(
                f"round {public.number} is aborted: {len(self._signatures)} signatures, expected at least "
                f"{public.thresholds.signatures}; missing {sorted(self.missing())}"
            )
        elif self._stage == 2 and self._opening is not None:
            self._opening.check()
        elif self._stage > 2:
            raise ProtocolError(f"round {public.number} has no further stage")

    def _usual(self) -> tuple[bytes, tuple[int, ...]]:
        """Returns the context that most parties share, and who they are."""
        by_context = {ctx: tuple(i for i in sorted(self._hashes) if self._hashes[i][0] == ctx) for ctx in self._totals}
        return max(by_context.items(), key=lambda item: len(item[1]), default=(b"", ()))

    def _close_inputs(self) -> Survivors:
        public, (ctx, members) = self._public, self._usual()
        for other in sorted(set(self._hashes) - set(members)):
            what = "was told another model or settings than the others"
            self.faults.append(Fault(public.number, public.roster.names[other], what))
        # The others' sums can never be opened: nobody signs for their context.
        self._totals = {ctx: self._totals[ctx]}
        hashes = tuple(self._hashes[i][1] for i in members)
        self._survivors = Survivors(public.sid, public.number, ctx, members, hashes)
        return self._survivors

    def _add_signature(self, place: int, message: bytes) -> None:
        public, survive = self._public, Survive.decode(message)
        key = public.roster.keys[place]
        if survive.index != place or not verify(key, survive.statement, survive.signature):
            raise ProtocolError("its statement is not signed by it")
        if self._survivors is None or survive.statement != self._survivors.statement:
            raise _ProvenFaultError("it signed another set of survivors", message)
        self._signatures[place] = survive.signature

    def _close_signatures(self) -> Quorum:
        public, survivors = self._public, self._survivors
        if survivors is None:
            raise ProtocolError(f"round {public.number} has no survivors yet")
        # As many as are needed and no more: each party verifies every one of them.
        signers = tuple(sorted(self._signatures))[: public.thresholds.signatures]
        signatures = tuple(self._signatures[i] for i in signers)
        self._opening = Opening(public, survivors)
        return Quorum(survivors, signers, signatures)

    def _add_shares(self, place: int, message: bytes) -> None:
        unmask = Unmask.decode(message)
        if (unmask.sid, unmask.number, unmask.index) != (self._public.sid, self._public.number, place):
            raise ProtocolError("its shares are of another session, round or holder")
        if self._opening is not None:
            self._opening.add(unmask)
