# SPDX-License-Identifier: Apache-2.0
"""The ledger: chained, signed, and any change in a saved one is found."""

import dataclasses
import json
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pure.ledger_kit import SID, book_of, page_of

from fedray.commands.cli import main
from fedray.party.door import entry as ledger_entry
from fedray.party.door import journal as journal_module
from fedray.party.door import ledger_file, ledger_view
from fedray.party.door.entry import Entry, Total, fault_of, line_of
from fedray.party.door.journal import Journal, chain, link, start
from fedray.party.door.ledger_page import LedgerPage, check_page
from fedray.party.door.ledger_view import Ledger

NAMES = ("Ärger", "alice", "bob")


def entry(number=0, **changes):
    made = Entry("driver", "raw", (3, number), "float64", 24 * number, f"{number}:reveal", True)
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def book():
    """Pages of three parties with 0, 1 and 3 entries, and their roster."""
    keys = {name: Ed25519PrivateKey.generate() for name in NAMES}
    roster = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
    pages = {}
    for count, (name, key) in zip((0, 1, 3), keys.items(), strict=True):
        journal = Journal(name, key)
        journal.begin(SID, {})
        for number in range(count):
            journal.append(entry(number, shape=None if number == 1 else (number,), allowed=number != 2))
        pages[name] = page_of(journal, roster)
    return pages, roster


@pytest.fixture(scope="module")
def content(book):
    return ledger_file.to_bytes(book_of(*book))


def test_a_saved_ledger_is_found_intact(book, content, tmp_path):
    pages, roster = book
    assert ledger_file.check(content) == []
    assert ledger_file.check(content, roster) == []
    read = ledger_file.from_bytes(content)
    assert (read.pages, read.roster, read.sid, read.reading) == (pages, roster, SID, 1)
    Ledger(book_of(pages, roster)).save(tmp_path / "ledger.jsonl")
    assert (tmp_path / "ledger.jsonl").read_bytes() == content
    assert ledger_file.verify(tmp_path / "ledger.jsonl", roster) == []
    with pytest.raises(OSError, match="nowhere"):
        ledger_file.verify(tmp_path / "nowhere")


def test_every_line_is_json_and_names_its_party(content):
    records = [json.loads(line) for line in content.decode().splitlines()]
    assert list(records[0]["roster"]) == sorted(NAMES)
    assert [(r["party"], r.get("index")) for r in records[1:]] == [
        ("alice", 0),
        ("alice", None),
        ("bob", 0),
        ("bob", 1),
        ("bob", 2),
        ("bob", None),
        ("Ärger", None),
    ]


