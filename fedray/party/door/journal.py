# SPDX-License-Identifier: Apache-2.0
"""A party's record of everything that left it: append-only, hash-chained, signed.

Pure: no clock, no files, no Ray. The hash of a line covers the line and the hash before it, so nothing can be changed,
dropped or reordered without changing the last one. That is signed with the party's identity key, together with the
session, the number of the reading, whether anything can follow, the number of entries, what they add up to, and the
public keys of all parties. So a ledger can neither be cut short nor moved to another session, and a page that was read
earlier shows that it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.errors import EgressDenied, FedRayError, PlanError
from fedray.party.door.entry import Entry, Total, Totals, canonical, line_of, written_totals
from fedray.types import PartyName

_CHAIN = b"fedray ledger 2"  # keeps the hashes of this chain apart from hashes of anything else

PART = 20_000
"""Most entries of one answer, some 4 MB. A longer ledger is read in several."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a party signs of its ledger.

    Attributes:
        party: Whose.
        sid: The session, 32 bytes; see `session_id`.
        reading: Number of the reading, which a party signs once.
        closed: Whether this is the last word: nothing has left the party since, and nothing will.
        count: Number of entries.
        head: Hash over them, 32 bytes.
        totals: What they add up to.
        signature: Ed25519 signature over `statement`, 64 bytes.
    """

    party: PartyName
    sid: bytes
    reading: int
    closed: bool
    count: int
    head: bytes
    totals: Totals
    signature: bytes = b""

    def statement(self, roster: Mapping[PartyName, bytes]) -> bytes:
        """Returns the bytes that are signed.

        Args:
            roster: Public identity keys of all parties of the session, 32 bytes each.
        """
        return canonical(
            {
                # Says what is signed: the same key signs messages of the protocol, and none may pass for another.
                "what": "fedray ledger head",
                "roster": {name: key.hex() for name, key in roster.items()},
            }
            | self._said()
        )

    def line(self) -> bytes:
        """Returns the line that it is written as, without its end."""
        return canonical(self._said() | {"signature": self.signature.hex()})

    def _said(self) -> dict[str, Any]:
        return {
            "party": self.party,
            "sid": self.sid.hex(),
            "reading": self.reading,
            "closed": self.closed,
            "count": self.count,
            "head": self.head.hex(),
            "totals": written_totals(self.totals),
        }


@dataclass(frozen=True, slots=True)
class LedgerPart:
    """One answer to a reading.

    Attributes:
        lines: Entries, a line each.
        head: The signed head with the last part; None while more parts follow.
    """

    lines: bytes
    head: Head | None


class Journal:
    """The growing chain inside a party. Safe to use from several threads.

    Args:
        party: Whose chain it is.
        identity: The party's key, which signs the head.
        keep: Writes a line elsewhere, too: entries, the session's name, signed heads. Where it fails, nothing was
            written and nothing may leave.
    """

    def __init__(
        self, party: PartyName, identity: Ed25519PrivateKey, keep: Callable[[bytes], None] | None = None
    ) -> None:
        self._party, self._identity, self._keep = party, identity, keep
        self._lines: list[bytes] = []
        self._totals: Totals = {}
        self._head = start(party)
        self._sid, self._reading, self._closed = bytes(32), 0, False
        self._lock = threading.Lock()

    def begin(self, sid: bytes, roster: Mapping[PartyName, bytes]) -> None:
        """Names the session, once.

        Args:
            sid: Its name, 32 bytes.
            roster: Public identity keys of all its parties.

        Raises:
            PlanError: The party is in another session already.
        """
        with self._lock:
            if any(self._sid) and self._sid != sid:
                raise PlanError(f"party {self._party!r} is in another session already; start it anew with sf.init")
            if self._sid != sid and self._keep is not None:
                self._keep(session_line(sid, roster))
            self._sid = sid

    def append(self, entry: Entry) -> None:
        """Adds an entry.

        Raises:
            EgressDenied: The ledger is closed.
        """
        with self._lock:
            if self._closed:
                raise EgressDenied(f"party {self._party!r} has closed its ledger: the session ends, and nothing leaves")
            line = line_of(self._party, len(self._lines), entry)
            if self._keep is not None:
                self._keep(line)
            # All under one lock: two threads that read the same head would fork the chain.
            self._head = link(self._head, line)
            self._lines.append(line)
            key = (entry.to, entry.kind)
            self._totals[key] = self._totals.get(key, Total()).with_entry(entry)

    def part(self, first: int | None, roster: Mapping[PartyName, bytes], reading: int, *, close: bool) -> LedgerPart:
        """Returns the entries from `first` on, and the signed head if these are all that there are.

        Args:
            first: Number of the first entry wanted; None for the head alone.
            roster: Public identity keys of all parties of the session.
            reading: Number of the reading, above those of all readings before.
            close: Whether nothing may follow the head.

        Raises:
            PlanError: A head of that reading, or of a later one, was signed before.
        """
        with self._lock:
            self._check(reading)
            begin = len(self._lines) if first is None else first
            lines = self._lines[begin : begin + PART]
            if begin + len(lines) < len(self._lines):
                return LedgerPart(b"\n".join(lines), None)
            return LedgerPart(b"\n".join(lines), self._sign(roster, reading, closed=close))

    def close(self, roster: Mapping[PartyName, bytes]) -> None:
        """Lets nothing be added from here on. Harmless when repeated.

        Args:
            roster: Public identity keys of all parties of the session.
        """
        # What cannot be written down at the end is missing there, and the ledger open.
        with self._lock, contextlib.suppress(FedRayError):
            if not self._closed:
                self._sign(roster, self._reading + 1, closed=True)

    def left(self, first: int | None, reading: int) -> bytes:
        """Returns the lines that `part` would, for the entry about them; nothing is read yet.

        Raises:
            PlanError: As `part`.
        """
        with self._lock:
            self._check(reading)
            return b"" if first is None else b"\n".join(self._lines[first : first + PART])

    def _sign(self, roster: Mapping[PartyName, bytes], reading: int, *, closed: bool) -> Head:
        """Returns the signed head of all entries; the lock is held."""
        self._reading, self._closed = reading, closed
        count, totals = len(self._lines), dict(self._totals)
        unsigned = Head(self._party, self._sid, reading, closed, count, self._head, totals)
        # Signed when asked for and not with every entry: a signature costs more than a short message.
        head = replace(unsigned, signature=self._identity.sign(unsigned.statement(roster)))
        if self._keep is not None:
            self._keep(head.line())
        return head

    def _check(self, reading: int) -> None:
        # A number is signed once: two pages of the same reading could be swapped for each other.
        if reading <= self._reading:
            raise PlanError(
                f"party {self._party!r}: reading {reading} of its ledger was asked for after reading {self._reading}"
            )


def session_id(roster: Mapping[PartyName, bytes], marks: Mapping[PartyName, bytes]) -> bytes:
    """Returns the name of a session, 32 bytes.

    Args:
        roster: Public identity keys of all parties.
        marks: A number that each party has drawn for this session alone; so whoever checks its own knows that no other
            session has the same name, whatever the driver does.
    """
    parties = {name: [key.hex(), marks[name].hex()] for name, key in roster.items()}
    return hashlib.sha256(canonical({"what": "fedray session", "parties": parties})).digest()


def session_line(sid: bytes, roster: Mapping[PartyName, bytes]) -> bytes:
    """Returns the line that a session's name is written as where a party keeps its own ledger, without its end."""
    return canonical({"session": sid.hex(), "roster": {name: key.hex() for name, key in roster.items()}})


def start(party: PartyName) -> bytes:
    """Returns the hash before a party's first entry."""
    return hashlib.sha256(_CHAIN + party.encode()).digest()


def link(head: bytes, line: bytes) -> bytes:
    """Returns the hash after one more line."""
    return hashlib.sha256(head + line).digest()


def chain(head: bytes, lines: Iterable[bytes]) -> bytes:
    """Returns the hash after further lines."""
    for line in lines:
        head = link(head, line)
    return head
