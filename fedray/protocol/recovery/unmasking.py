# SPDX-License-Identifier: Apache-2.0
"""One party's part in one round after its masked input left (SECAGG part B, R2 and R3).

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
from fedray.protocol.recovery.member import Member
from fedray.protocol.recovery.reuse_rules import InputRules
from fedray.protocol.recovery.round_messages import PAIR, SELF, Quorum, Survive, Survivors, Unmask
from fedray.protocol.scheme import RoundContext
from fedray.types import Round


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """What left the party in R1.

    Attributes:
        context: What the party received for the round.
        ctx: Its hash.
        words_hash: SHA-256 of the masked words.
        message: The message, kept for a repeated request.
        fingerprint: Keyed print of the input; it never leaves the party.
    """

    context: RoundContext
    ctx: bytes
    words_hash: bytes
    message: NDArray[np.uint8]
    fingerprint: bytes

    @property
    def number(self) -> Round:
        """The round."""
        return self.context.number


class Unmasking(Guarded):
    """One round of one party. Each request is answered once; the same one again gets the identical bytes.

    Attributes:
        sent: What left the party in R1.
        released: The survivors whose sum this party helped to open, once it did.
    """

    def __init__(self, place: Member, batch: KeyBatch, ring: tuple[int, ...], sent: Sent, rules: InputRules) -> None:
        """Begins where the masked input left.

        Args:
            place: Where the party stands in the session.
            batch: The shares it holds.
            ring: The round's permutation.
            sent: What left the party.
            rules: When inputs may be summed again.
        """
        self.sent = sent
        self.released: Survivors | None = None
        self._place, self._batch, self._ring, self._rules = place, batch, ring, rules
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
        self._accept(quorum.survivors)
        if self.released is not None:
            return self._shares
        self._check_signatures(quorum)
        place, number, members = self._place, self.sent.number, quorum.survivors.members
        place.journal(enc("decision-release", place.sid, number, quorum.survivors.statement))
        self._rules.released(self.sent.context, place.names(members))
        self.released = quorum.survivors
        owners = self._batch.owners(number)
        kinds = bytes(SELF if owner in members else PAIR for owner in owners)
        shares = tuple(self._batch.share(number, owner, kind) for owner, kind in zip(owners, kinds, strict=True))
        self._shares = Unmask(place.sid, number, place.index, owners, kinds, shares).encode()
        self._batch.erase(number)
        return self._shares

    def end(self, why: str) -> None:
        """Ends the round: its shares are erased and nothing more is signed or released."""
        self._over = self._over or why
        self._batch.erase(self.sent.number)

    def _accept(self, survivors: Survivors) -> None:
        """Checks a statement and signs it, once a round."""
        if self._over:
            raise self._fault(self._over)
        if self._signed is None:
            self._check(survivors)
            self._place.journal(enc("decision-survive", survivors.statement))
            self._signed = survivors
            signature = sign(self._place.identity, survivors.statement)
            self._signature = Survive(survivors.statement, self._place.index, signature).encode()
        elif survivors.statement != self._signed.statement:
            raise self._fault(
                f"already signed for the survivors {self._signed.members}, now asked for {survivors.members} or other "
                "inputs: a party signs one statement a round"
            )

    def _check(self, survivors: Survivors) -> None:
        place, members = self._place, survivors.members
        if (survivors.sid, survivors.number, survivors.ctx) != (place.sid, self.sent.number, self.sent.ctx):
            raise self._fault("these survivors are of another session or round, or were told another model or settings")
        if any(member >= len(place.roster.names) for member in members):
            raise self._fault("a survivor is not in the roster")
        if place.index not in members:
            self.end("the round was closed without this party")
            raise self._fault(self._over)
        if survivors.hashes[members.index(place.index)] != self.sent.words_hash:
            raise self._fault("the coordinator holds another masked input than this party sent")
        try:
            place.thresholds.check_survivors(members, self._ring)
            self._rules.approve(self.sent.context, place.names(members))
        except ProtocolError as error:
            raise self._fault(str(error)) from None

    def _check_signatures(self, quorum: Quorum) -> None:
        place, least = self._place, self._place.thresholds.signatures
        statement, members = quorum.survivors.statement, set(quorum.survivors.members)
        if len(quorum.signers) < least:
            raise self._fault(f"{len(quorum.signers)} signatures on the survivors, expected at least {least}")
        for signer, signature in zip(quorum.signers, quorum.signatures, strict=True):
            if signer not in members:
                raise self._fault(f"a signature is of place {signer}, which is not among the survivors")
            if not verify(place.roster.keys[signer], statement, signature):
                raise self._fault(f"the signature of {place.roster.names[signer]} is not valid")

    def _fault(self, message: str) -> ProtocolError:
        return ProtocolError(f"{self._place.name}: round {self.sent.number}: {message}")
