# SPDX-License-Identifier: Apache-2.0
"""Readings of a ledger: of one session, numbered, in parts, closed once; and the file that keeps one, whole."""

import dataclasses
import json
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pure.ledger_kit import SID, page_in, page_of

from fedray.commands.cli import main
from fedray.errors import EgressDenied, PlanError
from fedray.party import whole_file
from fedray.party.door import journal as journal_module
from fedray.party.door import ledger_file
from fedray.party.door.entry import Entry, Total
from fedray.party.door.journal import Journal, session_id
from fedray.party.door.ledger_file import Book, check, to_bytes
from fedray.party.door.ledger_page import LedgerPage, check_page
from fedray.party.door.ledger_view import Ledger
from fedray.runtime.ledger_reading import read_pages

NAMES = ("alice", "bob")


def entry(number):
    return Entry("driver", "masked", (number,), "uint8", number, f"round {number}", True)


@pytest.fixture
def keys():
    return {name: Ed25519PrivateKey.generate() for name in NAMES}


@pytest.fixture
def roster(keys):
    return {name: key.public_key().public_bytes_raw() for name, key in keys.items()}


def journals(keys, sid=SID, count=3):
    made = {name: Journal(name, key) for name, key in keys.items()}
    for journal in made.values():
        journal.begin(sid, {})
        for number in range(count):
            journal.append(entry(number))
    return made


def pages_of(made, roster, reading, *, close=False):
    return {name: page_of(journal, roster, reading, close=close) for name, journal in made.items()}


def test_a_page_of_another_session_is_refused_in_a_session_s_file(keys, roster):
    """Keys that outlast a session sign both: alice's page of the second one hides what left her in the first."""
    first = pages_of(journals(keys), roster, 1)
    other = bytes(reversed(SID))
    second = pages_of(journals(keys, other, 1), roster, 1)
    mixed = first | {"alice": second["alice"]}
    assert check(to_bytes(Book(first, roster, SID, 1)), roster) == []
    assert check(to_bytes(Book(mixed, roster, SID, 1)), roster) == [
        f"alice: a page of another session, {other.hex()[:16]}"
    ]
    assert check(to_bytes(Book(mixed, roster, other, 1)), roster) == [
        f"bob: a page of another session, {SID.hex()[:16]}"
    ]


def test_an_early_page_is_refused_in_place_of_the_last_one(keys, roster):
    made = journals(keys)
    early = pages_of(made, roster, 1)
    made["alice"].append(entry(9))
    last = pages_of(made, roster, 2)
    assert check(to_bytes(Book(last, roster, SID, 2)), roster) == []
    problems = check(to_bytes(Book(last | {"alice": early["alice"]}, roster, SID, 2)), roster)
    assert problems == ["alice: a page of reading 1 among those of reading 2"]
    # An early file as a whole is what it was, and says that it is not the last word.
    assert check(to_bytes(Book(early, roster, SID, 1)), roster) == []
    assert "open: the session had not ended at every party" in Ledger(Book(early, roster, SID, 1)).state()


def test_a_party_signs_a_number_once_and_only_upwards(keys, roster):
    journal = journals(keys)["alice"]
    journal.part(0, roster, 2, close=False)
    for reading in (0, 1, 2):
        with pytest.raises(PlanError, match=f"reading {reading} of its ledger was asked for after reading 2"):
            journal.part(0, roster, reading, close=False)
        with pytest.raises(PlanError, match="after reading 2"):
            journal.left(0, reading)
    assert journal.part(0, roster, 3, close=False).head.reading == 3


def test_a_party_that_signs_a_number_twice_lets_an_early_page_pass(keys, roster, monkeypatch):
    """The broken variant."""
    made = journals(keys)
    early = pages_of(made, roster, 1)
    made["alice"].append(entry(9))
    monkeypatch.setattr(Journal, "_check", lambda *_: None)
    last = pages_of(made, roster, 1)
    assert check(to_bytes(Book(last | {"alice": early["alice"]}, roster, SID, 1)), roster) == []


def test_nothing_is_added_once_a_ledger_is_closed(keys, roster):
    made = journals(keys)
    closed = pages_of(made, roster, 1, close=True)
    for journal in made.values():
        with pytest.raises(EgressDenied, match="closed its ledger"):
            journal.append(entry(9))
        journal.close(roster)
    book = Book(closed, roster, SID, 1)
    assert check(to_bytes(book), roster) == []
    assert Ledger(book).state().endswith("closed: nothing left these parties afterwards")
    half = Book(closed | {"bob": page_of(journals(keys)["bob"], roster, 1)}, roster, SID, 1)
    assert "open: the session had not ended at bob" in Ledger(half).state()


def test_a_closing_mark_that_is_written_over_an_open_page_is_found(keys, roster):
    page = pages_of(journals(keys), roster, 1)["alice"]
    assert "the signature does not fit" in check_page(
        LedgerPage(dataclasses.replace(page.head, closed=True), page.lines), roster
    )


