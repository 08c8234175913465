# SPDX-License-Identifier: Apache-2.0
"""What one party accepts as the sum of a round that it sent words for (SECAGG section 16).

Knows the coefficients of the last round, and which sets of parties may be summed. Does not know what the words mean,
nor how an answer travels. One answer is judged a round; after one that does not fit there are no further rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedray.errors import ProtocolError, ServerFault
from fedray.protocol.checks.inner_product import InnerProduct
from fedray.protocol.checks.secret import GroupSecret, RoundChecks
from fedray.protocol.config import Config
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.member import Member
from fedray.protocol.opened import OpenedSum
from fedray.protocol.pipeline import run
from fedray.types import PartyName, Round


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class _Awaited:
    """The round whose sum is awaited."""

    number: Round
    checks: RoundChecks
    size: int


class Judge(Guarded):
    """One party's judgement of the sums of one session.

    Args:
        config: Agreed settings.
        member: The party.
        group: The session's secret; None for a party that contributes nothing.
    """

    def __init__(self, config: Config, member: Member, group: GroupSecret | None) -> None:
        self._config, self._member, self._group = config, member, group
        self._contributors = config.owners or member.roster.names
        self._awaited: _Awaited | None = None
        self._judged: Round = -1
        self._liar: PartyName | None = None

    @property
    def confirm(self) -> bytes:
        """What enters every context of this session: it shows that all contributors hold one secret."""
        return b"" if self._group is None else self._group.confirm

    def begin(self, over: bytes, number: Round, ctx: bytes, size: int) -> OwnCheck:
        """Returns the check of this party's own words of a round, of which nothing was taken yet; awaits their sum.

        Args:
            over: Names the set of parties, or the keys, that the round's sum is over.
            number: The round.
            ctx: Hash of all that the inputs depend on.
            size: Words L of the vector.

        Raises:
            ProtocolError: As for `expect`.
        """
        return OwnCheck(self.expect(over, number, ctx, size), self._member.index)

    def expect(self, over: bytes, number: Round, ctx: bytes, size: int) -> RoundChecks:
        """Awaits the sum of a round, and no more those of rounds before it; returns its coefficients and offsets.

        Args:
            over: Names the set of parties, or the keys, that the round's sum is over.
            number: The round.
            ctx: Hash of all that the inputs depend on.
            size: Words L of the vector.

        Raises:
            ProtocolError: A sum of this session was not what it was said to be, the round was judged, or this party
                contributes nothing.
        """
        self.check_going_on()
        if self._group is None:
            raise self._member.fault(f"it contributes nothing to this session, whose owners are {self._contributors}")
        if number <= self._judged:
            raise self._member.fault(f"the sum of round {self._judged} was judged, and round {number} is not after it")
        checks = self._group.checks(self._config.scheme, over, number, ctx, size, self._config.encoding.ring)
        self._awaited = _Awaited(number, checks, size)
        return checks

    def check_going_on(self) -> None:
        """Checks that no sum of this session was found to be another than it was said to be.

        Raises:
            ServerFault: One was.
        """
        if self._liar is not None:
            raise ServerFault(
                f"{self._member.name}: this session ended when {self._liar} handed out a sum that is none; start anew"
            )

    def verify(
        self,
        number: Round,
        opened: OpenedSum,
        source: PartyName,
        certified: tuple[PartyName, ...] | None = None,
        *,
        late: bool = False,
    ) -> None:
        """Accepts a sum, or ends the session.

        Args:
            number: The round.
            opened: What was handed out as its sum.
            source: Who handed it out.
            certified: Whose inputs the sum is over, where this party knows it.
            late: Whether this party was told that its own words came too late.

        Raises:
            ServerFault: It is not the sum of a set that may be summed, or not of the round that is awaited.
        """
        self.check_going_on()
        awaited, self._awaited = self._awaited, None  # whatever comes of it, there is no second try
        self._judged = max(self._judged, number)
        try:
            self._check_members(opened.members, certified, late=late)
            self._check_sum(number, opened, awaited)
        except ProtocolError as error:
            self._liar = source
            raise ServerFault(
                f"{self._member.name}: the sum of round {number} that {source} handed out is refused, and the session "
                f"is over: {error}"
            ) from None

    def _check_sum(self, number: Round, opened: OpenedSum, awaited: _Awaited | None) -> None:
        if awaited is None or awaited.number != number:
            raise ProtocolError("no sum of this round is awaited here: one answer is judged, for the last round")
        self._check_words(opened, awaited)
        product = awaited.checks.product()
        run(opened.words, product.take)
        places = [self._member.roster.index(name) for name in opened.members]
        if awaited.checks.check(product, places) != opened.check:
            raise ProtocolError(
                f"it is not the sum of what {', '.join(opened.members)} sent: its check does not fit. It was altered, "
                "or belongs to another round or other parties"
            )

    def _check_members(
        self, members: tuple[PartyName, ...], certified: tuple[PartyName, ...] | None, *, late: bool
    ) -> None:
        least = self._config.least_members
        if members != tuple(name for name in self._contributors if name in members):
            raise ProtocolError("it is over parties that are not contributors, each once and in roster order")
        # Not only the empty set: any small one has a sum that says too much of somebody.
        if len(members) < least:
            raise ProtocolError(f"it is over {len(members)} parties, expected at least {least}")
        if not late and self._member.name not in members:
            raise ProtocolError("it is over a set without this party, which was not told that it was late")
        if certified is not None and members != certified:
            raise ProtocolError(f"it is over {', '.join(members)}, expected {', '.join(certified)}")

    def _check_words(self, opened: OpenedSum, awaited: _Awaited) -> None:
        words, ring = opened.words, self._config.encoding.ring
        if not isinstance(words, np.ndarray) or words.dtype != f"<u{ring // 8}" or words.shape != (awaited.size,):
            found = f"{words.dtype}{list(words.shape)}" if isinstance(words, np.ndarray) else type(words).__name__
            raise ProtocolError(f"expected {awaited.size} words of {ring} bits, found {found}")
        check, limit = opened.check, self._config.encoding.sum_limit
        if isinstance(check, bool) or not isinstance(check, int) or not 0 <= check < PRIME:
            raise ProtocolError("it has no check that is a number from 0 to 2^61 - 2")
        signed = words.view(f"<i{ring // 8}")
        # Within these limits no two sums differ by a multiple of the prime.
        if len(signed) and not -limit < int(np.minimum.reduce(signed)) <= int(np.maximum.reduce(signed)) < limit:
            raise ProtocolError("a word is beyond what any sum reaches")


class OwnCheck(Guarded):
    """The check of one party's own words, taken stretch by stretch.

    Attributes:
        product: Its inner product, whose `take` is a stage of a pipeline between the encoder and the pad.
    """

    def __init__(self, checks: RoundChecks, place: int) -> None:
        self.product: InnerProduct = checks.product()
        self._checks, self._place = checks, place

    def result(self) -> int:
        """Returns the check, not yet masked: it never leaves the party like this."""
        return self._checks.check(self.product, [self._place])
