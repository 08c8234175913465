# SPDX-License-Identifier: Apache-2.0
"""What a party remembers across sessions: which model it served with whom, and how often.

One object per party process, given to every shield. It knows hashes, names and counts; it does not know what limits
apply (that is `policy`) nor what a round contains. Nothing is ever forgotten: a bound on its size would be a way to
make it forget.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedray.errors import ProtocolError
from fedray.types import PartyName


@dataclass(slots=True)
class _Uses:
    """Uses of one model hash: all member sets, and per session the sets and the rounds by purpose."""

    members: set[tuple[PartyName, ...]] = field(default_factory=set)
    sessions: dict[bytes, tuple[set[tuple[PartyName, ...]], dict[str, int]]] = field(default_factory=dict)


class ModelMemory:
    """Counts rounds per model hash, session and purpose, and keeps the member sets."""

    def __init__(self) -> None:
        self._uses: dict[bytes, _Uses] = {}
        self._attempts: dict[bytes, int] = {}

    def check(
        self,
        session: bytes,
        model: bytes,
        purpose: str,
        members: tuple[PartyName, ...],
        limit: int,
        *,
        allow_other_members: bool = False,
    ) -> None:
        """Checks that one more round is allowed.

        Args:
            session: Session id.
            model: Hash of the model, or an operation id.
            purpose: What the round is for.
            members: Whose inputs it sums, in roster order.
            limit: Most rounds of this purpose on one model in one view; each smaller view allows one more.
            allow_other_members: Whether another session may have used the model with other members.

        Raises:
            ProtocolError: The limit is reached, or the model was used with other members in another session.
        """
        uses = self._uses.get(model)
        if uses is None:
            return
        views, counts = uses.sessions.get(session, (set(), {}))
        shrunk = any(set(members) < set(earlier) for earlier in views)
        if members not in uses.members and not shrunk and not allow_other_members:
            known = " or ".join(str(list(m)) for m in sorted(uses.members))
            raise ProtocolError(
                f"this model was already summed over {known} in another session, now over {list(members)}: the "
                "difference of the two could show one party's input. Go on with the same parties, or allow it in the "
                "party's policy (allow_other_members)"
            )
        most = limit + len(views | {members}) - 1
        if counts.get(purpose, 0) >= most:
            raise ProtocolError(
                f"this session already served {counts[purpose]} rounds of purpose {purpose!r} on one and the same "
                f"model, this party allows {most}"
            )

    def record(self, session: bytes, model: bytes, purpose: str, members: tuple[PartyName, ...]) -> None:
        """Remembers one round."""
        uses = self._uses.setdefault(model, _Uses())
        views, counts = uses.sessions.setdefault(session, (set(), {}))
        uses.members.add(members)
        views.add(members)
        counts[purpose] = counts.get(purpose, 0) + 1

    def begin(self, roster: bytes, limit: int) -> None:
        """Counts one more set-up of a roster.

        Raises:
            ProtocolError: Too many were started and not finished.
        """
        open_attempts = self._attempts.get(roster, 0)
        if open_attempts >= limit:
            raise ProtocolError(
                f"{open_attempts} set-ups with this roster were started and not finished, this party allows {limit}: "
                "whoever answers last may be choosing the outcome"
            )
        self._attempts[roster] = open_attempts + 1

    def finish(self, roster: bytes) -> None:
        """Takes back one count of a set-up that was finished."""
        self._attempts[roster] = max(0, self._attempts.get(roster, 0) - 1)
