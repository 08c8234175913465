# SPDX-License-Identifier: Apache-2.0
"""Ledger: the pages of all parties side by side, to look at, to sum up and to keep.

Pure but for `save`. Knows the pages and the parties' public keys, and no session.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedray.party.door.journal import Entry, LedgerPage, check_page
from fedray.party.door.ledger_file import to_bytes
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


@dataclass(frozen=True, slots=True)
class Total:
    """Sum over entries.

    Attributes:
        count: How many values left.
        nbytes: Their size in bytes.
        refused: How many attempts the policy refused.
    """

    count: int = 0
    nbytes: int = 0
    refused: int = 0

    def with_entry(self, entry: Entry) -> Total:
        """Returns the sum with one more entry."""
        if not entry.allowed:
            # What was refused has not left, so its bytes do not count.
            return Total(self.count, self.nbytes, self.refused + 1)
        return Total(self.count + 1, self.nbytes + entry.nbytes, self.refused)


class Ledger:
    """What left every party since the session began, as each party itself wrote it down.

    Args:
        pages: One page per party that answered.
        roster: Public identity keys of all parties of the session.
    """

    def __init__(self, pages: Mapping[PartyName, LedgerPage], roster: Mapping[PartyName, bytes]) -> None:
        self.pages = dict(pages)
        self.roster = dict(roster)

    @property
    def missing(self) -> tuple[PartyName, ...]:
        """Parties that did not answer."""
        return tuple(name for name in self.roster if name not in self.pages)

    @property
    def rows(self) -> list[Row]:
        """All entries, party by party, in the order in which they left."""
        return [
            Row(name, index, entry) for name, page in self.pages.items() for index, entry in enumerate(page.entries)
        ]

    def totals(self) -> dict[tuple[PartyName, PartyName, str], Total]:
        """Returns (party, to, kind) -> sum, in the order of first appearance."""
        sums: dict[tuple[PartyName, PartyName, str], Total] = {}
        for row in self.rows:
            key = (row.party, row.entry.to, row.entry.kind)
            sums[key] = sums.get(key, Total()).with_entry(row.entry)
        return sums

    def verify(self) -> list[str]:
        """Returns what is wrong; nothing when every party answered and its chain and signature hold."""
        found = (check_page(page, self.roster) for page in self.pages.values())
        return [problem for problem in found if problem] + [f"{name}: missing" for name in self.missing]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ledger as JSON lines, which `fedray ledger FILE --verify` checks.

        Args:
            path: The file; it is replaced.
        """
        Path(path).write_bytes(to_bytes(self.pages, self.roster))

    def __len__(self) -> int:
        return sum(len(page.entries) for page in self.pages.values())

    def __repr__(self) -> str:
        lines = [("party", "to", "kind", "values", "bytes", "refused")]
        for names, total in self.totals().items():
            party, to, kind = map(shown, names)
            lines.append((party, to, kind, f"{total.count:,}", f"{total.nbytes:,}", f"{total.refused:,}"))
        widths = [max(len(line[column]) for line in lines) for column in range(6)]
        table = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
        return "\n".join([*table, *(f"{shown(name)}: missing" for name in self.missing)])


def shown(text: str) -> str:
    """Returns a text as one line for a terminal: whatever it would act upon is escaped, as in a Python string.

    What a ledger says was put down by others, and an escape in a name could hide the lines around it.
    """
    return text if text.isprintable() else repr(text)[1:-1]


def _aligned(line: tuple[str, ...], widths: list[int]) -> list[str]:
    # Three names, then three numbers.
    return [text.rjust(w) if i >= 3 else text.ljust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))]
