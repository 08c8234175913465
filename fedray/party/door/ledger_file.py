# SPDX-License-Identifier: Apache-2.0
"""The ledger as a file of JSON lines, and the check that finds any change in one.

Pure on bytes, but for `verify`, which reads the file. The first line holds the session, the number of the reading and
the parties' public keys; then come, party by party in roster order, its entries as it wrote them down and its signed
head. Every line has exactly one way of being written, so a changed byte is found even where it would not change the
meaning.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedray.errors import PlanError
from fedray.party.door.entry import Entry, NoEntry, Total, Totals, canonical, entry_of, is_count, is_hex
from fedray.party.door.journal import Head
from fedray.party.door.ledger_page import LedgerPage, check_page, check_together
from fedray.protocol.crypto.keys import Roster
from fedray.types import PartyName

_VERSION = 2  # in the first line; a reader of another one refuses the file
_TOTAL = tuple(field.name for field in fields(Total))


class BrokenLedger(ValueError):  # noqa: N818 (says what is wrong with a file; whoever reads it says which)
    """A file that is not exactly as it was written: a driver's (see `to_bytes`), or a party's own."""


class Book:
    """What a file states: pages that claim to be of one reading of one session. Nothing of it is checked yet.

    Args:
        pages: One per party that answered.
        roster: Public identity keys of all parties of the session.
        sid: The session, 32 bytes.
        reading: Number of the reading.
    """

    def __init__(
        self, pages: Mapping[PartyName, LedgerPage], roster: Mapping[PartyName, bytes], sid: bytes, reading: int
    ) -> None:
        self.pages, self.roster, self.sid, self.reading = dict(pages), dict(roster), sid, reading

    def problems(self) -> list[str]:
        """Returns what is wrong; nothing when every party's page is there, as it signed it, and of this reading."""
        found = [problem for page in self.pages.values() if (problem := check_page(page, self.roster))]
        found += check_together(self.pages, self.sid, self.reading)
        return found + [f"{name}: missing" for name in _ordered(self.roster) if name not in self.pages]

    def open(self) -> list[PartyName]:
        """Returns the parties of which more may have left than is written here: those that have not closed."""
        return [name for name, page in self.pages.items() if not page.head.closed]


def to_bytes(book: Book) -> bytes:
    """Returns the file's content; parties of the roster without a page are left out, and found missing later.

    Raises:
        PlanError: The pages were read without their entries.
    """
    header = {"fedray": "ledger", "version": _VERSION, "sid": book.sid.hex(), "reading": book.reading}
    lines = [canonical(header | {"roster": {n: k.hex() for n, k in book.roster.items()}})]
    for name in _ordered(book.roster):
        page = book.pages.get(name)
        # No gap is marked: that a page is missing follows from the roster, which the others have signed.
        if page is None:
            continue
        if page.lines is None:
            raise PlanError("a ledger that was read without its entries cannot be saved; read it with sf.ledger()")
        lines += page.lines
        lines.append(page.head.line())
    return b"\n".join(lines) + b"\n"


def verify(path: str | os.PathLike[str], roster: Mapping[PartyName, bytes] | None = None) -> list[str]:
    """Returns what is wrong with a saved ledger; nothing when it is as the parties signed it.

    Args:
        path: The file.
        roster: The parties' public keys from a source other than the file. Without it a file that was made up as a
            whole, keys included, is not found out.

    Raises:
        OSError: The file cannot be read.
    """
    return check(Path(path).read_bytes(), roster)


def check(content: bytes, roster: Mapping[PartyName, bytes] | None = None) -> list[str]:
    """Returns what is wrong with a saved ledger's content; see `verify`."""
    try:
        book = from_bytes(content)
    except BrokenLedger as error:
        return [str(error)]
    problems = []
    if roster is not None and dict(roster) != book.roster:
        problems.append("the parties' keys in the file are not the expected ones")
    return problems + book.problems()


def from_bytes(content: bytes) -> Book:
    """Returns what a file states. Hashes and signatures are still to be checked.

    Raises:
        BrokenLedger: The content is not exactly what `to_bytes` would write; the message names the line.
    """
    if not content.endswith(b"\n"):
        raise BrokenLedger("not a ledger file, or its last line is cut off")
    lines = content[:-1].split(b"\n")
    header = record_of(lines[0], 1)
    if header.get("fedray") != "ledger" or header.get("version") != _VERSION:
        raise BrokenLedger(f"not a ledger file of version {_VERSION}")
    sid, reading = header.get("sid"), header.get("reading")
    if len(header) != 5 or not (is_hex(sid, 32) and is_count(reading)):
        raise BrokenLedger("line 1: no session or reading, or more than these")
    keys = keys_of(header.get("roster"), 1)
    return Book(_pages(lines, _ordered(keys)), keys, bytes.fromhex(str(sid)), int(str(reading)))


