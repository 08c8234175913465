# SPDX-License-Identifier: Apache-2.0
"""A party's ledger on its own disk: there before anything leaves, whole after a crash, and any change is found."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from pure.ledger_kit import entries_at, install

from fedray.commands.cli import main
from fedray.errors import PlanError, ProtocolError
from fedray.party.door import own_ledger
from fedray.party.door.entry import canonical
from fedray.party.door.journal import Journal
from fedray.party.door.ledger_file import BrokenLedger
from fedray.party.door.own_ledger import check_order, is_own, last_mark, read
from fedray.party.keys.credentials import Credentials
from fedray.party.keys.key_folder import new_identity, read_identity, read_public, written_roster
from fedray.party.keys.ledger_log import LedgerLog
from fedray.party.parcel import pack
from fedray.party.party import Party
from fedray.types import Failure, PartyConfig


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "alice"
    new_identity(folder, "alice")
    (folder / "roster.json").write_bytes(written_roster(dict([read_public(folder / "alice.pub")])))
    (folder / "roster.json").chmod(0o600)
    return folder


class Calls:
    def call(self, party, method, *args):
        return "ref"

    def get(self, refs, timeout):
        return []


def party(folder):
    made = Party(PartyConfig("alice", ("alice",), 0, keys=str(folder)), Calls())
    install(made, dict([read_public(folder / "alice.pub")]))
    made.handle("run", "2:run", ("value",), pack((int, (4711,), {})))
    return made


def kept(folder, number=1):
    return (folder / "ledger" / f"{number:06d}.log").read_bytes()


def test_what_leaves_is_on_the_disk_before_it_leaves(folder):
    tried = party(folder)
    tried.handle("export", "3:reveal", "value", "driver")
    book = read(kept(folder))
    assert [line for line in book.lines if b'"call":"3:reveal"' in line]
    assert book.lines == tried._journal._lines
    assert (book.party, book.closed, book.signed, book.problems()) == ("alice", False, 0, [])
    entries_at(tried)
    assert read(kept(folder)).signed == len(tried._journal._lines)
    tried.close()
    book = read(kept(folder))
    assert (book.closed, book.torn, book.problems(), book.sid) == (True, False, [], tried._journal._sid)


def test_a_party_that_dies_has_lost_no_record(folder):
    """In a process of its own, which ends as a crash would in the very moment in which the value would leave."""
    code = f"""
        import os
        from pure import test_own_ledger as here
        from fedray.party.party import Party
        from pathlib import Path
        tried = here.party(Path({str(folder)!r}))
        Party._depart = lambda self, call, out, send=Party._depart: (send(self, call, out), os._exit(9))
        tried.handle("export", "3:reveal", "value", "driver")
    """
    paths = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 9
    book = read(kept(folder))
    assert b'"call":"3:reveal"' in book.lines[-1]
    assert not book.closed


def test_a_party_that_writes_when_it_ends_loses_what_it_let_out(folder, monkeypatch):
    """The broken variant: lines are kept back, and a crash takes them along."""
    pending = []
    monkeypatch.setattr(LedgerLog, "write", lambda _, line: pending.append(line))
    tried = party(folder)
    tried.handle("export", "3:reveal", "value", "driver")
    assert pending
    assert b"reveal" not in kept(folder)
    tried.close()


def test_where_it_cannot_be_written_nothing_leaves(folder, monkeypatch):
    tried = party(folder)
    before = kept(folder)
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for _ in range(2):
        answer = tried.handle("export", "3:reveal", "value", "driver")
        assert isinstance(answer, Failure)
        assert "party 'alice': cannot write its ledger to" in answer.message
        assert "No space left" in answer.message
        assert "4711" not in repr(answer)
    monkeypatch.undo()
    assert isinstance(tried.handle("export", "3:reveal", "value", "driver"), Failure), "nothing follows a torn line"
    assert kept(folder) == before
    tried.close()


def test_half_a_line_is_no_line_and_nothing_follows_it(folder, monkeypatch):
    tried, real = party(folder), os.write
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:20]))
    assert isinstance(tried.handle("export", "3:reveal", "value", "driver"), Failure)
    monkeypatch.undo()
    tried.close()
    book = read(kept(folder))
    assert book.torn
    assert not book.closed
    again = party(folder)
    again.close()
    books = {number: read(kept(folder, number)) for number in (1, 2)}
    assert check_order(books) == []
    assert books[2].before == books[1].mark


def closed(folder, count=2):
    """Returns the file of a party that has let out a few values."""
    tried = party(folder)
    for number in range(count):
        tried.handle("export", f"{number}:reveal", "value", "driver")
    entries_at(tried)
    tried.close()
    return kept(folder)


def faults(content):
    try:
        return read(content).problems()
    except BrokenLedger as error:
        return [str(error)]


def test_any_changed_byte_is_found(folder):
    content = closed(folder)
    assert faults(content) == []
    for place in range(0, len(content) - 1, 3):
        for flip in (0x01, 0x20):
            changed = bytearray(content)
            changed[place] ^= flip
            assert faults(bytes(changed)) or read(bytes(changed)).torn, (place, flip)


def test_any_missing_doubled_or_moved_line_is_found_and_a_cut_end_is_open(folder):
    lines = closed(folder).splitlines(keepends=True)
    for i in range(len(lines) - 1):
        assert faults(b"".join(lines[:i] + lines[i + 1 :])), i
        assert faults(b"".join(lines[: i + 1] + lines[i:])), i
        assert faults(b"".join([*lines[:i], lines[i + 1], lines[i], *lines[i + 2 :]])), i
    assert faults(b"".join([*lines, lines[-1]]))
    # Whole lines that are missing at the end alone: nobody can know, and it says "open".
    for end in range(2, len(lines)):
        assert not read(b"".join(lines[:end])).closed or end == len(lines)


def test_lines_that_are_not_chained_hide_a_change(folder, monkeypatch):
    """The broken variant."""

    class Loose(own_ledger.Marks):
        def next(self, body):
            return "0" * 32

    content = closed(folder)
    monkeypatch.setattr(own_ledger, "Marks", Loose)
    loose = b"".join(b"0" * 32 + line[32:] for line in content.splitlines(keepends=True))
    lines = loose.splitlines(keepends=True)
    dropped = b"".join(line for line in lines if b'"reading"' not in line)
    assert faults(dropped) == []
    monkeypatch.undo()
    assert faults(dropped)


def test_a_head_of_another_session_or_with_other_entries_is_found(folder, monkeypatch):
    """Whoever may write the folder can chain lines anew, and cannot sign them."""
    content = closed(folder)
    bodies = [line[33:] for line in content.splitlines()]

    def chained(changed):
        marks = own_ledger.Marks("alice", "")
        return b"".join(marks.line(body) for body in changed)

    assert chained(bodies) == content
    other = [body.replace(b'"call":"0:reveal"', b'"call":"9:reveal"') for body in bodies]
    assert "the entries are not those that reading 1 is signed over" in faults(chained(other))[0]
    sid = read(content).sid.hex().encode()
    other = [body.replace(sid, b"ab" * 32) if b'"session"' in body else body for body in bodies]
    assert "a head of another session" in faults(chained(other))[0]
    monkeypatch.setattr(own_ledger, "check_page", lambda *_: None)
    forged = [body.replace(b'"reading":1', b'"reading":7') for body in bodies]
    assert faults(chained(forged)) == [], "the broken variant: signatures are not looked at"
    monkeypatch.undo()
    assert "the signature does not fit" in faults(chained(forged))[0]


def test_a_file_that_is_missing_or_another_s_is_found(folder, tmp_path, capsys):
    for _ in range(4):
        closed(folder)
    assert main(["ledger", str(folder), "--verify", "--roster", str(folder / "roster.json")]) == 0
    said = capsys.readouterr().out
    assert said.count("; closed: nothing left alice afterwards") == 4
    assert "verified:" in said
    ledgers = folder / "ledger"
    shutil.copy(ledgers / "000002.log", tmp_path / "kept")
    (ledgers / "000002.log").unlink()
    assert main(["ledger", str(folder), "--verify"]) == 1
    assert "000002.log is missing" in capsys.readouterr().err
    shutil.copy(ledgers / "000003.log", ledgers / "000002.log")
    assert main(["ledger", str(ledgers), "--verify"]) == 1
    said = capsys.readouterr().err
    assert "000002.log was written as 000003.log" in said
    assert "does not follow the end of" in said
    shutil.copy(tmp_path / "kept", ledgers / "000002.log")
    assert main(["ledger", str(ledgers), "--verify"]) == 0


def marked_anew(bodies, number, before):
    """Returns lines as whoever may write the folder can make them a file, its first line as far as that goes."""
    first = json.loads(bodies[0]) | {"number": number, "before": before}
    marks = own_ledger.Marks(first["party"], before)
    return b"".join(marks.line(body) for body in [canonical(first), *bodies[1:]])


@pytest.mark.parametrize("before", ["\ud800", "0" * 31, "G" * 32, 7, None])
def test_a_first_line_that_is_made_up_is_refused(before):
    body = own_ledger._first_line("alice", 1, before, bytes(32), bytes(64))
    with pytest.raises(BrokenLedger, match="line 1: not a party's own ledger"):
        own_ledger.read(b"0" * 32 + b" " + body + b"\n")


def emptied(one, two, three):
    return one, b"", marked_anew(three, 3, last_mark(one))


def exchanged(one, two, three):
    second = bodies_of(marked_anew(bodies_of(one), 2, ""))
    first = marked_anew(two, 1, "")
    second = marked_anew(second, 2, last_mark(first))
    return first, second, marked_anew(three, 3, last_mark(second))


def doubled(one, two, three):
    second = marked_anew(bodies_of(one), 2, last_mark(one))
    return one, second, marked_anew(three, 3, last_mark(second))


def doubled_at_the_end(one, two, three):
    second = marked_anew(two, 2, last_mark(one))
    return one, second, marked_anew([three[0], *bodies_of(one)[1:]], 3, last_mark(second))


def without_a_reading(one, two, three):
    kept = [body for body in two if b'"reading":1,' not in body]
    assert len(kept) == len(two) - 1
    second = marked_anew(kept, 2, last_mark(one))
    return one, second, marked_anew(three, 3, last_mark(second))


def bodies_of(content):
    return [line[33:] for line in content.splitlines()]


CHANGES = {
    emptied: "000003.log: alice: the signature does not fit line 1",
    exchanged: "000001.log: alice: the signature does not fit line 1",
    doubled: "000002.log: alice: the signature does not fit line 1",
    doubled_at_the_end: "000003.log is of the same session as 000001.log",
    without_a_reading: "000003.log: alice: the signature does not fit line 1",
}


@pytest.mark.parametrize("change", CHANGES)
def test_whole_sessions_cannot_be_taken_out_or_moved_by_marking_files_anew(folder, capsys, change, monkeypatch):
    contents = [closed(folder) for _ in range(3)]
    contents = [kept(folder, number) for number in (1, 2, 3)]
    asked = ["ledger", str(folder), "--verify", "--roster", str(folder / "roster.json")]
    assert main(asked) == 0
    for number, content in enumerate(change(contents[0], *map(bodies_of, contents[1:])), start=1):
        (folder / "ledger" / f"{number:06d}.log").write_bytes(content)
    assert main(asked) == 1
    assert CHANGES[change] in capsys.readouterr().err
    if change in (emptied, exchanged, without_a_reading):
        monkeypatch.setattr(own_ledger, "verify", lambda *_: True)
        assert main(asked) == 0, "the broken variant: nobody looks at the signature of the first line"


def test_a_first_line_of_other_keys_is_found(folder, tmp_path, capsys):
    closed(folder)
    path, lines = folder / "ledger" / "000001.log", bodies_of(kept(folder))
    new_identity(tmp_path / "other", "alice")
    first = own_ledger.first_line("alice", 1, "", read_identity(tmp_path / "other"))
    for bodies, problem in (
        ([first, *lines[1:]], "alice: line 1 is signed with another key than the roster of the session has"),
        ([first], "in the roster it is"),
    ):
        marks = own_ledger.Marks("alice", "")
        path.write_bytes(b"".join(marks.line(body) for body in bodies))
        assert main(["ledger", str(path), "--verify", "--roster", str(folder / "roster.json")]) == 1
        assert problem in capsys.readouterr().err


def test_what_nobody_signed_is_not_called_verified(folder, capsys):
    lines = closed(folder).splitlines(keepends=True)
    path = folder / "ledger" / "000001.log"
    place = next(at for at, line in enumerate(lines) if at and b'"signature":' in line)
    for end in (place, 1):
        path.write_bytes(b"".join(lines[:end]))
        for what in (path, folder):
            assert main(["ledger", str(what), "--verify", "--roster", str(folder / "roster.json")]) == 1
            said = capsys.readouterr().out
            assert "not verified: no signed entry" in said
            assert "\nverified" not in said


def test_one_file_is_shown_with_its_totals(folder, capsys):
    content = closed(folder)
    assert is_own(content)
    path = str(folder / "ledger" / "000001.log")
    assert main(["ledger", path, "--verify"]) == 0
    said = capsys.readouterr().out
    assert "alice  driver  raw" in said
    assert "closed: nothing left alice afterwards" in said
    (folder / "ledger" / "000001.log").write_bytes(content.replace(b"raw", b"hello"))
    assert main(["ledger", path]) == 1
    assert "was changed, or lines before it" in capsys.readouterr().err


def test_other_users_can_neither_read_nor_change_it(folder):
    closed(folder)
    assert (folder / "ledger").stat().st_mode & 0o777 == 0o700
    assert (folder / "ledger" / "000001.log").stat().st_mode & 0o777 == 0o600
    (folder / "ledger").chmod(0o777)
    with pytest.raises(PlanError, match="other users may put files into it"):
        Credentials.of(PartyConfig("alice", ("alice",), 0, keys=str(folder)), {})
    (folder / "ledger").chmod(0o700)
    Credentials.of(PartyConfig("alice", ("alice",), 0, keys=str(folder)), {}).close()
    shutil.move(folder / "ledger", folder / "elsewhere")
    (folder / "ledger").symlink_to(folder / "elsewhere")
    with pytest.raises(PlanError, match="is a link"):
        Credentials.of(PartyConfig("alice", ("alice",), 0, keys=str(folder)), {})


def test_a_party_without_a_folder_keeps_its_ledger_in_memory():
    assert Credentials.of(PartyConfig("alice", ("alice",), 0), {}).keep is None


def test_a_name_without_a_line_is_a_party_that_ended_as_it_began(folder, capsys):
    closed(folder)
    (folder / "ledger" / "000002.log").touch(0o600)
    closed(folder)
    assert main(["ledger", str(folder), "--verify"]) == 0
    assert "000003.log" in capsys.readouterr().out


def test_a_journal_that_cannot_be_kept_writes_nothing(folder):
    def full(line):
        raise ProtocolError("disk full")

    journal = Journal("alice", read_identity(folder), full)
    with pytest.raises(ProtocolError, match="disk full"):
        journal.append(entries_at(party(folder))[0])
    assert journal._lines == []
