# SPDX-License-Identifier: Apache-2.0
"""What a party keeps of its ledger on its own disk: the lines of a file, chained, and the check of them. Pure.

A file begins with whose it is, its number and the end of the file before, signed by the party. Then come, in the order
in which they were written, entries, the session's name, and a signed head for each reading; with the closing mark, that
is the last line. Every line begins with a hash over all lines up to it. A line that was cut off by a crash counts for
nothing: what it stood for never left. What is missing after the last signed head, whole lines at the end alone, is not
found; nor is a whole file that was the last one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.errors import PlanError
from fedray.party.door.entry import NoEntry, Totals, add_up, canonical, entry_of, is_hex
from fedray.party.door.journal import Head, chain, session_line, start
from fedray.party.door.ledger_file import BrokenLedger, head_of, keys_of, record_of
from fedray.party.door.ledger_page import LedgerPage, check_page
from fedray.protocol.crypto.keys import public_bytes, sign, verify
from fedray.protocol.crypto.names import check_name
from fedray.types import PartyName

_MARK = 32  # characters of a line's hash
_VERSION = 2
_NAME = re.compile(r"([0-9]{6})\.log")
_MOST_FILES = 10**6 - 1


@dataclass(slots=True)
class OwnLedger:
    """What one file states; its signatures are still to be checked.

    Attributes:
        party: Whose.
        number: Which time it took part.
        before: The last mark of the file before; empty in the first one.
        key: The party's public identity key, 32 bytes, as the file states it.
        signature: Of the party over the four above, 64 bytes.
        mark: The last mark of this one.
        sid: The session's name, 32 bytes, if it had one.
        roster: Public identity keys of the session's parties.
        lines: Entries.
        heads: Signed heads.
        torn: Whether a line at the end was cut off.
    """

    party: PartyName
    number: int
    before: str
    key: bytes
    signature: bytes
    mark: str = ""
    sid: bytes = bytes(32)
    roster: Mapping[PartyName, bytes] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    torn: bool = False

    @property
    def closed(self) -> bool:
        """Whether it ends with the closing mark."""
        return bool(self.heads) and self.heads[-1].closed

    @property
    def signed(self) -> int:
        """How many entries the last head is over."""
        return self.heads[-1].count if self.heads else 0

    def problems(self) -> list[str]:
        """Returns what is wrong with its signed first line and heads."""
        found, position, over, totals = list[str](), 0, start(self.party), Totals()
        # Marks hold for whoever made them. It is the signature that ties a file to its place among the others.
        if not verify(self.key, _statement(self.party, self.number, self.before, self.key), self.signature):
            found.append(
                f"{self.party}: the signature does not fit line 1, the file's number and the end of the one before"
            )
        if self.roster and self.roster.get(self.party) != self.key:
            found.append(f"{self.party}: line 1 is signed with another key than the roster of the session has")
        for head in self.heads:  # one after the other: each is over all entries, which are many
            rest = self.lines[position : head.count]
            over, totals, position = chain(over, rest), self._added(totals, position, head.count), head.count
            problem = check_page(LedgerPage(head, None), self.roster)
            if head.sid != self.sid:
                problem = f"{self.party}: a head of another session, {head.sid.hex()[:16]}"
            elif (head.head, head.totals) != (over, totals):
                problem = f"{self.party}: the entries are not those that reading {head.reading} is signed over"
            found += [problem] if problem else []
        return found

    def _added(self, totals: Totals, begin: int, end: int) -> Totals:
        entries = (entry_of(self.lines[index], self.party, index) for index in range(begin, end))
        return add_up(entries, totals)


class Marks:
    """What the lines of a file begin with.

    Args:
        party: Whose file it is; that of another party does not fit.
        before: The last mark of the file before.
    """

    def __init__(self, party: PartyName, before: str) -> None:
        self._seen = hashlib.sha256(b"fedray own ledger 1\n%s\n%s\n" % (party.encode(), before.encode()))

    def line(self, body: bytes) -> bytes:
        """Returns the next line, with its end."""
        return b"%s %s\n" % (self.next(body).encode(), body)

    def next(self, body: bytes) -> str:
        """Returns what the next line begins with, 32 hexadecimal digits."""
        # Against damage and a careless hand; whoever may write the folder could make up all that no head is over.
        self._seen.update(body + b"\n")
        return self._seen.hexdigest()[:_MARK]


def file_name(number: int) -> str:
    """Returns what the file is called in which a party's ledger is kept for the n-th time."""
    return f"{number:06d}.log"


def numbers_of(names: Iterable[str]) -> list[int]:
    """Returns the numbers of the files of a party's own ledger among files of these names, counted from 1, in order."""
    found = (int(match[1]) for name in names if (match := _NAME.fullmatch(name)))
    return sorted(number for number in found if number)


def first_line(party: PartyName, number: int, before: str, identity: Ed25519PrivateKey) -> bytes:
    """Returns what a file begins with, without its mark.

    Args:
        party: Whose.
        number: Which time it takes part.
        before: The last mark of the file before.
        identity: The party's key.
    """
    key = public_bytes(identity)
    return _first_line(party, number, before, key, sign(identity, _statement(party, number, before, key)))


