# SPDX-License-Identifier: Apache-2.0
"""No protection, same shape: the baseline. The words of scheme masking, unmasked: both sums are equal bit by bit.

Knows no keys and no limits: one party is allowed, and whoever takes the messages can read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedray.protocol.config import Config
from fedray.protocol.crypto.buffers import BufferPool
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.masking.frame import Masked
from fedray.protocol.masking.rounds import Rounds
from fedray.protocol.member import Member
from fedray.protocol.messages import HASH_BYTES, dec, digest, enc
from fedray.protocol.opened import OpenedSum
from fedray.protocol.pipeline import run
from fedray.protocol.scheme import Contribution, RoundContext, View
from fedray.types import Message, PartyName, Round


class PlainJoining:
    """Finds out whether all parties have one Config; nothing is signed, and no key is made."""

    def __init__(self, config: Config, member: Member) -> None:
        """Takes the agreed settings.

        Args:
            config: What the coordinator proposes.
            member: The party. Of its policy only this applies: whether sums without protection are accepted.

        Raises:
            ProtocolError: The Config is for another scheme or another roster, or the policy wants protection.
        """
        if not member.policy.unprotected:
            raise member.fault("its policy accepts no sum without protection (unprotected); use SecureAggregator")
        if config.scheme != "plain" or config.roster != member.roster.hash:
            raise member.fault("expected a Config for scheme 'plain' and this party's roster")
        self._config, self._member = config, member
        self.sid = digest("plain-sid", config.encode())
        self._confirmed = False

    def hello(self) -> bytes:
        """Returns the party's place and the hash of its Config."""
        return enc("plain-hello", self._config.hash, self._member.index)

    def confirm(self, hellos: Sequence[bytes]) -> bytes:
        """Checks that everybody has the same Config.

        Raises:
            ProtocolError: Somebody has not, or is missing.
        """
        self._check_everybody("Hello", hellos, "plain-hello", self._config.hash)
        self._confirmed = True
        return enc("plain-confirm", self.sid, self._member.index)

    def start(self, confirms: Sequence[bytes]) -> PlainShield:
        """Checks everybody's Confirm; the session begins with all parties.

        Raises:
            ProtocolError: A Confirm is missing or for another session.
        """
        if not self._confirmed:
            raise self._member.fault("Confirms were not expected now; start a new set-up")
        self._check_everybody("Confirm", confirms, "plain-confirm", self.sid)
        return PlainShield(self._config, self._member, self.sid)

    def _check_everybody(self, what: str, messages: Sequence[bytes], purpose: str, expected: bytes) -> None:
        decoded = [dec(purpose, message, (HASH_BYTES, int)) for message in messages]
        if any(found != expected for found, _ in decoded):
            raise self._member.fault("a party was given another Config")
        places = [place for _, place in decoded]
        if places != list(range(self._config.parties)):
            raise self._member.fault(f"expected one {what} per party in roster order, found {places}")


class PlainShield(Guarded):
    """The contributing party's end without protection.

    Attributes:
        rounds: The view, the next round and the last message.
    """

    def __init__(self, config: Config, member: Member, sid: bytes) -> None:
        """Begins in view 0, the whole roster.

        Args:
            config: Agreed settings.
            member: The party.
            sid: Session id.
        """
        self.rounds = Rounds(config, member, sid)
        self._config, self._member, self._sid = config, member, sid
        self._frames = BufferPool()

    @classmethod
    def joining(cls, config: Config, member: Member) -> PlainJoining:
        """Checks the Config and begins set-up, which ends in this shield.

        Raises:
            ProtocolError: As in `PlainJoining`.
        """
        return PlainJoining(config, member)

    def __repr__(self) -> str:
        """Shows the party and the round."""
        return f"<PlainShield of {self._member.name}: round {self.rounds.next}>"

    def join(self, view: View) -> None:
        """Moves to a smaller view.

        Raises:
            ProtocolError: V1 forbids it.
        """
        self.rounds.join(view)

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns the server's message; a repeated request gets the identical bytes, whatever the contribution.

        Raises:
            ProtocolError: The round is over or too far ahead.
            EncodingError: The contribution cannot be encoded; the round is given up.
        """
        message = self.rounds.repeated(context)
        if message is None:
            ctx, manifest, bits = self.rounds.admit(context), context.manifest, self._config.encoding.ring
            size = manifest.words(self._config.contributors)
            encoder = Encoder.of(self._config, self._member, manifest, contribution)
            header = (self._sid, self.rounds.vid, context.number, self._member.index, ctx, size, bits)
            message, words = Masked.frame(*header, self._frames, checked=False)
            # As with masks: half-encoded words are given up with their round, so that both schemes count alike.
            try:
                run(words, encoder.encode)
            finally:
                self.rounds.skip(context.number)
            self.rounds.commit(context, ctx, message)
        return {self._config.receivers[0]: message}

    def verify(self, number: Round, opened: OpenedSum, source: PartyName, *, late: bool = False) -> None:
        """Accepts every sum: whoever reads all contributions is believed as well.

        Args:
            number: The round.
            opened: Its sum.
            source: Who handed it out.
            late: Not needed.
        """

    def follow(self, context: RoundContext) -> None:
        """Awaits nothing: there is no check.

        Args:
            context: Not needed.
        """

    def reply(self, broadcast: bytes) -> bytes:
        """Refuses: one exchange is all.

        Raises:
            ProtocolError: Always.
        """
        raise self._member.fault(f"a plain sum has one exchange a round, found a further one of {len(broadcast)} bytes")
