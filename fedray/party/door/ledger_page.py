# SPDX-License-Identifier: Apache-2.0
"""A page: one party's ledger as it was read, and the check that it is as the party signed it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedray.errors import PlanError
from fedray.party.door.entry import Entry, NoEntry, add_up, entry_of
from fedray.party.door.journal import Head, chain, start
from fedray.types import PartyName


class LedgerPage:
    """What one party says about itself.

    Args:
        head: What it has signed.
        lines: Its entries as it wrote them down; None where the totals alone were read.
        entries: What these lines say, where somebody has looked already.
    """

    def __init__(self, head: Head, lines: Sequence[bytes] | None, entries: Sequence[Entry] | None = None) -> None:
        self.head = head
        self.lines = None if lines is None else tuple(lines)
        self._entries = None if entries is None else tuple(entries)

    @property
    def party(self) -> PartyName:
        """Whose page."""
        return self.head.party

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries since the party started.

        Raises:
            PlanError: Totals alone were read.
            NoEntry: A line is none.
        """
        if self.lines is None:
            raise PlanError("this ledger was read without its entries; read it with sf.ledger()")
        # Taken apart when somebody looks: a ledger of a long training has a hundred thousand entries.
        if self._entries is None:
            self._entries = tuple(_entry(line, self.party, index) for index, line in enumerate(self.lines))
        return self._entries

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LedgerPage) and (self.head, self.lines) == (other.head, other.lines)

    def __hash__(self) -> int:
        return hash(self.head.signature)

    def __repr__(self) -> str:
        head = self.head
        return f"LedgerPage(party={head.party!r}, reading={head.reading}, closed={head.closed}, entries={head.count})"


def check_page(page: LedgerPage, roster: Mapping[PartyName, bytes]) -> str | None:
    """Returns what is wrong with a page, or None if it is as its party signed it."""
    head, party = page.head, page.head.party
    key = roster.get(party)
    if key is None:
        return f"{party}: not in the roster"
    if page.lines is not None:
        try:
            entries = page.entries
        except NoEntry as error:
            return f"{party}: {error}"
        # The chain before the signature: its complaint says more than that of a signature which does not fit.
        if chain(start(party), page.lines) != head.head or len(page.lines) != head.count:
            return f"{party}: entries were changed, dropped, added or reordered"
        if add_up(entries) != head.totals:
            return f"{party}: the totals are not those of the entries"
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(head.signature, head.statement(roster))
    except (InvalidSignature, ValueError):
        return (
            f"{party}: the signature does not fit the entries, their number and totals, the session, the reading and "
            "the roster"
        )
    return None


def _entry(line: bytes, party: PartyName, index: int) -> Entry:
    try:
        return entry_of(line, party, index)
    except NoEntry as error:
        raise NoEntry(f"entry {index}: {error}") from None


def check_together(pages: Mapping[PartyName, LedgerPage], sid: bytes, reading: int) -> list[str]:
    """Returns which pages do not belong to one reading of one session.

    Each may be as its party signed it, and still be a page of another session, or one that was read before the others.

    Args:
        pages: One per party.
        sid: The session.
        reading: Number of the reading.
    """
    problems = []
    for name, page in pages.items():
        if page.head.sid != sid:
            problems.append(f"{name}: a page of another session, {page.head.sid.hex()[:16]}")
        elif page.head.reading != reading:
            problems.append(f"{name}: a page of reading {page.head.reading} among those of reading {reading}")
    return problems
