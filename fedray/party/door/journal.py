# SPDX-License-Identifier: Apache-2.0
"""A party's record of everything that left it: append-only, hash-chained, signed.

Pure: no clock, no files, no Ray. Entry i's hash covers entry i and the hash before it, so nothing can be changed,
dropped or reordered without changing the head. The head is signed with the party's identity key, together with the
number of entries and the public keys of all parties: a ledger can neither be cut short nor moved to another session.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedray.types import PartyName

_CHAIN = b"fedray ledger 1"  # keeps the hashes of this chain apart from hashes of anything else


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt to let a value leave.

    Attributes:
        to: Another party's name, or `"driver"`.
        kind: One of `fedray.party.door.egress.Kind`.
        shape: Shape of an array, else None.
        dtype: Dtype of an array, else the name of its type.
        nbytes: Its size; 0 for what was refused and would have had to be pickled to tell.
        call: The driver's statement that asked for it.
        allowed: Whether the policy let it pass.
    """

    to: PartyName
    kind: str
    shape: tuple[int, ...] | None
    dtype: str
    nbytes: int
    call: str
    allowed: bool


_FIELDS = tuple(field.name for field in fields(Entry))
_TEXTS = ("to", "kind", "dtype", "call")
_MOST = 2**63  # bytes and lengths; a number beyond is none that a party counted


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """What one party says about itself.

    Attributes:
        party: Whose page.
        entries: All entries since the party started.
        head: Hash of the chain, 32 bytes.
        signature: The party's Ed25519 signature over party, roster, number of entries and head; 64 bytes.
    """

    party: PartyName
    entries: tuple[Entry, ...]
    head: bytes
    signature: bytes


def fault_of(entry: Entry) -> str | None:
    """Returns which field of an entry holds what no party writes there, or None.

    A signed entry is what its party says, and not yet what adds up: a file's numbers may be text.
    """
    wrong = next((name for name in _TEXTS if not isinstance(getattr(entry, name), str)), None)
    if wrong is not None:
        return f"{wrong} is no text"
    if not _is_count(entry.nbytes):
        return "nbytes is no number of bytes"
    if entry.shape is not None and not (isinstance(entry.shape, tuple) and all(map(_is_count, entry.shape))):
        return "shape is no list of lengths"
    return None if isinstance(entry.allowed, bool) else "allowed is neither true nor false"


def _is_count(value: object) -> bool:
    # `type`, since in Python True is an integer.
    return type(value) is int and 0 <= value < _MOST


class Journal:
    """The growing chain inside a party. Safe to use from several threads.

    Args:
        party: Whose chain it is.
        identity: The party's key, which signs the head.
    """

    def __init__(self, party: PartyName, identity: Ed25519PrivateKey) -> None:
        self._party = party
        self._identity = identity
        self._entries: list[Entry] = []
        self._head = start(party)
        self._lock = threading.Lock()

    def append(self, entry: Entry) -> None:
        """Adds an entry."""
        with self._lock:
            # Both under one lock: two threads that read the same head would fork the chain.
            self._head = link(self._head, entry)
            self._entries.append(entry)

    def page(self, roster: Mapping[PartyName, bytes]) -> LedgerPage:
        """Returns all entries with the signed head."""
        with self._lock:
            entries, head = tuple(self._entries), self._head
        # Signed when asked for and not with every entry: a signature costs more than a short message.
        signature = self._identity.sign(statement(self._party, roster, len(entries), head))
        return LedgerPage(self._party, entries, head, signature)


def canonical(record: Mapping[str, Any]) -> bytes:
    """Returns a record as bytes, the same for equal records: ASCII JSON with sorted keys and no spaces."""
    # ASCII and sorted, so that no setting of a machine changes the bytes; NaN, which JSON does not know, is refused.
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def start(party: PartyName) -> bytes:
    """Returns the hash before a party's first entry."""
    return hashlib.sha256(_CHAIN + party.encode()).digest()


def link(head: bytes, entry: Entry) -> bytes:
    """Returns the hash after one more entry."""
    return hashlib.sha256(head + canonical({name: getattr(entry, name) for name in _FIELDS})).digest()


def chain(party: PartyName, entries: Iterable[Entry]) -> bytes:
    """Returns the head over all entries."""
    head = start(party)
    for entry in entries:
        head = link(head, entry)
    return head


def statement(party: PartyName, roster: Mapping[PartyName, bytes], count: int, head: bytes) -> bytes:
    """Returns the bytes that a party signs: what it says of its own ledger.

    Args:
        party: Who signs.
        roster: Public identity keys of all parties of the session, 32 bytes each.
        count: Number of entries; without it a page cut short at an earlier head would pass.
        head: Hash over these entries, 32 bytes.
    """
    return canonical(
        {
            # Says what is signed: the same key signs messages of the protocol, and none may pass for another.
            "what": "fedray ledger head",
            "party": party,
            "roster": {name: key.hex() for name, key in roster.items()},
            "count": count,
            "head": head.hex(),
        }
    )


def check_page(page: LedgerPage, roster: Mapping[PartyName, bytes]) -> str | None:
    """Returns what is wrong with a page, or None if it is as its party signed it."""
    key = roster.get(page.party)
    if key is None:
        return f"{page.party}: not in the roster"
    for number, entry in enumerate(page.entries):
        if fault := fault_of(entry):
            return f"{page.party}: entry {number}: {fault}"
    try:
        # The chain first: its complaint says more than that of a signature which does not fit.
        if chain(page.party, page.entries) != page.head:
            return f"{page.party}: entries were changed, dropped, added or reordered"
        signed = statement(page.party, roster, len(page.entries), page.head)
        Ed25519PublicKey.from_public_bytes(key).verify(page.signature, signed)
    except (InvalidSignature, ValueError):
        return f"{page.party}: the signature does not fit the entries, their number and the roster"
    return None