def test_any_changed_byte_is_found(content):
    for place in range(len(content)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(content)
            changed[place] ^= flip
            assert ledger_file.check(bytes(changed)) != [], (place, flip)


def test_any_truncation_is_found(content):
    for length in range(len(content)):
        assert ledger_file.check(content[:length]) != [], length


def test_any_missing_doubled_or_moved_line_is_found(content):
    lines = content.splitlines(keepends=True)
    for i in range(len(lines)):
        assert ledger_file.check(b"".join(lines[:i] + lines[i + 1 :])) != []
        assert ledger_file.check(b"".join(lines[: i + 1] + lines[i:])) != []
        for j in range(i):
            swapped = list(lines)
            swapped[i], swapped[j] = lines[j], lines[i]
            assert ledger_file.check(b"".join(swapped)) != []


@pytest.mark.parametrize("added", [b"\n", b" ", b"{}\n", b"null\n", b"\xff\n", b"[" * 100_000, b'{"party":1}\n'])
def test_anything_added_is_found(content, added):
    assert ledger_file.check(content + added) != []
    assert ledger_file.check(added + content) != []


@pytest.mark.parametrize("garbage", [b"", b"\n", b"{}\n", b'{"roster":{"a":1}}\n', b'{"roster":{"\\ud800":""}}\n'])
def test_what_is_no_ledger_is_told_so(garbage):
    assert len(ledger_file.check(garbage)) == 1


def test_a_party_that_is_left_out_is_missing(book):
    pages, roster = book
    for left_out in NAMES:
        rest = {name: page for name, page in pages.items() if name != left_out}
        assert ledger_file.check(ledger_file.to_bytes(book_of(rest, roster))) == [f"{left_out}: missing"]
        assert Ledger(book_of(rest, roster)).verify() == [f"{left_out}: missing"]


def test_a_party_that_is_left_out_of_the_roster_too_is_found_by_the_others_signatures(book):
    pages, roster = book
    for left_out in NAMES:
        rest = {name: page for name, page in pages.items() if name != left_out}
        smaller = {name: key for name, key in roster.items() if name != left_out}
        problems = ledger_file.check(ledger_file.to_bytes(book_of(rest, smaller)))
        assert len(problems) == 2
        assert all("signature" in problem for problem in problems)


def test_a_ledger_made_up_with_other_keys_needs_the_roster_to_be_found(book):
    forged = {name: Ed25519PrivateKey.generate() for name in NAMES}
    keys = {name: key.public_key().public_bytes_raw() for name, key in forged.items()}
    pages = {name: page_of(begun(name, key), keys) for name, key in forged.items()}
    made_up = ledger_file.to_bytes(book_of(pages, keys))
    assert ledger_file.check(made_up) == []
    assert ledger_file.check(made_up, book[1]) == ["the parties' keys in the file are not the expected ones"]


def test_pages_of_another_session_or_party_do_not_fit(book):
    pages, roster = book
    key = Ed25519PrivateKey.generate()
    other = roster | {"bob": key.public_key().public_bytes_raw()}
    assert "signature" in check_page(pages["alice"], other)
    assert "roster" in check_page(signed_as(pages["alice"], "carol"), roster)
    assert check_page(signed_as(pages["alice"], "bob"), roster) is not None


def begun(name, key):
    """Returns a new journal of the session."""
    journal = Journal(name, key)
    journal.begin(SID, {})
    return journal


def signed_as(page, name):
    return LedgerPage(dataclasses.replace(page.head, party=name), page.lines)


@given(st.integers(0, 2), st.sampled_from([f.name for f in dataclasses.fields(Entry)]), st.data())
def test_any_changed_field_changes_the_head(place, field, data):
    entries = [entry(number) for number in range(3)]
    old = getattr(entries[place], field)
    options = {bool: st.booleans(), int: st.integers(0, 99), str: st.text(max_size=3)}
    other = data.draw(options.get(type(old), st.none() | st.tuples(st.integers(0, 9))).filter(lambda v: v != old))
    changed = [dataclasses.replace(e, **{field: other}) if i == place else e for i, e in enumerate(entries)]
    assert chain(start("alice"), lines(changed)) != chain(start("alice"), lines(entries))


def lines(entries):
    return [line_of("alice", index, entry) for index, entry in enumerate(entries)]


WRONG = [
    {"nbytes": "24"},
    {"nbytes": None},
    {"nbytes": 2.5},
    {"nbytes": True},
    {"nbytes": -1},
    {"nbytes": 10**40},
    {"shape": ["a"]},
    {"shape": [-1]},
    {"shape": "33"},
    {"shape": 3},
    {"allowed": 1},
    {"allowed": "no"},
    {"to": 3},
    {"kind": None},
    {"dtype": ["float64"]},
    {"call": {}},
    {"commitment": "ff"},
    {"commitment": "G" * 64},
    {"commitment": 3},
]


def signed(**changes):
    """Returns the file of alice, who has signed one good entry and one with these changes, and her page."""
    key = Ed25519PrivateKey.generate()
    roster = {"alice": key.public_key().public_bytes_raw()}
    journal = begun("alice", key)
    journal.append(entry(1))
    written = entry(2, **changes)
    with pytest.MonkeyPatch.context() as patch:
        if fault_of(written):  # a party that writes such a line adds up something else
            patch.setattr(journal_module, "line_of", lambda party, index, _: line_of(party, index, written))
        journal.append(entry(2) if fault_of(written) else written)
    page = page_of(journal, roster)
    return ledger_file.to_bytes(book_of({"alice": page}, roster)), page, roster


def shown(content, path, capsys):
    """Returns the exit code of `fedray ledger FILE` and all it printed."""
    path.write_bytes(content)
    code = main(["ledger", str(path)])
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_is_no_entry_is_an_error_though_it_is_signed(wrong, tmp_path, capsys):
    field = next(iter(wrong))
    content, page, roster = signed(**wrong)
    assert len(problems := ledger_file.check(content)) == 1
    assert problems[0].startswith(f"line 3: {field} is n")
    assert check_page(page, roster).startswith(f"alice: entry 1: {field} is n")
    code, said = shown(content, tmp_path / "ledger.jsonl", capsys)
    assert code == 1
    assert f"ledger.jsonl: line 3: {field} is n" in said


def test_a_reader_that_does_not_look_at_fields_is_found(tmp_path, capsys, monkeypatch):
    """The broken variant: a text where a number belongs, all signed, ends the command line with a traceback."""
    monkeypatch.setattr(ledger_entry, "fault_of", lambda _entry: None)
    (tmp_path / "ledger.jsonl").write_bytes(signed(nbytes="24")[0])
    with pytest.raises(TypeError):
        main(["ledger", str(tmp_path / "ledger.jsonl"), "--verify"])


ESCAPES = ["bob\x1b[2K", "bob\r", "bob\nalice", "\u202ebob", "bob\x9b8m", "\ud800", "bob\u200b"]


@pytest.mark.parametrize("text", ESCAPES, ids=ascii)
@pytest.mark.parametrize("field", ["to", "kind", "dtype", "call"])
def test_escapes_are_shown_and_not_acted_upon(field, text, tmp_path, capsys):
    content, page, roster = signed(**{field: text})
    code, said = shown(content, tmp_path / "ledger.jsonl", capsys)
    assert code == 0
    assert all(line.isprintable() for line in said.splitlines())
    assert len(said.splitlines()) == len(shown(signed()[0], tmp_path / "ledger.jsonl", capsys)[1].splitlines()) + (
        field in ("to", "kind")
    )
    assert repr(Ledger(book_of({"alice": page}, roster))).isascii()


def test_a_view_that_shows_what_it_is_told_is_found(tmp_path, capsys, monkeypatch):
    """The broken variant."""
    monkeypatch.setattr(ledger_view, "shown", lambda text: text)
    assert "\x1b" in shown(signed(to=ESCAPES[0])[0], tmp_path / "ledger.jsonl", capsys)[1]


@pytest.mark.parametrize("name", ["bob\x1b[2K", "a/b", "bob\u202e"], ids=ascii)
def test_names_that_are_none_are_in_no_ledger(name, tmp_path, capsys):
    key = Ed25519PrivateKey.generate()
    roster = {name: key.public_key().public_bytes_raw()}
    content = ledger_file.to_bytes(book_of({name: page_of(begun(name, key), roster)}, roster))
    code, said = shown(content, tmp_path / "ledger.jsonl", capsys)
    assert code == 1
    assert "a party's name must" in said
    assert all(line.isprintable() for line in said.splitlines())


def test_the_chain_depends_on_party_order_and_number():
    a, b = lines([entry(1), entry(2)])
    heads = [
        chain(start("alice"), [a, b]),
        chain(start("alice"), [b, a]),
        chain(start("alice"), [a]),
        chain(start("bob"), [a, b]),
        start("alice"),
    ]
    assert len(set(heads)) == len(heads)
    assert link(link(start("alice"), a), b) == chain(start("alice"), [a, b])


def test_entries_of_several_threads_make_one_chain():
    key = Ed25519PrivateKey.generate()
    journal, roster = Journal("alice", key), {"alice": key.public_key().public_bytes_raw()}
    threads = [threading.Thread(target=lambda: [journal.append(entry(n)) for n in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = page_of(journal, roster)
    assert len(page.entries) == 800
    assert check_page(page, roster) is None


def test_the_view_sums_and_shows(book):
    pages, roster = book
    ledger = Ledger(book_of(pages, roster))
    assert len(ledger) == len(ledger.rows) == 4
    assert ledger.missing == ()
    assert ledger.verify() == []
    assert ledger.totals() == {
        ("alice", "driver", "raw"): Total(1, 0, 0),
        ("bob", "driver", "raw"): Total(2, 24, 1),
    }
    assert repr(ledger).splitlines() == [
        "party  to      kind  values  bytes  refused",
        "alice  driver  raw        1      0        0",
        "bob    driver  raw        2     24        1",
    ]
    assert [(row.party, row.index) for row in ledger.rows] == [("alice", 0), ("bob", 0), ("bob", 1), ("bob", 2)]


def test_a_changed_page_is_found_in_the_view(book):
    pages, roster = book
    changed = LedgerPage(pages["bob"].head, pages["bob"].lines[:2])
    assert Ledger(book_of(pages | {"bob": changed}, roster)).verify() == [
        "bob: entries were changed, dropped, added or reordered"
    ]


def test_a_record_that_is_not_there_is_told_in_words(tmp_path, capsys):
    assert main(["ledger", str(tmp_path / "gone")]) == 1
    said = capsys.readouterr().err
    assert "gone'; name one that sf.shutdown(ledger=FILE) wrote, or a party's key folder" in said
    assert "Errno" not in said
