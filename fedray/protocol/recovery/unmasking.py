# SPDX-License-Identifier: Apache-2.0
"""One party's part in one round after its masked input left (SECAGG section 7, R2 and R3).

Signs one set of survivors, then releases one share of each owner for that set. Knows the shares it holds. Does not know
its own input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Guarded, sign, verify
from fedray.protocol.messages import enc
from fedray.protocol.recovery.key_batch import KeyBatch
from fedray.protocol.recovery.reuse_rules import InputRules
from fedray.protocol.recovery.round_messages import Quorum, Survive, Survivors, Unmask
from fedray.protocol.recovery.session import RecoverySession
from fedray.protocol.scheme import RoundContext
from fedray.types import PartyName


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """What left the party in R1.

    Attributes:
        context: What the party received for the round.
        ctx: Its hash.
        words_hash: SHA-256 of the masked words.
        message: The message, kept for a repeated request.
        tag: Keyed digest of the input; it never leaves the party.
    """

    context: RoundContext
    ctx: bytes
    words_hash: bytes
    message: NDArray[np.uint8]
    tag: bytes


class Unmasking(Guarded):
    """One round of one party. Each request is answered once; the same one again gets the identical bytes.

    Attributes:
        sent: What left the party in R1.
        parties: Whose inputs the statement that this party signed sums; empty before.
        released: Whether this party helped to open their sum.
    """

    def __init__(self, session: RecoverySession, batch: KeyBatch, sent: Sent, rules: InputRules) -> None:
        """Begins where the masked input left.

        Args:
            session: The party in its session.
            batch: The shares it holds.
            sent: What left the party.
            rules: When inputs may be summed again.
        """
        self.sent = sent
        self.parties: tuple[PartyName, ...] = ()
        self.released = False
        self._session, self._batch, self._rules = session, batch, rules
        self._number = sent.context.number
        self._signed: Survivors | None = None
        self._signature = self._shares = b""
        self._over = ""

    def survive(self, message: bytes) -> bytes:
        """R2: returns the signature on one set of survivors.

        Raises:
            ProtocolError: The set is not one that this party may sign; the message says why. Where the party itself is
                not in it, the round is over for it and its shares are erased.
        """
        self._accept(Survivors.decode(message))
        return self._signature

    def unmask(self, message: bytes) -> bytes:
        """R3: returns one share of each owner, of its seed if it survived, else of its pair key; then erases all.

        Raises:
            ProtocolError: There is no quorum of valid signatures on a statement that this party may sign.
        """
        quorum = Quorum.decode(message)
        survivors = self._accept(quorum.survivors)
        if self.released:
            return self._shares
        self._check_signatures(survivors, quorum)
        session, number = self._session, self._number
        # Written down, remembered, answered, erased, in this order: a party that stops half-way has released nothing
        # that it does not know of, and has never released one secret's share for a second set.
        session.journal(enc("decision-release", session.keys.sid, number, survivors.statement))
        self._rules.released(self.sent.context, self.parties)
        self.released = True
        shares = self._batch.release(number, survivors.members)
        self._shares = Unmask(session.keys.sid, number, session.member.index, *shares).encode()
        return self._shares

    def end(self, why: str) -> None:
        """Ends the round: its shares are erased and nothing more is signed or released."""
        self._over = self._over or why
        self._batch.erase(self._number)

    def _accept(self, survivors: Survivors) -> Survivors:
        """Checks a statement and signs it, once a round; returns what was signed."""
        if self._over:
            raise self._fault(self._over)
        if self._signed is None:
            self._check(survivors)
            member = self._session.member
            self._session.journal(enc("decision-survive", survivors.statement))
            self._signed = survivors
            signature = sign(member.identity, survivors.statement)
            self._signature = Survive(survivors.statement, member.index, signature).encode()
        elif survivors != self._signed:  # equal where their statements are: all of a record is in its statement
            raise self._fault(
                f"already signed for the survivors {self._signed.members}, now asked for {survivors.members} or other "
                "inputs: a party signs one statement a round"
            )
        return self._signed

    def _check(self, survivors: Survivors) -> None:
        session, members, own = self._session, survivors.members, self._session.member.index
        if (survivors.sid, survivors.number, survivors.ctx) != (session.keys.sid, self._number, self.sent.ctx):
            raise self._fault("these survivors are of another session or round, or were told another model or settings")
        names = session.member.roster.names
        if any(member >= len(names) for member in members):
            raise self._fault("a survivor is not in the roster")
        # Its pair key is about to be released. A share of its seed on top, for another set, would open its input.
        if own not in members:
            self.end("the round was closed without this party")
            raise self._fault(self._over)
        # An input altered on its way would make the sum wrong in a way that only this party can see.
        if survivors.hashes[members.index(own)] != self.sent.words_hash:
            raise self._fault("the coordinator holds another masked input than this party sent")
        parties = tuple([names[member] for member in members])
        try:
            session.thresholds.check_survivors(members, session.ring(self._number))
            self._rules.approve(self.sent.context, parties)
        except ProtocolError as error:
            raise self._fault(str(error)) from None
        self.parties = parties

    def _check_signatures(self, survivors: Survivors, quorum: Quorum) -> None:
        least, roster = self._session.thresholds.signatures, self._session.member.roster
        statement, members = survivors.statement, set(survivors.members)
        if len(quorum.signers) < least:
            raise self._fault(f"{len(quorum.signers)} signatures on the survivors, expected at least {least}")
        for signer, signature in zip(quorum.signers, quorum.signatures, strict=True):
            if signer not in members:
                raise self._fault(f"a signature is of place {signer}, which is not among the survivors")
            if not verify(roster.keys[signer], statement, signature):
                raise self._fault(f"the signature of {roster.names[signer]} is not valid")

    def _fault(self, message: str) -> ProtocolError:
        return self._session.member.fault(f"round {self._number}: {message}")
