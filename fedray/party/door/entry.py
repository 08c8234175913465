# SPDX-License-Identifier: Apache-2.0
"""Entries of a ledger, the one line that each is written as, and what they add up to. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from fedray.types import PartyName


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
        commitment: Of a contribution to a sum, 64 hexadecimal digits that only the party can open; else None.
    """

    to: PartyName
    kind: str
    shape: tuple[int, ...] | None
    dtype: str
    nbytes: int
    call: str
    allowed: bool
    commitment: str | None = None


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


Totals: TypeAlias = dict[tuple[PartyName, str], Total]
"""(to, kind) -> sum over one party's entries."""

_FIELDS = tuple(field.name for field in fields(Entry))
_TEXTS = ("to", "kind", "dtype", "call")
# ASCII and sorted, so that no setting of a machine changes the bytes; NaN, which JSON does not know, is refused. Made
# once, since every entry is written by it.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_MOST = 2**63  # bytes and lengths; a number beyond is none that a party counted


class NoEntry(ValueError):  # noqa: N818 (says what is wrong with a line; whoever reads the file says which)
    """A line that no party writes."""


def fault_of(entry: Entry) -> str | None:
    """Returns which field of an entry holds what no party writes there, or None.

    A signed entry is what its party says, and not yet what adds up: a file's numbers may be text.
    """
    wrong = next((name for name in _TEXTS if not isinstance(getattr(entry, name), str)), None)
    if wrong is not None:
        return f"{wrong} is no text"
    if not is_count(entry.nbytes):
        return "nbytes is no number of bytes"
    if entry.shape is not None and not (isinstance(entry.shape, tuple) and all(map(is_count, entry.shape))):
        return "shape is no list of lengths"
    if entry.commitment is not None and not is_hex(entry.commitment, 32):
        return "commitment is no hash"
    return None if isinstance(entry.allowed, bool) else "allowed is neither true nor false"


def is_count(value: object) -> bool:
    """Returns whether this is a whole number from 0 to 2^63 - 1."""
    # `type`, since in Python True is an integer.
    return type(value) is int and 0 <= value < _MOST


def is_hex(value: object, size: int) -> bool:
    """Returns whether this is a text of so many bytes in lower-case hexadecimal digits."""
    return isinstance(value, str) and len(value) == 2 * size and set(value) <= set("0123456789abcdef")


def canonical(record: Mapping[str, Any]) -> bytes:
    """Returns a record as bytes, the same for equal records: ASCII JSON with sorted keys and no spaces."""
    return _CANONICAL.encode(record).encode("ascii")


def line_of(party: PartyName, index: int, entry: Entry) -> bytes:
    """Returns the line that a party writes about an entry, without its end.

    Args:
        party: Who writes.
        index: The entry's number at this party, from 0.
        entry: What is written down.
    """
    return canonical({"party": party, "index": index} | {name: getattr(entry, name) for name in _FIELDS})


def entry_of(line: bytes, party: PartyName, index: int) -> Entry:
    """Returns the entry that a line states.

    Args:
        line: One line without its end.
        party: Who should have written it.
        index: Which of its entries it should be.

    Raises:
        NoEntry: It is not exactly what `line_of` returns for an entry.
    """
    try:
        record = json.loads(line)
        # Only the fields there are; a further one shows when the line is written again.
        values = {name: record[name] for name in _FIELDS}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise NoEntry("is no entry") from None
    shape = values["shape"]
    entry = Entry(**(values | {"shape": tuple(shape) if isinstance(shape, list) else shape}))
    if fault := fault_of(entry):
        raise NoEntry(fault)
    # Written again and compared. So spaces, other orders and repeated keys are found, which JSON would read over, and
    # an entry of another party or place.
    if line_of(party, index, entry) != line:
        raise NoEntry("is not as it was written, or stands in another place")
    return entry


def add_up(entries: Iterable[Entry], before: Totals | None = None) -> Totals:
    """Returns the sums over entries, in the order of first appearance.

    Args:
        entries: What is added.
        before: What there is already.
    """
    sums: Totals = dict(before or {})
    for entry in entries:
        key = (entry.to, entry.kind)
        sums[key] = sums.get(key, Total()).with_entry(entry)
    return sums


def written_totals(totals: Totals) -> list[dict[str, Any]]:
    """Returns totals as plain data, in the order in which they are signed."""
    return [{"to": to, "kind": kind} | asdict(totals[to, kind]) for to, kind in sorted(totals)]
