# SPDX-License-Identifier: Apache-2.0
"""Scheme masking, the contributing party's end: a masked sum in one exchange, over a view that may shrink.

Knows a party's session and the order in which a round is checked, encoded, masked, remembered and closed. Does not know
how messages travel, what time it is, or what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.checks.judge import Judge
from fedray.protocol.config import Config
from fedray.protocol.crypto.buffers import BufferPool
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.handshake import Handshake, SessionKeys
from fedray.protocol.masking.frame import Masked
from fedray.protocol.masking.pair_keys import PairKeys
from fedray.protocol.masking.rounds import Rounds
from fedray.protocol.member import Member
from fedray.protocol.messages import put_check
from fedray.protocol.opened import OpenedSum
from fedray.protocol.pipeline import run
from fedray.protocol.repeats import LastInput
from fedray.protocol.scheme import Contribution, RoundContext, View
from fedray.types import Message, PartyName, Round


class MaskingShield(Guarded):
    """One party in one session of masking; not safe for use from several threads at once.

    Attributes:
        rounds: The view, the next round and the last message.
    """

    def __init__(self, config: Config, member: Member, keys: SessionKeys) -> None:
        """Begins in view 0, the whole roster.

        Args:
            config: Agreed settings.
            member: The party.
            keys: What set-up has agreed.
        """
        self._judge = Judge(config, member, keys.group)
        self.rounds = Rounds(config, member, keys.sid, member.policy.views, agreed=self._judge.confirm)
        self._config, self._member, self._sid = config, member, keys.sid
        self._pair_keys = PairKeys(keys.sid, member.index, keys.roots)
        self._last = LastInput(member)
        self._frames = BufferPool()
        self._summed: tuple[PartyName, ...] = ()

    @classmethod
    def joining(cls, config: Config, member: Member) -> Handshake[MaskingShield]:
        """Checks the Config against the party's policy and begins set-up, which ends in this shield.

        Raises:
            ProtocolError: The Config is refused, or is not for scheme masking.
        """
        if config.scheme != "masking":
            raise member.fault(f"expected a Config for scheme 'masking', found {config.scheme!r}")
        return Handshake(config, member, partial(cls, config, member))

    def __repr__(self) -> str:
        """Shows the party and the round, nothing secret."""
        return f"<MaskingShield of {self._member.name}: round {self.rounds.next}>"

    def join(self, view: View) -> None:
        """Moves to a smaller view and forgets the keys shared with whom it leaves behind.

        Raises:
            ProtocolError: V1 forbids it.
        """
        self.rounds.join(view)
        self._pair_keys.keep(self.rounds.members)

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns the server's message; a repeated request gets the identical bytes, whatever the contribution.

        Raises:
            ProtocolError: The round is over, too far ahead, or not allowed on this model, or a sum was refused before.
            EncodingError: The contribution cannot be encoded; the round is given up.
        """
        self._judge.check_going_on()
        message = self.rounds.repeated(context)
        if message is None:
            ctx, members = self.rounds.admit(context), self.rounds.view.members
            # The same input over the same view once more is no further use of the model; anything else is.
            repeat = self._last.is_repeat(context, contribution, self.rounds.vid)
            if not repeat:
                self._member.check_model(self._sid, context, members)
            message = self._masked(context, ctx, contribution)
            # Remembered before it is handed out: after a crash nobody would know of a message that had left.
            if not repeat:
                self._member.record(self._sid, context, members)
            self._last.sent(context, contribution, self.rounds.vid)
            self.rounds.commit(context, ctx, message)
        return {self._config.receivers[0]: message}

    def verify(self, number: Round, opened: OpenedSum, source: PartyName, *, late: bool = False) -> None:
        """Accepts the sum of the last round, over the view that this party sent its words for, or ends the session.

        Args:
            number: The round.
            opened: Its sum.
            source: Who handed it out.
            late: Whether this party was told that its own words came too late.

        Raises:
            ServerFault: It is not that sum.
        """
        self._judge.verify(number, opened, source, self._summed, late=late)

    def follow(self, context: RoundContext) -> None:
        """Awaits the sum of a round that was held without this party's words, to be verified next.

        Raises:
            ProtocolError: Always: a view needs the words of each of its members.
        """
        raise self._member.fault(
            f"round {context.number} had other members than its view's: who is left out follows nothing"
        )

    def reply(self, broadcast: bytes) -> bytes:
        """Refuses: one exchange is all.

        Raises:
            ProtocolError: Always.
        """
        raise self._member.fault(f"masking has one exchange a round, found a further one of {len(broadcast)} bytes")

    def _masked(self, context: RoundContext, ctx: bytes, contribution: Contribution) -> NDArray[np.uint8]:
        manifest, number, bits = context.manifest, context.number, self._config.encoding.ring
        size = manifest.words(self._config.contributors)
        # Before the keys: a contribution of the wrong shape is refused and the round is still free.
        encoder = Encoder.of(self._config, self._member, manifest, contribution)
        header = (self._sid, self.rounds.vid, number, self._member.index, ctx, size, bits)
        frame, words = Masked.frame(*header, self._frames)
        own = self._judge.begin(self.rounds.vid, number, ctx, size)
        self._summed = self.rounds.view.members
        try:
            pad = self._pair_keys.pad(self.rounds.vid, number, ctx, size, bits)
            run(words, encoder.encode, own.product.take, pad.apply)
            put_check(frame, pad.cover(own.result()))
        finally:
            # Whatever happens: the pad may have touched words, and must not touch those of a second input.
            self._pair_keys.step_to(number + 1)
            self.rounds.skip(number)
        return frame
