# SPDX-License-Identifier: Apache-2.0
"""Scheme sharing, the owner's end: one sealed share for every compute party, and no more to do.

Knows a party's session and the order of its rounds. Does not know how messages travel, what time it is, or what the
numbers mean. A compute party's shield also makes its `ShareAdder`. Not safe for use from several threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

from fedray.protocol.checks.judge import Judge
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.handshake import Handshake, SessionKeys
from fedray.protocol.masking.rounds import MOST_STEPS, context_hash
from fedray.protocol.member import Member
from fedray.protocol.messages import put_check
from fedray.protocol.opened import OpenedSum
from fedray.protocol.pipeline import run
from fedray.protocol.repeats import LastInput
from fedray.protocol.scheme import Contribution, Purpose, RoundContext, View
from fedray.protocol.sharing.adder import ShareAdder
from fedray.protocol.sharing.agreement import Proof
from fedray.protocol.sharing.roles import Roles, names_of
from fedray.protocol.sharing.sealing import ShareForm, ShareHeader, seal
from fedray.protocol.sharing.split import Blank, Splitter
from fedray.types import Message, PartyName, Round


class SharingShield(Guarded):
    """One party in one session of sharing.

    Attributes:
        adder: This party's end as a compute party; None where it is none.
        owners: Who contributes, in roster order.
    """

    def __init__(
        self, config: Config, member: Member, keys: SessionKeys, *, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Begins with the channels to the compute parties.

        Args:
            config: Agreed settings.
            member: The party.
            keys: What set-up has agreed.
            entropy: Source of shares and seeds, bytes by count.

        Raises:
            ProtocolError: The Config is not for scheme sharing or does not fit the roster.
        """
        self._roles = Roles.of(config, member.roster)
        self._config, self._member, self._sid, self._entropy = config, member, keys.sid, entropy
        self.owners = names_of(self._roles.owners, member.roster)
        own = os.urandom(32)  # of the channel from this party's owner end to its compute end
        self._channels = {**keys.sending, member.index: own}
        self._next: Round = 0
        self._last = LastInput(member)
        self._repeat: RoundContext | None = None
        self._judge = Judge(config, member, keys.group)
        self._certified: tuple[Round, tuple[PartyName, ...]] | None = None
        self._spoilt: set[tuple[bytes, Purpose]] = set()
        self._sent: tuple[Round, bytes] | None = None
        self._opening: RoundContext | None = None
        self._whole = False
        self._messages: dict[PartyName, Message] = {}
        self.adder: ShareAdder | None = None
        if member.index in self._roles.compute_parties:
            self.adder = ShareAdder(config, member, keys.sid, {**keys.receiving, member.index: own})

    @classmethod
    def joining(
        cls, config: Config, member: Member, *, entropy: Callable[[int], bytes] = os.urandom
    ) -> Handshake[SharingShield]:
        """Checks the Config against the party's roster and policy and begins set-up, which ends in this shield.

        Args:
            config: What the coordinator proposes.
            member: The party.
            entropy: Source of shares and seeds, bytes by count.

        Raises:
            ProtocolError: The Config is refused, or is not for scheme sharing.
        """
        Roles.of(config, member.roster)
        return Handshake(config, member, partial(cls, config, member, entropy=entropy))

    def __repr__(self) -> str:
        """Shows the party and the round, nothing secret."""
        return f"<SharingShield of {self._member.name}: round {self._next}>"

    def join(self, view: View) -> None:
        """Accepts all owners only: whose inputs a round opens is agreed among the compute parties.

        Raises:
            ProtocolError: The view is another one.
        """
        if view.members != self.owners:
            raise self._member.fault(f"shared sums have one view, all owners {self.owners}, found {view.members}")

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns one message per compute party, the long one last; a repeated request gets the identical bytes.

        Raises:
            ProtocolError: This party owns no input, the round is over or too far ahead, the model may not be used, or a
                sum was refused before.
            EncodingError: The contribution cannot be encoded; the round is given up.
        """
        # Nothing of earlier rounds is in it: an owner that missed one may take part in the next.
        self._judge.check_going_on()
        ctx = self._context_hash(context)
        if context.number < self._next:
            return self._again(context.number, ctx)
        # Over which owners it is opened the compute parties decide: for a repeat over the same ones only.
        repeat = self._last.is_repeat(context, contribution, b"")
        self._admit(context, repeat=repeat)
        self._next = context.number + 1  # whatever happens, no second input for this round
        self._sent, self._messages = None, {}
        messages = self._split(context, ctx, contribution)
        if not repeat:
            self._member.record(self._sid, context, self.owners, open_later=True)
            # No compute party remembers, after it was started anew, for which set of owners it has signed.
            self._member.leave(context)
        self._last.sent(context, contribution, b"")
        self._sent, self._messages, self._opening = (context.number, ctx), messages, context
        self._repeat = context if repeat else None
        return dict(messages)

    def certify(self, proof: bytes) -> tuple[PartyName, ...]:
        """Returns whose inputs the last round opened, as all compute parties signed it.

        What the round changed locally may be kept only after this: the inputs of others were computed on the same
        model, settings and manifest, and this party's own one is among them.

        Over whom its rows were summed is remembered, whatever the server says of the round: it has the sum.

        Raises:
            ProtocolError: A signature is missing, or it is for another round, another context, or without this party.
        """
        member, found = self._member, Proof.decode(proof)
        agreed = found.agreement
        found.check([member.roster.keys[place] for place in self._roles.compute_parties])
        if agreed.sid != self._sid or (agreed.number, agreed.ctx) != self._sent:
            raise member.fault(f"the compute parties agreed on another round or context than this party's {self._sent}")
        self._roles.check_members(agreed.members, member.roster)
        if member.index not in agreed.members:
            raise member.fault(
                f"round {agreed.number} was opened without its input; what the round changed is put back"
            )
        names = names_of(agreed.members, member.roster)
        if self._opening is not None:
            member.record_opening(self._opening, names)
        self._certified = (agreed.number, names)
        return names

    def verify(self, number: Round, opened: OpenedSum, source: PartyName, *, late: bool = False) -> None:
        """Accepts the sum of the last round, or ends the session.

        Over the owners that all compute parties signed, where this party saw that; else over any that may be opened.

        Args:
            number: The round.
            opened: Its sum.
            source: Who handed it out.
            late: Whether this party was told that its own words came too late.

        Raises:
            ServerFault: It is not the sum of such a set.
        """
        known = self._certified
        self._judge.verify(number, opened, source, known[1] if known and known[0] == number else None, late=late)

    def follow(self, context: RoundContext) -> None:
        """Awaits the sum of a round that was held without this party's words, to be verified next.

        Raises:
            ProtocolError: The sum of this round, or of a later one, was verified, or a sum was refused before.
        """
        ctx = self._context_hash(context)
        self._judge.expect(self._config.roster, context.number, ctx, context.manifest.words(self._config.contributors))

    def reply(self, broadcast: bytes) -> bytes:
        """Refuses: one exchange is all.

        Raises:
            ProtocolError: Always.
        """
        raise self._member.fault(
            f"shared sums have one exchange a round, found a further one of {len(broadcast)} bytes"
        )

    def give_up(self, number: Round) -> None:
        """Learns that a round is void. After a repeat its model serves once more, for freshly computed data."""
        self.drop_cache()
        if self._repeat is not None and self._repeat.number == number:
            self._spoilt.add((self._repeat.model, self._repeat.purpose))

    def drop_cache(self) -> None:
        """Forgets the last messages; a repeated request is then refused."""
        self._messages = {}

    def _context_hash(self, context: RoundContext) -> bytes:
        return context_hash(self._config, self._sid, self._judge.confirm, b"", context)

    def _again(self, number: Round, ctx: bytes) -> Mapping[PartyName, Message]:
        if self._sent == (number, ctx) and self._messages:
            return dict(self._messages)
        raise self._member.fault(
            f"round {number} is over: one input is sent per round, and the next round is {self._next} or later"
        )

    def _admit(self, context: RoundContext, *, repeat: bool) -> None:
        member = self._member
        if member.index not in self._roles.owners:
            raise member.fault(f"it only computes: the inputs of this session are owned by {self.owners}")
        if context.number - self._next >= MOST_STEPS:
            raise member.fault(f"round {context.number} is more than {MOST_STEPS} ahead of round {self._next}")
        if not repeat:
            spoilt = (context.model, context.purpose) in self._spoilt
            member.check_model(self._sid, context, self.owners, more=spoilt, open_later=True)
            # Before it is recorded itself; a repeat is over the same owners anyway.
            self._whole = member.allows_only(context, self.owners)
            if self._whole:  # and over all of them it may be opened only if that is the set they had before
                member.check_opening(context, self.owners)

    def _split(self, context: RoundContext, ctx: bytes, contribution: Contribution) -> dict[PartyName, Message]:
        """Encodes, splits and seals."""
        config, manifest, roles, own = self._config, context.manifest, self._roles, self._member.index
        encoder = Encoder.of(config, self._member, manifest, contribution)
        bits, home, count = config.encoding.ring, roles.home(own), len(roles.compute_parties)
        rest = Blank(manifest.words(config.contributors), bits)
        words, judged = rest.words, self._judge.begin(config.roster, context.number, ctx, len(rest.words))
        splitter = Splitter(count - 1, words, config.compress, self._entropy)
        run(words, encoder.encode, judged.product.take, splitter.take)
        put_check(rest.data, splitter.cover(judged.result()))
        # The long share leaves last: whoever ends half-way has sent seeds only, which compute parties can take out of
        # their sums again.
        order = [*(number for number in range(count) if number != home), home]
        messages: dict[PartyName, Message] = {}
        for number, share in zip(order, [*splitter.shares, rest], strict=True):
            form: ShareForm = "seed" if isinstance(share, bytes) else "words"
            place = (self._sid, context.number, own, number, ctx)
            header = ShareHeader(*place, len(words), bits, form, context.repeats, self._whole)
            key = self._channels[roles.compute_parties[number]]
            messages[config.receivers[number]] = seal(key, header, share if isinstance(share, bytes) else share.data)
        return messages
