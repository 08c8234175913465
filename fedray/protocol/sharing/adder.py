# SPDX-License-Identifier: Apache-2.0
"""Scheme sharing, the compute party's end: adds shares on arrival, signs one set of owners a round, publishes one sum.

Knows the channels from all owners and the rules on whose inputs may be opened together. Does not know any input, how
messages travel, or what time it is. Not safe for use from several threads at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Guarded, sign, verify
from fedray.protocol.member import Member
from fedray.protocol.sharing.agreement import Agreement, AgreementSignature, Partial, Proof
from fedray.protocol.sharing.roles import Roles, names_of
from fedray.protocol.sharing.round_sums import Pile, RoundSums
from fedray.protocol.sharing.sealing import ShareHeader, header_of, unseal
from fedray.protocol.sharing.split import words_of
from fedray.types import Message, PartyName, Round


class ShareAdder(Guarded):
    """One compute party in one session.

    Attributes:
        number: Its number m among the compute parties.
    """

    def __init__(self, config: Config, member: Member, sid: bytes, channels: Mapping[int, bytes]) -> None:
        """Takes what set-up has agreed.

        Args:
            config: Agreed settings.
            member: The compute party.
            sid: Session id.
            channels: Owner's place in the roster -> key of the channel from it.

        Raises:
            ProtocolError: The Config is not for scheme sharing or does not fit the roster.
        """
        self._roles = Roles.of(config, member.roster)
        self._config, self._member, self._roster, self._sid = config, member, member.roster, sid
        self._channels = channels
        self.number = self._roles.compute_parties.index(member.index)
        self._spans: tuple[tuple[range, int], ...] = ()
        self._current: RoundSums | None = None
        self._next: Round = 0
        self._proof: Proof | None = None

    def expect(self, *spans: tuple[range, int]) -> None:
        """Announces rounds in place of those announced before; what is left of an earlier round is erased.

        Args:
            *spans: Numbers of rounds, and the words L of a vector in them; they may overlap, as nobody knows before how
                many rounds are repeated.
        """
        self.fail()
        self._spans = spans

    def add(self, sender: PartyName, message: Message) -> Round:
        """Adds an owner's share and returns its round; the same message again changes nothing.

        Raises:
            ProtocolError: The share is not the sender's, not for this compute party or this session, is for a round
                that is over or was not announced, or differs from the sender's first one. Nothing was added.
        """
        header = header_of(message)
        self._check_header(sender, header)
        current = self._enter(header.number)
        known = hashlib.sha256(message if isinstance(message, bytes) else message.data).digest()
        # Before it is unsealed: a retry costs a hash, not a decryption and an addition.
        if header.owner in current.digests:
            if current.digests[header.owner] != known:
                raise self._member.fault(f"{sender}: a second, different share for round {header.number}")
            return header.number
        if current.signed is not None:
            raise self._member.fault(
                f"{sender}: its share for round {header.number} came too late and was dropped unread"
            )
        share = unseal(self._channels[header.owner], message)
        pile = current.piles.setdefault(header.ctx, Pile(header.size, header.bits, header.repeats))
        if pile.repeats != header.repeats:  # which is in ctx, so that honest owners agree
            raise self._member.fault(f"{sender}: a share that repeats another round than the others' of its context")
        pile.add(header.owner, share if header.form == "seed" else words_of(share, header.bits))
        current.digests[header.owner] = known
        if header.whole:
            current.whole.add(header.owner)
        return header.number

    def held(self) -> tuple[PartyName, ...]:
        """Returns whose shares of the round under way were computed on one context, the most common one."""
        return names_of(self._current.largest()[1], self._roster) if self._current is not None else ()

    def summed_before(self) -> tuple[PartyName, ...]:
        """Returns over whom alone the round under way may be opened, if it has the last sum's inputs; else nobody."""
        if self._current is None:
            return ()
        pile = self._current.piles.get(self._current.largest()[0])
        return () if pile is None or pile.repeats is None else self.opened()

    def only_over(self) -> tuple[PartyName, ...]:
        """Returns over whom alone the round under way may be opened: a repeat, or as an owner demands; else nobody."""
        again = self.summed_before()
        if again or self._current is None or not self._current.whole & set(self._current.largest()[1]):
            return again
        return names_of(self._roles.owners, self._roster)

    def sign(self, members: Sequence[PartyName]) -> bytes:
        """Signs whose inputs of the round under way are opened; the same set again gets the same bytes.

        Raises:
            ProtocolError: Another set was signed, it is too small, or the shares of all of them, computed on one
                context, are not here.
        """
        current = self._under_way()
        places = tuple(sorted(self._roster.index(name) for name in members))
        if current.signed is not None:
            if current.signed.members != places:
                before = names_of(current.signed.members, self._roster)
                raise self._member.fault(f"it signed round {current.number} for {before}; another set is refused")
            return self._signed(current.signed, current.heard[self.number][1])
        self._roles.check_members(places, self._roster)
        fitting = [ctx for ctx, pile in current.piles.items() if set(places) <= set(pile.seeds)]
        if not fitting:
            raise self._member.fault(
                f"round {current.number}: it does not hold shares of all of {tuple(members)}, computed on the same "
                "model, settings and manifest"
            )
        self._check_repeat(current.number, current.piles[fitting[0]].repeats, places)
        if current.whole & set(places) and places != tuple(sorted(self._roles.owners)):
            demanding = names_of(tuple(sorted(current.whole & set(places))), self._roster)
            raise self._member.fault(
                f"round {current.number}: {', '.join(demanding)} allows a sum over all owners only, found "
                f"{tuple(members)}"
            )
        # Owners told something else are in other piles; what is not signed for now is never published.
        current.piles[fitting[0]].keep(places)
        current.piles = {fitting[0]: current.piles[fitting[0]]}
        current.signed = Agreement(self._sid, current.number, fitting[0], places)
        signature = sign(self._member.identity, current.signed.statement)
        current.heard[self.number] = (current.signed, signature)
        return self._signed(current.signed, signature)

    def hear(self, sender: PartyName, message: bytes) -> tuple[PartyName, ...]:
        """Takes another compute party's signature, before or after its own, and returns whose inputs it names.

        Raises:
            ProtocolError: It is not the sender's, or is the sender's second, different one: proof that it deviates.
        """
        signed = AgreementSignature.decode(message)
        agreed, signer = signed.agreement, signed.compute_party
        if agreed.sid != self._sid or signer >= len(self._roles.compute_parties):
            raise self._member.fault(f"{sender}: a signature of another session")
        place = self._roles.compute_parties[signer]
        if self._roster.names[place] != sender or not verify(
            self._roster.keys[place], agreed.statement, signed.signature
        ):
            raise self._member.fault(f"{sender}: a set of owners that it did not sign")
        current = self._enter(agreed.number)
        known = current.heard.get(signer)
        if known is not None and known[0] != agreed:
            raise self._member.fault(f"{sender} signed two different sets of owners for round {agreed.number}")
        current.heard[signer] = (agreed, signed.signature)
        return names_of(agreed.members, self._roster)

    def ready(self) -> bool:
        """Returns whether all compute parties have signed what this one signed."""
        current = self._current
        if current is None or current.signed is None:
            return False
        return len(current.heard) == len(self._roles.compute_parties) and all(
            a == current.signed for a, _ in current.heard.values()
        )

    def awaited(self) -> tuple[PartyName, ...]:
        """Returns which compute parties have not signed the round under way."""
        heard = self._current.heard if self._current is not None else {}
        return names_of([p for m, p in enumerate(self._roles.compute_parties) if m not in heard], self._roster)

    def publish(self) -> NDArray[np.uint8]:
        """Returns this compute party's sum of the round under way, and erases its shares.

        Raises:
            ProtocolError: Not all compute parties have signed what this one signed. Nothing is published.
        """
        current = self._under_way()
        if current.signed is None:
            raise self._member.fault(f"round {current.number}: it has not signed whose inputs are opened")
        # By name, before the signatures are counted: who signed something else is what the driver must hear of.
        differing = [m for m, (agreed, _) in current.heard.items() if agreed != current.signed]
        if differing:
            names = names_of([self._roles.compute_parties[m] for m in differing], self._roster)
            raise self._member.fault(
                f"round {current.number}: {', '.join(names)} signed another set of owners, or other models or settings "
                "than this compute party; nothing is published"
            )
        signatures = tuple(current.heard[m][1] for m in range(len(self._roles.compute_parties)) if m in current.heard)
        proof = Proof(current.signed, signatures)
        proof.check([self._roster.keys[place] for place in self._roles.compute_parties])
        pile = current.piles[current.signed.ctx]
        message = Partial(proof, self.number, pile.total, pile.check).encode()
        # Erased before it is handed out: a second sum of this round, over other owners, cannot be made any more.
        self.fail()
        self._proof = proof
        return message

    def proof(self, number: Round) -> bytes:
        """Returns all signatures under the last published round, for its owners.

        Raises:
            ProtocolError: The last published round is another one.
        """
        if self._proof is None or self._proof.agreement.number != number:
            raise self._member.fault(f"round {number} is not the last one it published")
        return self._proof.encode()

    def opened(self) -> tuple[PartyName, ...]:
        """Returns whose inputs are in the last published sum."""
        return names_of(self._proof.agreement.members, self._roster) if self._proof is not None else ()

    def fail(self) -> None:
        """Erases the round under way, if there is one; nothing of it is ever published or taken again."""
        if self._current is not None:
            self._next, self._current = self._current.number + 1, None

    def _check_repeat(self, number: Round, repeats: Round | None, places: tuple[int, ...]) -> None:
        """Refuses inputs once more over other owners than those of the last sum: the two would differ by an input."""
        last = None if self._proof is None else self._proof.agreement
        if repeats is not None and (last is None or (last.number, last.members) != (repeats, places)):
            raise self._member.fault(
                f"round {number} has the inputs of round {repeats} once more, over {names_of(places, self._roster)}; "
                "its last sum was not that round's, over the same owners"
            )

    def _check_header(self, sender: PartyName, header: ShareHeader) -> None:
        owners = self._roles.owners
        if header.sid != self._sid or header.compute_party != self.number:
            raise self._member.fault(f"{sender}: a share of another session, or for another compute party")
        if header.owner not in owners or self._roster.names[header.owner] != sender:
            raise self._member.fault(f"{sender}: a share that says it is another owner's")
        sizes, bits = self._sizes(header.number), self._config.encoding.ring
        if header.size not in sizes or header.bits != bits:
            expected = " or ".join(map(str, sorted(sizes)))
            raise self._member.fault(
                f"{sender}: expected {expected} words of {bits} bits, found {header.size} of {header.bits}"
            )
        # A long share cannot be taken out of a sum again: only one compute party of each owner may hold one.
        seeds = self._config.compress and self._roles.home(header.owner) != self.number
        if header.form != ("seed" if seeds else "words"):
            raise self._member.fault(
                f"{sender}: a share as {header.form}, which the session's Config does not foresee here"
            )

    def _enter(self, number: Round) -> RoundSums:
        """Returns the round under way, begun if this is the first message of an announced one."""
        if self._current is not None and self._current.number == number:
            return self._current
        self._sizes(number)
        if self._current is not None:
            raise self._member.fault(
                f"round {self._current.number} is under way; a message for round {number} was dropped unread"
            )
        self._current = RoundSums(number)
        return self._current

    def _sizes(self, number: Round) -> set[int]:
        """Returns how many words a vector may have in an announced round that is not over."""
        sizes = {size for numbers, size in self._spans if number in numbers and number >= self._next}
        if not sizes:
            raise self._member.fault(f"round {number} is over or not announced; its message was dropped unread")
        return sizes

    def _under_way(self) -> RoundSums:
        if self._current is None:
            raise self._member.fault("no round is under way")
        return self._current

    def _signed(self, agreed: Agreement, signature: bytes) -> bytes:
        return AgreementSignature(agreed, self.number, signature).encode()