def test_the_command_says_which_session_and_what_it_cannot_know(keys, roster, tmp_path, capsys):
    made, path = journals(keys), tmp_path / "ledger.jsonl"
    for reading, close, word in ((1, False, "open: the session had not ended"), (2, True, "closed: nothing left")):
        Ledger(Book(pages_of(made, roster, reading, close=close), roster, SID, reading)).save(path)
        assert main(["ledger", str(path), "--verify"]) == 0
        said = capsys.readouterr().out
        assert f"session {SID.hex()[:16]}, reading {reading}; {word}" in said
        assert "verified: 6 entries" in said


def test_sessions_have_names_that_nobody_can_repeat():
    roster = {"alice": bytes(32), "bob": bytes([1]) * 32}
    marks = {"alice": bytes(16), "bob": bytes(16)}
    names = {session_id(roster, marks)}
    for name in roster:
        names |= {session_id(roster, marks | {name: bytes([7]) * 16}), session_id(roster | {name: b"x" * 32}, marks)}
    assert len(names) == 5
    journal = Journal("alice", Ed25519PrivateKey.generate())
    journal.begin(SID, {})
    journal.begin(SID, {})
    with pytest.raises(PlanError, match="another session already"):
        journal.begin(bytes(reversed(SID)), {})


def test_a_long_ledger_is_read_in_parts_while_it_grows(keys, roster, monkeypatch):
    monkeypatch.setattr(journal_module, "PART", 2)
    made, asked = journals(keys, count=5), []

    def ask(party, first):
        asked.append((party, first))
        return party, first

    def get(ref, _):
        party, first = ref
        if first == 2:
            made[party].append(entry(9))
        return made[party].part(first, roster, 1, close=False)

    pages = read_pages(NAMES, ask, get, entries=True, timeout=None)
    assert [len(page.entries) for page in pages.values()] == [6, 6]
    assert [check_page(page, roster) for page in pages.values()] == [None, None]
    assert asked == [("alice", 0), ("bob", 0), ("alice", 2), ("alice", 4), ("bob", 2), ("bob", 4)]


def test_totals_come_without_entries_and_are_signed(keys, roster, tmp_path):
    made = journals(keys)
    full = pages_of(made, roster, 1)
    pages = read_pages(
        NAMES,
        lambda *ref: ref,
        lambda ref, _: made[ref[0]].part(ref[1], roster, 2, close=False),
        entries=False,
        timeout=None,
    )
    ledger = Ledger(Book(pages, roster, SID, 2))
    assert ledger.totals() == Ledger(Book(full, roster, SID, 1)).totals()
    assert ledger.totals()["alice", "driver", "masked"] == Total(3, 3, 0)
    assert len(ledger) == 6
    assert ledger.verify() == []
    with pytest.raises(PlanError, match="without its entries"):
        _ = ledger.rows
    with pytest.raises(PlanError, match="without its entries"):
        ledger.save(tmp_path / "x")
    page = full["alice"]
    wrong = dataclasses.replace(page.head, totals={("driver", "masked"): Total(1, 1, 0)})
    assert check_page(LedgerPage(wrong, page.lines), roster) == "alice: the totals are not those of the entries"
    assert "the signature does not fit" in check_page(LedgerPage(wrong, None), roster)


def test_a_party_that_signs_no_totals_could_have_any(keys, roster, monkeypatch):
    """The broken variant."""
    monkeypatch.setattr(journal_module, "written_totals", lambda _: [])
    page = page_of(journals(keys)["alice"], roster)
    wrong = dataclasses.replace(page.head, totals={("driver", "masked"): Total(1, 1, 0)})
    assert check_page(LedgerPage(wrong, None), roster) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_an_empty_answer_is_no_line(keys, roster, count):
    page = page_in(journals(keys, count=count)["alice"].part(0, roster, 1, close=False))
    assert (len(page.entries), check_page(page, roster)) == (count, None)


# The file.


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"old")
    synced = []
    real = os.fsync

    def failing(descriptor):
        synced.append(os.fstat(descriptor).st_mode)
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="disk full"):
        whole_file.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["ledger.jsonl"]
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_mode), real(descriptor)))
    synced.clear()
    whole_file.replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    # The file before it takes the other's place, the folder after.
    assert [stat.S_ISDIR(mode) for mode in synced] == [False, True]
    assert [one.name for one in tmp_path.iterdir()] == ["ledger.jsonl"]


def test_a_link_is_followed_and_what_is_no_file_is_left_alone(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    whole_file.replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(PlanError, match="is no file"):
            whole_file.replace_file(tmp_path / name, b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record | {"reading": "3"},
        lambda record: record | {"reading": True},
        lambda record: record | {"count": -1},
        lambda record: record | {"closed": 1},
        lambda record: record | {"sid": "00"},
        lambda record: (
            record | {"totals": [{"to": "driver", "kind": "masked", "count": "3", "nbytes": 3, "refused": 0}]}
        ),
        lambda record: record | {"totals": 3},
        lambda record: record | {"totals": [3]},
        lambda record: record | {"more": 3},
        lambda record: {name: value for name, value in record.items() if name != "head"},
    ],
)
def test_a_head_that_is_none_is_an_error_and_no_traceback(keys, roster, change):
    content = to_bytes(Book(pages_of(journals(keys), roster, 1), roster, SID, 1))
    lines = content.splitlines()
    lines[4] = ledger_file.canonical(change(json.loads(lines[4])))
    assert len(problems := check(b"\n".join(lines) + b"\n")) == 1
    assert problems[0].startswith("line 5")
