# SPDX-License-Identifier: Apache-2.0
"""Ledgers for tests: what a party keeps, read as the driver reads it."""

from collections.abc import Mapping

from fedray.party.door.entry import Entry, entry_of
from fedray.party.door.journal import Journal, LedgerPart
from fedray.party.door.ledger_file import Book
from fedray.party.door.ledger_page import LedgerPage
from fedray.party.party import Party

SID = bytes(range(32))


def page_of(journal: Journal, roster: Mapping[str, bytes], reading: int = 1, *, close: bool = False) -> LedgerPage:
    """Returns a journal's page."""
    return page_in(journal.part(0, roster, reading, close=close))


def page_in(part: LedgerPart) -> LedgerPage:
    """Returns the page in an answer that is the only part."""
    assert part.head is not None
    return LedgerPage(part.head, part.lines.split(b"\n") if part.lines else [])


def book_of(pages: Mapping[str, LedgerPage], roster: Mapping[str, bytes], reading: int = 1) -> Book:
    """Returns pages as one reading of the session `SID`."""
    return Book(pages, roster, SID, reading)


def entries_at(party: Party, reading: int = 1) -> list[Entry]:
    """Returns what a party has written down, the reading itself last."""
    part = party.handle("ledger", f"{reading}:ledger", 0, reading)
    return [entry_of(line, party.name, index) for index, line in enumerate(part.lines.split(b"\n"))]


def install(party: Party, keys: Mapping[str, bytes], call: str = "1:init") -> object:
    """Hands a party the keys of all, with marks as the driver would."""
    marks = {name: party._mark if name == party.name else bytes(16) for name in keys}
    return party.handle("install_roster", call, keys, marks)
