# SPDX-License-Identifier: Apache-2.0
"""Member: one party's standing facts, the same in every session it joins, whatever the scheme.

Knows who the party is, whom it knows, what it accepts and what it remembers. Does not know any session.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Guarded, Roster, public_bytes
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import RoundContext
from fedray.types import PartyName


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Member(Guarded):
    """One party, as each of its ends needs it.

    Attributes:
        name: The party's own name.
        identity: Its identity key.
        roster: Its own copy of the session's roster.
        policy: What it accepts.
        memory: The process's memory of models, the same object for all its ends.
        index: Its place in the roster.
    """

    name: PartyName
    identity: Ed25519PrivateKey
    roster: Roster
    policy: Policy
    memory: ModelMemory
    index: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", self.roster.index(self.name))
        # Others would check its signatures with the roster's key, and lay the refusal at its door.
        if self.roster.keys[self.index] != public_bytes(self.identity):
            raise self.fault("the roster holds another identity key for this party")

    def __repr__(self) -> str:
        """Shows the name, nothing secret."""
        return f"<Member {self.name}>"

    def check_model(
        self,
        sid: bytes,
        context: RoundContext,
        members: tuple[PartyName, ...],
        more: int = 0,
        *,
        open_later: bool = False,
    ) -> None:
        """Checks that one more round on a model, and with these rows, is allowed.

        Args:
            sid: Session id.
            context: The round: its model and what it is for.
            members: Whose inputs it sums, in roster order.
            more: Rounds allowed on top of the policy's.
            open_later: Whether it is decided later whose inputs are opened; see `check_opening`.

        Raises:
            ProtocolError: The policy's limit is reached, or the model was used with other members in another session,
                or with other members and the same rows; or the rows were summed over others in this pass.
        """
        try:
            self.memory.check(
                sid,
                context.model,
                context.purpose,
                members,
                self.policy.rounds_for(context.purpose) + more,
                context.rows,
                allow_other_members=self.policy.allow_other_members,
            )
            self._check_rows(context, None if open_later else members, leaving=True)
        except ProtocolError as error:
            raise self.fault(str(error)) from None

    def check_opening(self, context: RoundContext, members: tuple[PartyName, ...]) -> None:
        """Checks that rows which have left may be opened over a set.

        Args:
            context: Their round.
            members: The set, in roster order.

        Raises:
            ProtocolError: They were summed over others in this pass, or the set has changed often enough.
        """
        self._check_rows(context, members, leaving=False)

    def record(
        self, sid: bytes, context: RoundContext, members: tuple[PartyName, ...], *, open_later: bool = False
    ) -> None:
        """Remembers a round that is about to leave; see `check_model`.

        Raises:
            FedRayError: The store did not take it; then nothing of the round may leave.
        """
        self.memory.record(sid, context.model, context.purpose, members, context.rows)
        if context.rows is not None:
            self.memory.turnover(context.rows).record(context.rows, None if open_later else members)

    def leave(self, context: RoundContext) -> None:
        """Remembers beyond this process that rows of a round leave before anybody knows over whom they are summed.

        Raises:
            FedRayError: The store did not take it; then nothing of the round may leave.
        """
        if context.rows is not None:
            self.memory.turnover(context.rows).leave(context.rows)

    def allows_only(self, context: RoundContext, members: tuple[PartyName, ...]) -> bool:
        """Returns whether a round of which others decide whose inputs are opened may be opened over a set only.

        It may be over that one only where the party's rows were summed before, on this model or in this pass; where
        the set has changed often enough; and where the policy allows no smaller view.

        Args:
            context: The round.
            members: The set, in roster order.

        Raises:
            ProtocolError: It may not be opened over that set either: it has changed often enough.
        """
        policy, rows = self.policy, context.rows
        if policy.views == 0:
            return True
        if rows is None:
            return False
        turnover = self.memory.turnover(rows)
        try:
            turnover.check_change(members, policy.member_changes)
        except ProtocolError as error:
            raise self.fault(str(error)) from None
        summed = self.memory.summed(context.model, context.purpose, rows) and not policy.allow_other_members
        return summed or turnover.settled(rows, policy.member_changes)

    def record_opening(self, context: RoundContext, members: tuple[PartyName, ...]) -> None:
        """Remembers over whom a round was opened that was recorded with `open_later`.

        Raises:
            FedRayError: The store did not take it.
        """
        self.memory.record_opening(context.model, context.purpose, members, context.rows)
        if context.rows is not None:
            self.memory.turnover(context.rows).record(context.rows, members)

    def _check_rows(self, context: RoundContext, members: tuple[PartyName, ...] | None, *, leaving: bool) -> None:
        if context.rows is None:
            return
        turnover = self.memory.turnover(context.rows)
        if not self.policy.allow_other_members:
            turnover.check_rows(context.rows, members, leaving=leaving)
        if members is not None:
            turnover.check_change(members, self.policy.member_changes)

    def fault(self, message: str) -> ProtocolError:
        """Returns an error in this party's name."""
        return ProtocolError(f"{self.name}: {message}")
