# SPDX-License-Identifier: Apache-2.0
"""Over whom one run has summed a party's rows: not twice in a pass over different sets, and how often the set changed.

Counts rows, whatever the model: whoever hands out models, or makes up the sums that they follow from, may move one by
next to nothing, and then a sum over four and one over three differ by the fourth one's part. Knows passes, steps and
names. Knows no row, no model and no session.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from fedray.errors import ProtocolError
from fedray.protocol.rows import Rows
from fedray.types import PartyName

Members = tuple[PartyName, ...]

_WHOLE = 2**63
"""A step behind the last one of any pass."""

_START = attrgetter("start")


@dataclass(slots=True)
class _Sent:
    """A stretch of a pass that has left.

    Attributes:
        start: First step.
        stop: Step after its last.
        over: Whose inputs were summed; None where this party does not know yet, or never will.
    """

    start: int
    stop: int
    over: Members | None


@dataclass(slots=True)
class _Pass:
    """The stretches of one pass that have left.

    A pass may have as many rounds as batches, and each looks for its own rows among them: they are in order, so that it
    looks at its neighbours only.

    Attributes:
        stretches: By their first step.
        longest: Steps of the longest one.
    """

    stretches: list[_Sent] = field(default_factory=list)
    longest: int = 0

    def meeting(self, rows: Rows) -> list[_Sent]:
        """Returns the stretches that have steps in common with these rows; equal ones in the order of their leaving."""
        begin = bisect_left(self.stretches, rows.start - self.longest + 1, key=_START)
        end = bisect_left(self.stretches, rows.stop, key=_START)
        return [sent for sent in self.stretches[begin:end] if rows.start < sent.stop]

    def add(self, sent: _Sent) -> None:
        """Adds a stretch."""
        insort(self.stretches, sent, key=_START)
        self.longest = max(self.longest, sent.stop - sent.start)


class Turnover:
    """What one run at one party has summed."""

    def __init__(self) -> None:
        self._passes: dict[bytes, _Pass] = {}
        self._last: Members | None = None
        self._changes = 0
        self._store: Callable[[bytes, Members], None] | None = None

    def keep(self, known: Iterable[tuple[bytes, Members]], store: Callable[[bytes, Members], None]) -> None:
        """Lets what this run sums outlast the process, pass by pass.

        Args:
            known: (pass, set), as they were stored before; no rows of such a pass go into a sum over another set. The
                empty set is one that nobody knew yet: such rows go into no sum.
            store: Takes each, for good, before it counts.
        """
        self._store = store
        if self._passes:  # of this process: it knows more than the store does
            return
        for pass_name, members in known:
            if members:
                self._changes += self._last not in (None, members)
                self._last = members
            self._passes.setdefault(pass_name, _Pass()).add(_Sent(0, _WHOLE, members))

    def leave(self, rows: Rows) -> None:
        """Has it stored that rows are about to leave of which nobody signs a second time over whom they are summed.

        Args:
            rows: The party's own rows.
        """
        if self._store is not None:
            self._store(rows.pass_name, ())

    def unseen(self) -> bool:
        """Returns whether rows have left of which this party does not know over whom they were summed."""
        return any(sent.over is None for one in self._passes.values() for sent in one.stretches)

    def forgive(self) -> None:
        """Forgets rows of which this party never saw a set, where another honest one has signed whatever set there was.

        Whoever signs for the same rows over another set has signed for the first: two quorums share an honest party.
        """
        for one in self._passes.values():
            one.stretches = [sent for sent in one.stretches if sent.over is not None]

    def check_rows(self, rows: Rows, members: Members | None, *, leaving: bool = True) -> None:
        """Checks that no other set has these rows of this pass.

        Args:
            rows: The party's own rows.
            members: Over whom they would be summed; None where that is decided later.
            leaving: Whether they are about to leave; False where they have, and are about to be opened.

        Raises:
            ProtocolError: One has, or may have.
        """
        for sent in self._met(rows):
            if not sent.over and leaving:
                raise _again("a set that this party never saw", members)
            if None not in (sent.over, members) and sent.over != members:
                raise _again(str(list(sent.over or ())), members)

    def check_change(self, members: Members, most: int | None) -> None:
        """Checks that the set may become this one.

        Args:
            members: Over whom the next sum is.
            most: Most changes that the party allows; None for any number.

        Raises:
            ProtocolError: It was changed often enough.
        """
        if self._last in (None, members) or most is None or self._changes < most:
            return
        raise ProtocolError(
            f"the parties of this run have changed {self._changes} times, this party allows {most}: its rows were "
            f"summed over {list(self._last or ())}, and would be over {list(members)}. Each change may show one "
            "party's part of a sum; go on with the same parties, begin a new run, or raise 'member_changes' in the "
            "party's policy"
        )

    def settled(self, rows: Rows, most: int | None) -> bool:
        """Returns whether rows may be summed over one set only: in this pass they were, or it has changed enough.

        Args:
            rows: The party's own rows.
            most: As in `check_change`.
        """
        return bool(self._met(rows)) or (self._last is not None and most is not None and self._changes >= most)

    def record(self, rows: Rows, members: Members | None) -> None:
        """Remembers rows that are about to leave, or over whom those were summed that have left.

        Args:
            rows: The party's own rows.
            members: As in `check_rows`.
        """
        if members is not None:
            if self._store is not None:
                self._store(rows.pass_name, members)
            self._changes += self._last not in (None, members)
            self._last = members
        same = [sent for sent in self._met(rows) if (sent.start, sent.stop) == (rows.start, rows.stop)]
        known = next((sent for wanted in (None, members) for sent in same if sent.over == wanted), None)
        if known is None or (members is None and known.over is not None):
            self._passes.setdefault(rows.pass_name, _Pass()).add(_Sent(rows.start, rows.stop, members))
        else:
            known.over = members

    def _met(self, rows: Rows) -> list[_Sent]:
        """Returns what has left of the pass and has steps in common with these rows."""
        passed = self._passes.get(rows.pass_name)
        return [] if passed is None else passed.meeting(rows)


def _again(before: str, now: Members | None) -> ProtocolError:
    over = "" if now is None else f", now over {list(now)}"
    return ProtocolError(
        f"these rows were already summed in this pass over {before}{over}: the difference of the two could show one "
        "party's input, however little the model has moved in between. Go on with the next rows, or call fit again, "
        "which begins a new pass"
    )
