# SPDX-License-Identifier: Apache-2.0
"""Ledger: the pages of all parties side by side, to look at, to sum up and to keep.

Knows the pages and the parties' public keys, and no session. Pure but for `save`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from fedray.errors import shown
from fedray.party.door.entry import Entry, Total
from fedray.party.door.ledger_file import Book, to_bytes
from fedray.party.door.ledger_page import LedgerPage
from fedray.party.whole_file import replace_file
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt to let a value leave a party.

    Attributes:
        party: The party.
        index: The entry's number at this party, from 0.
        entry: What was to leave, to whom, and whether it did.
    """

    party: PartyName
    index: int
    entry: Entry


class Ledger:
    """What left every party since the session began, as each party itself wrote it down.

    Args:
        book: One page per party that answered, all of one reading of one session.
    """

    def __init__(self, book: Book) -> None:
        self.book = book

    @property
    def pages(self) -> Mapping[PartyName, LedgerPage]:
        """One page per party that answered."""
        return self.book.pages

    @property
    def roster(self) -> Mapping[PartyName, bytes]:
        """Public identity keys of all parties of the session."""
        return self.book.roster

    @property
    def missing(self) -> tuple[PartyName, ...]:
        """Parties that did not answer."""
        return tuple(name for name in self.roster if name not in self.pages)

    @property
    def rows(self) -> list[Row]:
        """All entries, party by party, in the order in which they left.

        Raises:
            PlanError: It was read without them.
        """
        return [
            Row(name, index, entry) for name, page in self.pages.items() for index, entry in enumerate(page.entries)
        ]

    def totals(self) -> dict[tuple[PartyName, PartyName, str], Total]:
        """Returns (party, to, kind) -> sum, as each party has signed it."""
        return {
            (name, to, kind): total
            for name, page in self.pages.items()
            for (to, kind), total in page.head.totals.items()
        }

    def verify(self) -> list[str]:
        """Returns what is wrong; nothing when every party answered this reading and its chain and signature hold."""
        return self.book.problems()

    def state(self) -> str:
        """Returns which session it is, and whether anything may have left that is not in it."""
        return state(self.book)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ledger as JSON lines, which `fedray ledger FILE --verify` checks.

        Args:
            path: The file. It is replaced whole, once the new one is on the disk.

        Raises:
            PlanError: It was read without its entries, or there is something of that name that is no file.
            OSError: It cannot be written; a file that was there is as it was.
        """
        replace_file(path, to_bytes(self.book))

    def __len__(self) -> int:
        return sum(page.head.count for page in self.pages.values())

    def __repr__(self) -> str:
        return table(self.totals(), self.missing)


def state(book: Book) -> str:
    """Returns which session a ledger is of, and what nobody can know from it."""
    what = f"session {book.sid.hex()[:16]}, reading {book.reading}"
    pending = book.open()
    if not pending:
        return f"{what}; closed: nothing left these parties afterwards"
    who = "every party" if len(pending) == len(book.pages) else ", ".join(map(shown, pending))
    return f"{what}; open: the session had not ended at {who}, and what left later is not in it"


def table(totals: Mapping[tuple[PartyName, PartyName, str], Total], missing: tuple[PartyName, ...] = ()) -> str:
    """Returns totals as lines of text.

    Args:
        totals: (party, to, kind) -> sum.
        missing: Parties of which nothing is known.
    """
    lines = [("party", "to", "kind", "values", "bytes", "refused")]
    for names, total in totals.items():
        party, to, kind = map(shown, names)
        lines.append((party, to, kind, f"{total.count:,}", f"{total.nbytes:,}", f"{total.refused:,}"))
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    rows = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    return "\n".join([*rows, *(f"{shown(name)}: missing" for name in missing)])


def _aligned(line: tuple[str, ...], widths: list[int]) -> list[str]:
    # Three names, then three numbers.
    return [text.rjust(w) if i >= 3 else text.ljust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))]
