# SPDX-License-Identifier: Apache-2.0
"""`fedray ledger`: shows and checks records of what left parties, a driver's and a party's own.

Exit codes: 0 done, 1 the record is not as it was signed, has no signed entry to check, or cannot be read.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedray.errors import PlanError
from fedray.types import PartyName

if TYPE_CHECKING:
    from fedray.party.door.own_ledger import OwnLedger


def add_arguments(commands: Any) -> None:
    """Adds `ledger` and its options to the command line.

    Args:
        commands: What `argparse` calls the sub-parsers' action.
    """
    ledger = commands.add_parser(
        "ledger",
        help="show or check a saved record of what left each party",
        description="Shows what left each party, from a file that sf.shutdown(ledger=FILE), sf.ledger().save(FILE) or "
        "the demo's --ledger wrote; or what left one party, from its own key folder or a file in DIR/ledger there.",
    )
    ledger.add_argument("file", type=Path, metavar="FILE|DIR", help="the record, or a party's own key folder")
    ledger.add_argument(
        "--verify", action="store_true", help="check every entry, that none is missing, and the parties' signatures"
    )
    ledger.add_argument(
        "--roster",
        metavar="FILE|FINGERPRINT",
        help="check, too, that the file's keys are those of the parties you know, from a roster file that 'fedray keys "
        "roster' made, or by the fingerprint that was shown at the time; without this, a file that was made up as a "
        "whole, keys included, is not found out",
    )


def run(options: argparse.Namespace) -> int:
    """Shows a record and returns the exit code.

    Raises:
        PlanError: The roster or the folder is not as it should be.
        OSError: The record cannot be read.
    """
    from fedray.party.door.ledger_file import BrokenLedger
    from fedray.party.door.own_ledger import is_own

    if not options.file.exists():
        raise PlanError(
            f"ledger: there is no file {str(options.file)!r}; name one that sf.shutdown(ledger=FILE) wrote, or a "
            "party's key folder"
        )
    try:
        if options.file.is_dir():
            return _folder(options)
        content = options.file.read_bytes()
        return _own(options, content) if is_own(content) else _driver_s(options, content)
    except BrokenLedger as error:
        print(f"fedray: {options.file}: {error}", file=sys.stderr)
        return 1


def fingerprint(roster: Mapping[PartyName, bytes]) -> str:
    """Returns the fingerprint of a session's keys, in hexadecimal digits."""
    from fedray.protocol.crypto.keys import Roster

    return Roster.of(roster).hash.hex()


def _driver_s(options: argparse.Namespace, content: bytes) -> int:
    from fedray.party.door.ledger_file import from_bytes
    from fedray.party.door.ledger_view import Ledger

    ledger = Ledger(from_bytes(content))
    print(ledger)
    print(f"\nroster fingerprint {fingerprint(ledger.roster)}")
    # With --roster, too: the right keys say nothing of entries that nobody has checked.
    problems = (ledger.verify() if _checks(options) else []) + _strangers(options, ledger.roster)
    print(_claimed(options, ledger.state(), problems))
    return _judged(options, problems, len(ledger))


def _own(options: argparse.Namespace, content: bytes) -> int:
    from fedray.party.door.entry import add_up, entry_of
    from fedray.party.door.ledger_view import table
    from fedray.party.door.own_ledger import read

    book = read(content)
    entries = (entry_of(line, book.party, index) for index, line in enumerate(book.lines))
    print(table({(book.party, to, kind): total for (to, kind), total in add_up(entries).items()}))
    if book.roster:
        print(f"\nroster fingerprint {fingerprint(book.roster)}")
    problems = (book.problems() if _checks(options) else []) + _strangers(options, book.roster, book)
    print(_claimed(options, _state(book), problems))
    return _judged(options, problems, book.signed)


