# SPDX-License-Identifier: Apache-2.0
"""What a party remembers across sessions: which model it served with whom, with which rows, and how often.

One object per party process, given to every shield. It knows hashes, names and counts; it does not know what limits
apply (that is `policy`), what a round contains, nor where its records are kept. Nothing is ever forgotten: a bound on
its size would be a way to make it forget.

What must outlast the process goes to a store before it counts: the members of every model, and the set-ups begun and
finished. How often a model served is counted per session, and no session outlasts the process. With which rows is kept
as long as the process, as is over whom each run has summed, unless the run is kept (`Turnover.keep`): after a restart a
model is summed only over members it was summed over before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fedray.errors import ProtocolError
from fedray.protocol.rows import Rows, RowUses
from fedray.protocol.turnover import Turnover
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
class _Session:
    """One session's uses of one model: over whom, and the rounds of each purpose by the name of their rows."""

    views: set[tuple[PartyName, ...]] = field(default_factory=set)
    rounds: dict[str, Counter[bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _Uses:
    """Uses of one model hash.

    Attributes:
        kept: Whether the store has it from an earlier process, of which rows are not known.
        members: All member sets.
        sessions: Uses by session, of this process.
        rows: Purpose -> rows by member set, of this process.
    """

    kept: bool = False
    members: set[tuple[PartyName, ...]] = field(default_factory=set)
    sessions: dict[bytes, _Session] = field(default_factory=dict)
    rows: dict[str, RowUses] = field(default_factory=dict)


class ModelMemory:
    """Counts rounds per model hash, session, purpose and rows, and keeps the member sets.

    Args:
        kept: What the store has taken so far, in order.
        store: Takes each new memo, for good, before it counts; None where the memory may end with the process.
    """

    def __init__(self, kept: Iterable[Memo] = (), store: Callable[[Memo], None] | None = None) -> None:
        self._uses: dict[bytes, _Uses] = {}
        self._runs: dict[bytes, Turnover] = {}
        self._attempts: dict[bytes, int] = {}
        self._store = store
        for memo in kept:
            self._take(memo)
        for uses in self._uses.values():
            uses.kept = True

    def knows(self, model: bytes) -> bool:
        """Returns whether a model was summed at all, in this process or before."""
        return model in self._uses

    def check(
        self,
        session: bytes,
        model: bytes,
        purpose: str,
        members: tuple[PartyName, ...],
        limit: int,
        rows: Rows | None = None,
        *,
        allow_other_members: bool = False,
    ) -> None:
        """Checks that one more round is allowed.

        Args:
            session: Session id.
            model: Hash of the model, or an operation id.
            purpose: What the round is for.
            members: Whose inputs it sums, in roster order.
            limit: Most rounds of this purpose on one model, and with the same rows where those are known. Where they
                are not, that is for one view; each smaller view allows one more.
            rows: This party's rows in it; None where nothing tells them from those of other rounds.
            allow_other_members: Whether sums over other members may have used the model, and the rows.

        Raises:
            ProtocolError: The limit is reached, or the model was used with other members in another session, or with
                other members and the same rows.
        """
        uses = self._uses.get(model, _Uses())
        here = uses.sessions.get(session, _Session())
        if not allow_other_members:
            self._check_members(uses, session, members, rows is not None)
            if rows is not None and purpose in uses.rows:
                uses.rows[purpose].check(members, rows)
        rounds = here.rounds.get(purpose, Counter())
        if rows is None:
            served, most = rounds.total(), limit + len(here.views | {members}) - 1 if limit else 0
        else:
            # Further rows, or a further pass over them, are no repetition: over the same members they show what rounds
            # on a model that has moved would show, sums over all of them.
            served, most = rounds[rows.name] + rounds[b""], limit
        if served >= most:
            same = "one and the same model" if rows is None else "one and the same model and rows"
            raise ProtocolError(
                f"this session already served {served} rounds of purpose {purpose!r} on {same}, this party allows "
                f"{most}"
            )

    @staticmethod
    def _check_members(uses: _Uses, session: bytes, members: tuple[PartyName, ...], rows_known: bool) -> None:
        views = uses.sessions.get(session, _Session()).views
        # A smaller view of this session is foreseen (V1) and paid for by the count or the rows; another set never is,
        # unless the rows of all sums on the model are known.
        shrunk = any(set(members) < set(earlier) for earlier in views)
        only_here = not uses.kept and uses.sessions.keys() <= {session}
        if members in uses.members or shrunk or (only_here and (rows_known or not uses.members)):
            return
        known = " or ".join(str(list(m)) for m in sorted(uses.members))
        raise ProtocolError(
            f"this model was already summed over {known} in another session, now over {list(members)}: the "
            "difference of the two could show one party's input. Start from another random_seed, so that the model "
            "is another one, go on with the same parties, or allow it in the party's policy (allow_other_members)"
        )

    def record(
        self, session: bytes, model: bytes, purpose: str, members: tuple[PartyName, ...], rows: Rows | None = None
    ) -> None:
        """Remembers one round.

        Args:
            session: Session id.
            model: Hash of the model, or an operation id.
            purpose: What the round is for.
            members: Whose inputs it sums, in roster order.
            rows: As in `check`.

        Raises:
            FedRayError: The store did not take it; then nothing of the round may leave.
        """
        # To the store first: a set that is only in memory when the process dies was never recorded.
        if members not in self._uses.get(model, _Uses()).members:
            self._keep(Served(model, members))
        uses = self._uses[model]
        here = uses.sessions.setdefault(session, _Session())
        here.views.add(members)
        here.rounds.setdefault(purpose, Counter())[b"" if rows is None else rows.name] += 1
        if rows is not None:
            uses.rows.setdefault(purpose, RowUses()).record(members, rows)

    def record_opening(
        self, model: bytes, purpose: str, members: tuple[PartyName, ...], rows: Rows | None = None
    ) -> None:
        """Remembers that a round that was recorded has summed these members only, as others have decided.

        Args:
            model: As in `record`.
            purpose: As in `record`.
            members: As in `record`.
            rows: As in `record`.

        Raises:
            FedRayError: The store did not take it.
        """
        if members not in self._uses.get(model, _Uses()).members:
            self._keep(Served(model, members))
        if rows is not None:
            self._uses[model].rows.setdefault(purpose, RowUses()).record(members, rows)

    def summed(self, model: bytes, purpose: str, rows: Rows) -> bool:
        """Returns whether some of these rows were, or may have been, summed on a model, over whomever.

        Args:
            model: As in `record`.
            purpose: As in `record`.
            rows: As in `record`.
        """
        uses = self._uses.get(model, _Uses()).rows.get(purpose)
        return uses is not None and uses.has(rows)

    def turnover(self, rows: Rows) -> Turnover:
        """Returns what the run of these rows has summed so far; nothing where they are of none."""
        return self.run(rows.run) if rows.run else Turnover()

    def run(self, name: bytes) -> Turnover:
        """Returns what the run of that name has summed so far."""
        return self._runs.setdefault(name, Turnover())

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
