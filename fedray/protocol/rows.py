# SPDX-License-Identifier: Apache-2.0
"""Which rows went into the sums on one model, and over whom: two sums that share rows must not differ in members.

Knows names of stretches and numbers of rows, as a party derives them from what it was told. Knows no row, no
model and no session.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedray.errors import ProtocolError
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class Rows:
    """The stretch of a party's rows that one round uses.

    Attributes:
        name: The stretch in its pass over the rows; the same name again is the same round again.
        deal: One way of dealing all row numbers over steps, each number to one step.
        start: First step of the stretch.
        stop: Step after its last.
        used: Rows in it.
        total: Rows that the party has.
        run: The party's own name for the run; empty where it has none.
        pass_name: The pass over the rows that the stretch is of, in this run.
    """

    name: bytes
    deal: bytes
    start: int
    stop: int
    used: int
    total: int
    run: bytes = b""
    pass_name: bytes = b""


class RowUses:
    """The stretches that were summed on one model, by members."""

    def __init__(self) -> None:
        self._sums: dict[tuple[PartyName, ...], set[tuple[bytes, int, int]]] = {}
        self._used = 0

    def check(self, members: tuple[PartyName, ...], rows: Rows) -> None:
        """Checks that no sum over other members has these rows.

        Args:
            members: Whose inputs would be summed.
            rows: The party's own rows in it.

        Raises:
            ProtocolError: One has, or may have.
        """
        known = _stretch(rows) in self._sums.get(members, ())
        used = self._used + (0 if known else rows.used)
        for others, stretches in self._sums.items():
            if others == members:
                continue
            for deal, start, stop in stretches:
                if deal == rows.deal and start < rows.stop and rows.start < stop:
                    raise _again("these rows were", others, members)
                # Dealt otherwise, any row may come again. As long as all sums on the model together use no more rows
                # than there are, none has a whole pass over one set to hold against a pass over another.
                if deal != rows.deal and used > rows.total:
                    raise _again("some of these rows were", others, members)

    def has(self, rows: Rows) -> bool:
        """Returns whether a sum has some of these rows, or may have."""
        try:
            self.check((), rows)
        except ProtocolError:
            return True
        return False

    def record(self, members: tuple[PartyName, ...], rows: Rows) -> None:
        """Remembers a stretch; the same one over the same members again is no other."""
        stretches = self._sums.setdefault(members, set())
        if _stretch(rows) not in stretches:
            stretches.add(_stretch(rows))
            self._used += rows.used


def _stretch(rows: Rows) -> tuple[bytes, int, int]:
    return rows.deal, rows.start, rows.stop


def _again(what: str, before: tuple[PartyName, ...], now: tuple[PartyName, ...]) -> ProtocolError:
    return ProtocolError(
        f"{what} already summed on this model over {list(before)}, now over {list(now)}: the difference of the two "
        "could show one party's input. Go on with the same parties, change what keeps the model as it is (a learning "
        "rate of 0), start from another random_seed, or allow it in the party's policy (allow_other_members)"
    )
