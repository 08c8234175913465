# SPDX-License-Identifier: Apache-2.0
"""Which view, which round, which context: the rules V1 to V3 that a party keeps whatever hides its words.

Knows the order of rounds and the one message of the last one. Does not know keys, masks or how numbers are encoded.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.config import NO_PRIVACY, Config
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.member import Member
from fedray.protocol.messages import digest, enc_list
from fedray.protocol.scheme import RoundContext, View
from fedray.types import Round

MOST_STEPS = 1024
"""How far ahead of the next round a round number may be: keys step once a round, and a huge number would keep the party
busy for ever."""

CACHE_BYTES = 1 << 26
"""Messages up to this size are kept for a repeated request; a longer one would hold its memory for a whole round."""


def view_id(sid: bytes, counter: int, indices: tuple[int, ...]) -> bytes:
    """Returns vid, which names a view in every pad key.

    Args:
        sid: Session id.
        counter: The view's counter.
        indices: Places of its members in the roster, in order.
    """
    return digest("view", sid, counter, enc_list("view-indices", indices))


def context_hash(config: Config, sid: bytes, agreed: bytes, previous: bytes, context: RoundContext) -> bytes:
    """Returns ctx of R0: all that a round's input depends on.

    Args:
        config: Agreed settings.
        sid: Session id.
        agreed: What shows that all hold one secret for the checks of sums; empty where there is none.
        previous: The party's previous ctx of this session (scheme masking), else empty.
        context: What the party received.

    Raises:
        ProtocolError: The model hash is not 32 bytes.
    """
    if not isinstance(context.model, bytes) or len(context.model) != 32:
        raise ProtocolError("a round's model is named by a SHA-256 hash or an operation id of 32 bytes")
    received = (context.purpose, context.model, hashlib.sha256(context.settings).digest(), context.manifest.hash)
    repeats = 0 if context.repeats is None else 1 + context.repeats
    # Both are hashes, or empty: which of two is there alone, no other pair of equal bytes can pretend.
    place = (sid, agreed, context.number, context.history + previous, repeats)
    return digest("ctx", *place, *received, config.encoding.canonical, NO_PRIVACY)


class Rounds(Guarded):
    """How far one party is in a session: its view, its next round, and what it sent last.

    Attributes:
        view: Whose inputs the next round sums.
        members: Their places in the roster, in order.
        vid: Id of the view.
        next: Smallest number of the next round.
    """

    def __init__(
        self, config: Config, member: Member, sid: bytes, most_views: int | None = None, *, agreed: bytes = b""
    ) -> None:
        """Begins in view 0, the whole roster.

        Args:
            config: Agreed settings.
            member: The party.
            sid: Session id.
            most_views: How many smaller views it may move to; None for as many as the thresholds allow.
            agreed: What shows that all hold one secret for the checks of sums; empty where there is none.
        """
        self._config, self._member, self._sid, self._agreed = config, member, sid, agreed
        self._places = {name: place for place, name in enumerate(member.roster.names)}
        self._enter(View(0, member.roster.names))
        self.next: Round = 0
        self._views_left = most_views
        self._previous = self._before = b""
        self._sent: tuple[bytes, bytes, Round] | None = None
        self._message: NDArray[np.uint8] | None = None

    def join(self, view: View) -> None:
        """Moves to a smaller view; the present one again changes nothing.

        Raises:
            ProtocolError: V1 forbids it.
        """
        if view == self.view:
            return
        self._check_view(view)
        # Counted only when all else allows it: a refused offer must not use up what the policy grants.
        if self._views_left is not None:
            if self._views_left < 1:
                raise self._member.fault("its policy allows no further smaller view in this session")
            self._views_left -= 1
        self._enter(view)

    def _enter(self, view: View) -> None:
        self.view = view
        self.members = tuple(self._places[name] for name in view.members)
        self.vid = view_id(self._sid, view.counter, self.members)

    def _check_view(self, view: View) -> None:
        members, least = set(view.members), self._config.least_members
        ordered = tuple(n for n in self._member.roster.names if n in members)
        if view.members != ordered:
            raise self._member.fault(f"a view lists parties of the roster once and in its order, found {view.members}")
        if self._member.name not in members:
            raise self._member.fault("it is not in the new view: it may come back only through a new session")
        # Proper subsets with growing counters form a chain; in a chain no two sums differ by what somebody else chose.
        if not members < set(self.view.members) or view.counter <= self.view.counter:
            raise self._member.fault(
                f"a view only shrinks and its counter only grows; it is in view {self.view.counter} of "
                f"{self.view.members}, asked for view {view.counter} of {view.members}"
            )
        if len(members) < least:
            raise self._member.fault(
                f"a view of {len(members)} parties is too small, its policy and quorum require {least}"
            )

    def repeated(self, context: RoundContext) -> NDArray[np.uint8] | None:
        """Returns the message of the last round if this is the same request again, else None for a new round.

        Raises:
            ProtocolError: The round's pad was used for another request, or its message is no longer kept.
        """
        if context.number >= self.next:
            return None
        if self._sent is not None and context.number == self._sent[2]:
            ctx = context_hash(self._config, self._sid, self._agreed, self._before, context)
            if self._sent[:2] == (self.vid, ctx):
                # It cannot be made again: its keys are gone, and that is what makes the pad unique.
                if self._message is None:
                    raise self._member.fault(f"the message of round {context.number} is no longer kept")
                return self._message
        raise self._member.fault(
            f"round {context.number} is over: one message is sent per round, and the next round is {self.next} or later"
        )

    def admit(self, context: RoundContext) -> bytes:
        """Returns ctx of a new round.

        Raises:
            ProtocolError: The number is too far ahead, or the model is not named by a hash.
        """
        if context.number - self.next >= MOST_STEPS:
            raise self._member.fault(f"round {context.number} is more than {MOST_STEPS} ahead of round {self.next}")
        return context_hash(self._config, self._sid, self._agreed, self._previous, context)

    def commit(self, context: RoundContext, ctx: bytes, message: NDArray[np.uint8]) -> None:
        """Closes a round whose message is about to leave.

        Args:
            context: What was received for the round.
            ctx: Its hash.
            message: The message, uint8[n]; it is made read-only.
        """
        # `_before` was the previous context when this message was made: a repeated request must hash to the same.
        self._before, self._previous = self._previous, ctx
        self._sent, self.next = (self.vid, ctx, context.number), context.number + 1
        # Whoever holds it must not change what a repeated request will return.
        message.flags.writeable = False
        self._message = message if message.nbytes <= CACHE_BYTES else None

    def skip(self, number: Round) -> None:
        """Gives a round up whose pad was used without a message leaving."""
        self.next = max(self.next, number + 1)