def _folder(options: argparse.Namespace) -> int:
    from fedray.party.door.own_ledger import check_order, file_name, numbers_of, read
    from fedray.party.keys.key_folder import LEDGERS
    from fedray.party.keys.own_files import OTHERS, read_own, real_folder

    # A key folder, or the folder of ledgers in it.
    below = options.file / LEDGERS
    folder = real_folder(below if below.is_dir() else options.file)
    contents = {number: read_own(folder / file_name(number), OTHERS) for number in numbers_of(os.listdir(folder))}
    # A party that ended in the moment in which it began has left a name, and no line.
    books = {number: read(content) for number, content in contents.items() if b"\n" in content}
    faults = {number: book.problems() if _checks(options) else [] for number, book in books.items()}
    for number, book in books.items():
        said = _claimed(options, _state(book), faults[number])
        print(f"{file_name(number)}  {len(book.lines):>9,} entries  {said}")
    if not books:
        print(f"{folder} holds no ledger")
    problems = []
    if _checks(options):
        problems = check_order(books, set(contents) - set(books))
        problems += [f"{file_name(number)}: {one}" for number, found in faults.items() for one in found]
        if len({book.party for book in books.values()}) > 1:
            problems.append("the files are of several parties")
    for number, book in books.items():
        problems += [f"{file_name(number)}: {one}" for one in _strangers(options, book.roster, book)]
    return _judged(options, problems, sum(book.signed for book in books.values()))


def _state(book: OwnLedger) -> str:
    """Returns which session a party's own ledger is of, and what nobody can know from it."""
    name = f"session {book.sid.hex()[:16]}" if book.roster else "no session"
    if book.closed:
        return f"{name}; closed: nothing left {book.party} afterwards"
    cut = ", and its last line was cut off, for which nothing left" if book.torn else ""
    return (
        f"{name}; open: {book.party} takes part still, or ended without closing it; {book.signed:,} entries are "
        f"signed, and of those behind them whole lines may be missing{cut}"
    )


def _claimed(options: argparse.Namespace, state: str, problems: list[str]) -> str:
    """Returns what a record says of itself, and how far that is known."""
    if problems:
        return f"not as it was signed, though it says: {state}"
    return state if _checks(options) else f"{state} (not checked: --verify)"


def _checks(options: argparse.Namespace) -> bool:
    return bool(options.verify or options.roster)


def _strangers(
    options: argparse.Namespace, roster: Mapping[PartyName, bytes], own: OwnLedger | None = None
) -> list[str]:
    """Returns how the keys in a ledger differ from those of the roster asked for, a file or a fingerprint.

    Args:
        options: Of the command line.
        roster: The keys of the session; none where it had not begun.
        own: A party's own ledger, which states the party's key at least.
    """
    from fedray.party.keys.key_folder import read_roster

    known = options.roster.strip() if options.roster else ""
    fingerprinted = re.fullmatch(r"[0-9a-fA-F]{64}", known)
    # A fingerprint is of all parties' keys: it says nothing of one. Nor is any entry signed where no session has begun.
    found = {own.party: own.key} if own and not roster and not fingerprinted else roster
    if not known or not found:
        return []
    # A file of that name would have to be given with its folder.
    if fingerprinted:
        same = known.lower() == fingerprint(found)
        return [] if same else ["the parties' keys in the file are not those of the roster fingerprint given"]
    return [f"{known}: {difference}" for difference in read_roster(Path(known)).differences(found)]


def _judged(options: argparse.Namespace, problems: list[str], entries: int) -> int:
    for problem in problems:
        print(f"fedray: {options.file}: {problem}", file=sys.stderr)
    if not problems and _checks(options) and not entries:
        # Nothing but signatures is known to be the parties': what has none may have been made up or cut short.
        print("not verified: no signed entry")
        return 1
    if not problems and _checks(options):
        whose = "the parties of this roster" if options.roster else "the keys in the file"
        print(f"verified: {entries:,} entries, all signed by {whose}")
    return 1 if problems else 0