def last_mark(content: bytes) -> str:
    """Returns the mark of the last whole line, whatever it says."""
    whole = content.rpartition(b"\n")[0]
    return whole.rpartition(b"\n")[2][:_MARK].decode("ascii", "replace")


def is_own(content: bytes) -> bool:
    """Returns whether this may be a party's own ledger, and not a driver's."""
    return b'"fedray":"own ledger"' in content[:1000].partition(b"\n")[0]


def read(content: bytes) -> OwnLedger:
    """Returns what a file states.

    Raises:
        BrokenLedger: A line is not the one that was written there; the message names it.
    """
    whole, _, torn = content.rpartition(b"\n")
    bodies = [_split(line, number) for number, line in enumerate(whole.split(b"\n"), start=1)]
    first = record_of(bodies[0][1], 1)
    party, number, before = first.get("party"), first.get("number"), first.get("before")
    key, signature = first.get("key"), first.get("signature")
    right = (
        isinstance(party, str)
        and type(number) is int
        and 0 < number <= _MOST_FILES
        and (before == "" or is_hex(before, _MARK // 2))
    )
    if not (right and is_hex(key, 32) and is_hex(signature, 64)):
        raise BrokenLedger("line 1: not a party's own ledger")
    book = OwnLedger(
        str(party),
        int(str(number)),
        str(before),
        bytes.fromhex(str(key)),
        bytes.fromhex(str(signature)),
        torn=bool(torn),
    )
    if _first_line(book.party, book.number, book.before, book.key, book.signature) != bodies[0][1]:
        raise BrokenLedger("line 1: not a party's own ledger")
    try:
        check_name(party)
    except PlanError as error:
        raise BrokenLedger(f"line 1: {error}") from None
    marks = Marks(book.party, book.before)
    for place, (mark, body) in enumerate(bodies, start=1):
        if marks.next(body) != mark:
            raise BrokenLedger(f"line {place} was changed, or lines before it are missing or were moved")
        if place > 1:
            _take(book, body, place)
        book.mark = mark
    return book


def check_order(books: Mapping[int, OwnLedger], empty: Collection[int] = ()) -> list[str]:
    """Returns which files of a folder are missing, or are not the ones that were there.

    Args:
        books: By the number in the file's name.
        empty: Numbers of those without a line.
    """
    problems, earlier, sessions = [], 0, dict[bytes, int]()
    for number, book in sorted(books.items()):
        first = sessions.setdefault(book.sid, number) if book.roster else number
        if first != number:
            problems.append(f"{file_name(number)} is of the same session as {file_name(first)}")
        if book.number != number:
            problems.append(f"{file_name(number)} was written as {file_name(book.number)}")
        if earlier and books[earlier].mark != book.before:
            problems.append(f"{file_name(number)} does not follow the end of {file_name(earlier)}")
        earlier = number
    # The first ones may have been put away; in the midst nobody has reason to.
    gaps = sorted(set(range(min(books, default=0), max(books, default=0))) - set(books) - set(empty))
    return problems + [f"{file_name(number)} is missing" for number in gaps]


def _statement(party: PartyName, number: int, before: str, key: bytes) -> bytes:
    """Returns what a party signs at the beginning of a file; says what it is, as the same key signs other things."""
    said = {"party": party, "number": number, "before": before, "key": key.hex()}
    return canonical({"what": "fedray own ledger", "version": _VERSION} | said)


def _first_line(party: PartyName, number: int, before: str, key: bytes, signature: bytes) -> bytes:
    said = {"party": party, "number": number, "before": before, "key": key.hex(), "signature": signature.hex()}
    return canonical({"fedray": "own ledger", "version": _VERSION} | said)


def _split(line: bytes, number: int) -> tuple[str, bytes]:
    mark, blank, body = line[:_MARK].decode("ascii", "replace"), line[_MARK : _MARK + 1], line[_MARK + 1 :]
    if not is_hex(mark, _MARK // 2) or blank != b" ":
        raise BrokenLedger(f"line {number} is none of a party's own ledger")
    return mark, body


def _take(book: OwnLedger, body: bytes, number: int) -> None:
    """Adds what a line says."""
    if book.closed:
        raise BrokenLedger(f"line {number} follows the closing mark")
    if b'"signature":' in body:  # in no entry, where quotes have a backslash in front
        head = head_of(record_of(body, number), book.party, number)
        if head.count > len(book.lines) or head.count < book.signed:
            raise BrokenLedger(f"line {number} is over more entries than there are, or fewer than the one before")
        book.heads.append(head)
        return
    if body.startswith(b'{"roster":'):
        record = record_of(body, number)
        sid, keys = record.get("session"), keys_of(record.get("roster"), number)
        if book.roster or not is_hex(sid, 32) or session_line(bytes.fromhex(str(sid)), keys) != body:
            raise BrokenLedger(f"line {number} names no session, or a second one")
        book.sid, book.roster = bytes.fromhex(str(sid)), keys
        return
    try:
        entry_of(body, book.party, len(book.lines))
    except NoEntry as error:
        raise BrokenLedger(f"line {number}: {error}") from None
    book.lines.append(body)
