# SPDX-License-Identifier: Apache-2.0
"""Scheme recovery, the contributing party's end: double masks, keys prepared ahead, one decision a round.

Knows a party's session and the order of its rounds. Does not know how messages travel, what time it is, or what the
numbers mean. Not safe for use from several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fedray.protocol.checks.judge import Judge
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.handshake import Handshake, SessionKeys
from fedray.protocol.masking.rounds import context_hash
from fedray.protocol.member import Member
from fedray.protocol.messages import purpose_of
from fedray.protocol.opened import OpenedSum
from fedray.protocol.recovery.key_batches import KeyBatches
from fedray.protocol.recovery.masked_input import mask_input
from fedray.protocol.recovery.pads import PadScope, double_pad
from fedray.protocol.recovery.reuse_rules import InputRules
from fedray.protocol.recovery.session import RecoverySession
from fedray.protocol.recovery.thresholds import Thresholds
from fedray.protocol.recovery.unmasking import Sent, Unmasking
from fedray.protocol.repeats import LastInput
from fedray.protocol.scheme import Contribution, RoundContext, View
from fedray.types import Message, PartyName, Round


class RecoveryShield(Guarded):
    """One party in one session with recovery.

    A batch of rounds is set up by `prepare`, then `absorb` for each message that the coordinator relays. A round is
    `protect`, then `reply` twice.

    Attributes:
        decisions: What was signed and released so far; in memory is enough, where a restarted party loses its keys.
    """

    def __init__(self, config: Config, member: Member, keys: SessionKeys) -> None:
        """Begins without any batch.

        Args:
            config: Agreed settings.
            member: The party.
            keys: What set-up has agreed.

        Raises:
            ProtocolError: The Config is not for scheme recovery, or its graph is weaker than section 10 computes.
        """
        self.decisions: list[bytes] = []
        self._config, self._member = config, member
        self._session = RecoverySession(member, keys, Thresholds.of(config), self.decisions.append)
        self._batches = KeyBatches(self._session, config.batch)
        self._judge = Judge(config, member, keys.group)
        self._rules = InputRules(keys.sid, member)
        self._last = LastInput(member)
        self._round: Unmasking | None = None

    @classmethod
    def joining(cls, config: Config, member: Member) -> Handshake[RecoveryShield]:
        """Checks the Config against section 10 and the party's policy and begins set-up, which ends in this shield.

        Raises:
            ProtocolError: The Config is refused, or is not for scheme recovery.
        """
        Thresholds.of(config)  # before anything is said: a party refuses, and never adapts
        return Handshake(config, member, partial(cls, config, member))

    def __repr__(self) -> str:
        """Shows the party and the round, nothing secret."""
        return f"<RecoveryShield of {self._member.name}: round {self._batches.next}>"

    def join(self, view: View) -> None:
        """Accepts the whole roster only: who drops out of a round may take part in the next one.

        Raises:
            ProtocolError: The view leaves a party out.
        """
        if view.members != self._member.roster.names:
            raise self._member.fault(
                f"sums that survive dropouts have one view, the whole roster, found {view.members}"
            )

    def prepare(self, batch: int, first: Round) -> bytes:
        """Begins the set-up of a batch of rounds and returns the signed Keys; rounds may be under way meanwhile.

        Args:
            batch: Number of the batch, larger than that of any earlier one.
            first: Its first round, after the last one of the batch before.

        Raises:
            ProtocolError: The number or a round was used, or the session has served enough rounds.
        """
        return self._batches.prepare(batch, first)

    def absorb(self, message: bytes) -> bytes | None:
        """Answers what the coordinator relays of a set-up; None when the batch is ready.

        Raises:
            ProtocolError: The set-up of this batch failed, and who is at fault; another one needs a new number.
        """
        return self._batches.absorb(message)

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns the server's message; a repeated request gets the identical bytes.

        Raises:
            ProtocolError: The round is over or has no keys, its pad was used for other data, the input or its model may
                not be summed again, or a sum was refused before.
            EncodingError: The contribution cannot be encoded; the round is given up and its pad never used.
        """
        self._judge.check_going_on()
        ctx = self._context_hash(context)
        tag = self._rules.tag(context, contribution)
        current = self._round
        if current is None or current.sent.context.number != context.number:
            current = self._begin(context, ctx, contribution, tag)
        elif (current.sent.ctx, current.sent.tag) != (ctx, tag):
            raise self._member.fault(f"the pad of round {context.number} was used for other data; take the next round")
        return {self._config.receivers[0]: current.sent.message}

    def reply(self, broadcast: bytes) -> bytes:
        """Answers the further exchanges of the round: signs the survivors, then releases one share of each party.

        Raises:
            ProtocolError: The request is not one that this party may answer; the message says why.
        """
        current, purpose = self._round, purpose_of(broadcast)
        if current is None:
            raise self._member.fault("no round is under way")
        if purpose == "survivors":
            return current.survive(broadcast)
        if purpose != "quorum":
            raise self._member.fault(f"a round has no request for {purpose!r}")
        return current.unmask(broadcast)

    def verify(self, number: Round, opened: OpenedSum, source: PartyName, *, late: bool = False) -> None:
        """Accepts the sum of the last round, or ends the session.

        Over the survivors that this party signed, where it saw their quorum; else over any that may be opened.

        Args:
            number: The round.
            opened: Its sum.
            source: Who handed it out.
            late: Whether this party was told that its own words came too late.

        Raises:
            ServerFault: It is not the sum of such a set.
        """
        self._judge.verify(number, opened, source, self.survivors(number), late=late)

    def follow(self, context: RoundContext) -> None:
        """Awaits the sum of a round that was held without this party's words, to be verified next.

        Raises:
            ProtocolError: The sum of this round, or of a later one, was verified, or a sum was refused before.
        """
        ctx, over = self._context_hash(context), self._batches.find(context.number).directory.digest
        self._judge.expect(over, context.number, ctx, context.manifest.words(self._config.contributors))

    def survivors(self, number: Round) -> tuple[PartyName, ...] | None:
        """Returns whose inputs a round sums, once this party verified the quorum on its own context; else None.

        What a party's local state learned in a round is kept only if it did, else put back.
        """
        current = self._round
        if current is None or current.sent.context.number != number or not current.released:
            return None
        return current.parties

    def _context_hash(self, context: RoundContext) -> bytes:
        return context_hash(self._config, self._session.keys.sid, self._judge.confirm, b"", context)

    def _begin(self, context: RoundContext, ctx: bytes, contribution: Contribution, tag: bytes) -> Unmasking:
        config, member, number = self._config, self._member, context.number
        size = context.manifest.words(config.contributors)
        # Over which set it is opened this party decides later, when it signs: for a repeat over the same one only.
        repeat = self._last.is_repeat(context, contribution, b"")
        self._rules.admit(context, tag, repeat=repeat)
        encoder = Encoder.of(config, member, context.manifest, contribution)
        batch = self._batches.enter(number)
        # The keys of the round before are erased, so it is over; and so is this one if anything fails from here on, for
        # its own keys are taken only once.
        self._round = None
        scope = PadScope(self._session.keys.sid, batch.directory.digest, number, ctx, size, config.encoding.ring)
        pad = double_pad(scope, *batch.take(number), member.index)
        own = self._judge.begin(batch.directory.digest, number, ctx, size)
        message, words_hash = mask_input(member, scope, encoder, own, pad)
        self._rules.record(context, tag, repeat=repeat)
        self._last.sent(context, contribution, b"")
        sent = Sent(context, ctx, words_hash, message, tag)
        self._round = Unmasking(self._session, batch, sent, self._rules)
        return self._round