def keys_of(roster: object, number: int) -> dict[PartyName, bytes]:
    """Returns the public keys that a line states.

    Args:
        roster: Party -> key in hexadecimal digits, as JSON reads it.
        number: Of the line, for errors.

    Raises:
        BrokenLedger: It is no roster.
    """
    if not (isinstance(roster, dict) and all(is_hex(key, 32) for key in roster.values())):
        raise BrokenLedger(f"line {number}: no roster")
    keys = {name: bytes.fromhex(key) for name, key in roster.items()}
    try:
        Roster.of(keys)
    except PlanError as error:
        raise BrokenLedger(f"line {number}: {error}") from None
    return keys


def _pages(lines: list[bytes], names: list[PartyName]) -> dict[PartyName, LedgerPage]:
    pages: dict[PartyName, LedgerPage] = {}
    rest, begin = iter(names), 1
    for place, line in enumerate(lines):
        # A quote inside a text of an entry has a backslash in front, so no entry looks like a head.
        if place == 0 or b'"signature":' not in line:
            continue
        record = record_of(line, place + 1)
        # In the order of the roster, each once: `in` goes on where it stopped.
        party = str(record.get("party"))
        if party not in rest:
            raise BrokenLedger(f"line {place + 1} is of no party, or in another place than it was written")
        head = head_of(record, party, place + 1)
        written = lines[begin:place]
        pages[head.party] = LedgerPage(head, written, _entries(written, head.party, begin + 1))
        begin = place + 1
    if begin < len(lines):
        raise BrokenLedger("lines are missing at its end")
    return pages


def _entries(lines: list[bytes], party: PartyName, begin: int) -> list[Entry]:
    entries = []
    for index, line in enumerate(lines):
        try:
            # Here and not only when it is verified: a file is also shown and summed up by whoever does not ask for
            # that.
            entries.append(entry_of(line, party, index))
        except NoEntry as error:
            raise BrokenLedger(f"line {begin + index}: {error}") from None
    return entries


def head_of(record: Mapping[str, Any], party: PartyName, number: int) -> Head:
    """Returns the signed head that a line states.

    Args:
        record: The line, as JSON reads it.
        party: Whose it should be.
        number: Of the line, for errors.

    Raises:
        BrokenLedger: It is not exactly what `Head.line` returns.
    """
    right = is_hex(record.get("sid"), 32) and is_hex(record.get("head"), 32) and is_hex(record.get("signature"), 64)
    right = right and isinstance(record.get("closed"), bool) and record.get("party") == party
    if not right or not all(is_count(record.get(name)) for name in ("reading", "count")):
        raise BrokenLedger(f"line {number} is no signed head of {party}'s")
    hashes = [bytes.fromhex(record[name]) for name in ("head", "signature")]
    sid, reading, closed, count = bytes.fromhex(record["sid"]), record["reading"], record["closed"], record["count"]
    head = Head(party, sid, reading, closed, count, hashes[0], _totals(record.get("totals"), number), hashes[1])
    if head.line() != canonical(record):
        raise BrokenLedger(f"line {number} is not as it was written")
    return head


def _totals(written: object, number: int) -> Totals:
    totals: Totals = {}
    for record in written if isinstance(written, list) else [None]:
        found = record if isinstance(record, dict) else {}
        names, counts = [found.get("to"), found.get("kind")], [found.get(name) for name in _TOTAL]
        if not all(isinstance(name, str) for name in names) or not all(map(is_count, counts)):
            raise BrokenLedger(f"line {number}: totals are no sums over entries")
        totals[str(names[0]), str(names[1])] = Total(**{name: found[name] for name in _TOTAL})
    return totals


def record_of(line: bytes, number: int) -> dict[str, Any]:
    """Returns a line as JSON reads it, if that is exactly how it would be written.

    Args:
        line: Without its end.
        number: Of the line, for errors.

    Raises:
        BrokenLedger: It is not.
    """
    try:
        record = json.loads(line)
        if isinstance(record, dict) and canonical(record) == line:
            return record
    except (ValueError, TypeError, RecursionError):
        pass
    raise BrokenLedger(f"line {number}: not a ledger's, or not as it was written")


def _ordered(roster: Mapping[PartyName, bytes]) -> list[PartyName]:
    # By bytes, as everywhere where an order is signed.
    return sorted(roster, key=lambda name: name.encode())
