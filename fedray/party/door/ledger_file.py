# SPDX-License-Identifier: Apache-2.0
"""The ledger as a file of JSON lines, and the check that finds any change in one.

Pure on bytes, but for `verify`, which reads the file. The first line holds the parties' public keys; then come, party
by party in roster order, its entries and its signed head. Every line has exactly one way of being written, so a changed
byte is found even where it would not change the meaning.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fedray.party.door.journal import Entry, LedgerPage, canonical, check_page, fault_of
from fedray.types import PartyName

_VERSION = 1  # in the first line; a reader of another one refuses the file


class BrokenLedger(ValueError):  # noqa: N818 (says what is wrong with the file; it never leaves `check`)
    """A file that is not exactly what `to_bytes` writes."""


def to_bytes(pages: Mapping[PartyName, LedgerPage], roster: Mapping[PartyName, bytes]) -> bytes:
    """Returns the file's content; parties of the roster without a page are left out, and found missing later."""
    header = {"fedray": "ledger", "version": _VERSION, "roster": {n: k.hex() for n, k in roster.items()}}
    lines = [canonical(header)]
    for name in _ordered(roster):
        page = pages.get(name)
        # No gap is marked: that a page is missing follows from the roster, which the others have signed.
        if page is None:
            continue
        for index, entry in enumerate(page.entries):
            lines.append(canonical({"party": name, "index": index} | asdict(entry)))
        head = {"count": len(page.entries), "head": page.head.hex(), "signature": page.signature.hex()}
        lines.append(canonical({"party": name} | head))
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
        pages, keys = from_bytes(content)
    except BrokenLedger as error:
        return [str(error)]
    problems = []
    if roster is not None and dict(roster) != keys:
        problems.append("the parties' keys in the file are not the expected ones")
    problems += [problem for page in pages.values() if (problem := check_page(page, keys))]
    return problems + [f"{name}: missing" for name in _ordered(keys) if name not in pages]


def from_bytes(content: bytes) -> tuple[dict[PartyName, LedgerPage], dict[PartyName, bytes]]:
    """Returns the pages and the roster that a file states. Their hashes and signatures are still to be checked.

    Raises:
        BrokenLedger: The content is not exactly what `to_bytes` would write; the message names the line.
    """
    try:
        header, *records = [json.loads(line) for line in content.splitlines()]
        roster = {str(name): bytes.fromhex(key) for name, key in header["roster"].items()}
        pages = _pages(records)
        # Written again and compared byte by byte. So spaces, other orders and repeated keys are found, which JSON
        # would read over.
        written = to_bytes(pages, roster)
    except BrokenLedger:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BrokenLedger(f"not a ledger file, or damaged: {type(error).__name__}") from error
    if written != content:
        raise BrokenLedger(f"line {_first_difference(written, content)} is not as it was written, or lines are missing")
    return pages, roster


def _pages(records: list[dict[str, Any]]) -> dict[PartyName, LedgerPage]:
    entries: dict[PartyName, list[Entry]] = {}
    pages: dict[PartyName, LedgerPage] = {}
    for number, record in enumerate(records, start=2):  # after the line with the keys
        name = record["party"]
        if "signature" in record:
            head, signature = bytes.fromhex(record["head"]), bytes.fromhex(record["signature"])
            # A party's head comes after its entries; a file in another order differs from what is written again.
            pages[name] = LedgerPage(name, tuple(entries.get(name, ())), head, signature)
        else:
            entries.setdefault(name, []).append(_entry(record, number))
    return pages


def _entry(record: Mapping[str, Any], number: int) -> Entry:
    # Only the fields there are; a further one is found when the file is written again.
    values = {field.name: record[field.name] for field in fields(Entry)}
    shape = tuple(values["shape"]) if isinstance(values["shape"], list) else values["shape"]
    entry = Entry(**(values | {"shape": shape}))
    # Here and not only when it is verified: a file is also shown and summed up by whoever does not ask for that.
    if fault := fault_of(entry):
        raise BrokenLedger(f"line {number}: {fault}")
    return entry


def _ordered(roster: Mapping[PartyName, bytes]) -> list[PartyName]:
    # By bytes, as everywhere where an order is signed.
    return sorted(roster, key=lambda name: name.encode())


def _first_difference(written: bytes, found: bytes) -> int:
    """Returns the number, from 1, of the first line in which two files differ."""
    pairs = zip_longest(written.split(b"\n"), found.split(b"\n"))
    return next(number for number, (left, right) in enumerate(pairs, start=1) if left != right)
