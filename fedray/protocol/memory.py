# SPDX-License-Identifier: Apache-2.0
"""What a party remembers across sessions: which model it served with whom, and how often.

One object per party process, given to every shield. It knows hashes, names and counts; it does not know what limits
apply (that is `policy`), what a round contains, nor where its records are kept. Nothing is ever forgotten: a bound on
its size would be a way to make it forget.

What must outlast the process goes to a store before it counts: the members of every model, and the set-ups begun and
finished. How often a model served is counted per session, and no session outlasts the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fedray.errors import ProtocolError
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class Served:
    """A model was summed over these members."""

    model: bytes
    members: tuple[PartyName, ...]


@dataclass(frozen=True, slots=True)
class SetUp:
    """A set-up of this roster was begun, or one was finished."""

    roster: bytes
    what: Literal["begun", "finished"]


Memo: TypeAlias = Served | SetUp


@dataclass(slots=True)
class _Uses:
    """Uses of one model hash: all member sets, and per session the sets and the rounds by purpose."""

    members: set[tuple[PartyName, ...]] = field(default_factory=set)
    sessions: dict[bytes, tuple[set[tuple[PartyName, ...]], dict[str, int]]] = field(default_factory=dict)


class ModelMemory:
    """Counts rounds per model hash, session and purpose, and keeps the member sets.

    Args:
        kept: What the store has taken so far, in order.
        store: Takes each new memo, for good, before it counts; None where the memory may end with the process.
    """

    def __init__(self, kept: Iterable[Memo] = (), store: Callable[[Memo], None] | None = None) -> None:
        self._uses: dict[bytes, _Uses] = {}
        self._attempts: dict[bytes, int] = {}
        self._store = store
        for memo in kept:
            self._take(memo)

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
        uses = self._uses.get(model, _Uses())
        views, counts = uses.sessions.get(session, (set(), {}))
        # A smaller view of this session is foreseen (V1) and paid for by the count below; another set never is.
        shrunk = any(set(members) < set(earlier) for earlier in views)
        if uses.members and members not in uses.members and not shrunk and not allow_other_members:
            known = " or ".join(str(list(m)) for m in sorted(uses.members))
            raise ProtocolError(
                f"this model was already summed over {known} in another session, now over {list(members)}: the "
                "difference of the two could show one party's input. Start from another random_seed, so that the model "
                "is another one, go on with the same parties, or allow it in the party's policy (allow_other_members)"
            )
        served, most = counts.get(purpose, 0), limit + len(views | {members}) - 1 if limit else 0
        if served >= most:
            raise ProtocolError(
                f"this session already served {served} rounds of purpose {purpose!r} on one and the same model, this "
                f"party allows {most}"
            )

    def record(self, session: bytes, model: bytes, purpose: str, members: tuple[PartyName, ...]) -> None:
        """Remembers one round.

        Args:
            session: Session id.
            model: Hash of the model, or an operation id.
            purpose: What the round is for.
            members: Whose inputs it sums, in roster order.

        Raises:
            FedRayError: The store did not take it; then nothing of the round may leave.
        """
        # To the store first: a set that is only in memory when the process dies was never recorded.
        if members not in self._uses.get(model, _Uses()).members:
            self._keep(Served(model, members))
        views, counts = self._uses[model].sessions.setdefault(session, (set(), {}))
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
                "whoever answers last may be choosing the outcome. Where that is known to be harmless, raise "
                "'attempts' in the party's policy"
            )
        self._keep(SetUp(roster, "begun"))

    def finish(self, roster: bytes) -> None:
        """Takes back one count of a set-up that was finished."""
        self._keep(SetUp(roster, "finished"))

    def _keep(self, memo: Memo) -> None:
        if self._store is not None:
            self._store(memo)
        self._take(memo)

    def _take(self, memo: Memo) -> None:
        if isinstance(memo, Served):
            self._uses.setdefault(memo.model, _Uses()).members.add(memo.members)
        else:
            # Not below zero: a log that begins in the middle may finish what it never saw begin.
            step = 1 if memo.what == "begun" else -1
            self._attempts[memo.roster] = max(0, self._attempts.get(memo.roster, 0) + step)
