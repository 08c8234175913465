# SPDX-License-Identifier: Apache-2.0
"""`fedray keys` and `fedray ledger --roster FILE`, as their operators type them."""

from pathlib import Path

import pytest
from pure.ledger_kit import SID, book_of, page_of

from fedray.commands.cli import main
from fedray.party.door.egress import Kind
from fedray.party.door.entry import Entry
from fedray.party.door.journal import Journal
from fedray.party.door.ledger_file import to_bytes
from fedray.party.keys.key_folder import read_identity, read_public, read_roster
from fedray.protocol.crypto.keys import fingerprint, generate_identity, public_bytes


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Returns a folder in which alice and bob have keys and know each other."""
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob"):
        assert main(["keys", "new", name, "--dir", name]) == 0
    for name in ("alice", "bob"):
        assert main(["keys", "roster", "alice/alice.pub", "bob/bob.pub", "--dir", name]) == 0
    capsys.readouterr()
    return tmp_path


def print_of(folder: Path) -> str:
    return fingerprint(public_bytes(read_identity(folder)))


def test_from_new_keys_to_rosters(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (home / "alice/roster.json").read_bytes() == (home / "bob/roster.json").read_bytes()
    assert read_roster(home / "alice/roster.json").names == ("alice", "bob")
    assert main(["keys", "show", "alice"]) == 0
    shown = capsys.readouterr().out
    assert f"alice: fingerprint {print_of(home / 'alice')}" in shown
    assert f"  {print_of(home / 'bob')}  bob\n" in shown
    assert f"roster fingerprint {read_roster(home / 'bob/roster.json').hash.hex()}" in shown
    assert "no policy.toml" in shown
    (home / "alice/policy.toml").write_text("n_min = 5")
    (home / "alice/policy.toml").chmod(0o600)
    assert main(["keys", "show", "alice"]) == 0
    assert "n_min=5" in capsys.readouterr().out


def test_nothing_that_is_printed_is_secret(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "carol", "--dir", "carol"]) == 0
    assert main(["keys", "show", "carol"]) == 0
    assert main(["keys", "roster", "carol/carol.pub", "--dir", "alice"]) == 0
    assert main(["keys", "new", "carol", "--dir", "carol"]) == 1
    shown = "".join(capsys.readouterr())
    for folder in ("alice", "carol"):
        assert read_identity(home / folder).private_bytes_raw().hex() not in shown
        assert (home / folder / "identity.key").read_text().splitlines()[1] not in shown


def test_a_folder_s_own_key_is_put_in_and_others_are_added(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "carol", "--dir", "carol"]) == 0
    assert main(["keys", "roster", "bob/bob.pub", "--dir", "carol"]) == 0
    assert read_roster(home / "carol/roster.json").names == ("bob", "carol")
    assert main(["keys", "roster", "alice/alice.pub", "--dir", "carol"]) == 0
    assert read_roster(home / "carol/roster.json").names == ("alice", "bob", "carol")
    assert main(["keys", "roster", "alice/alice.pub", "bob/bob.pub", "--out", "all.json"]) == 0
    assert read_roster(home / "all.json").names == ("alice", "bob")
    printed = capsys.readouterr().out
    assert printed.count("Compare each fingerprint with its party by phone") == 3
    assert sorted(path.name for path in home.iterdir()) == ["alice", "all.json", "bob", "carol"], "nothing left beside"


def test_another_key_for_a_known_name_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "alice/roster.json").read_bytes()
    assert main(["keys", "new", "bob", "--dir", "impostor"]) == 0
    assert main(["keys", "roster", "impostor/bob.pub", "--dir", "alice"]) == 1
    error = capsys.readouterr().err
    assert "two keys for 'bob'" in error
    assert print_of(home / "bob") in error
    assert print_of(home / "impostor") in error
    assert (home / "alice/roster.json").read_bytes() == before
    assert main(["keys", "roster", "bob/bob.pub", "impostor/bob.pub", "--out", "new.json"]) == 1
    assert not (home / "new.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["keys"], 2, "ACTION"),
        (["keys", "new", "alice"], 2, "--dir"),
        (["keys", "roster", "alice/alice.pub"], 2, "--dir --out"),
        (["keys", "roster", "--dir", "alice"], 2, "FILE"),
        (["keys", "roster", "alice/alice.pub", "--dir", "alice", "--out", "x"], 2, "not allowed with"),
        (["keys", "new", "alice", "--dir", "alice"], 1, "a key is never overwritten"),
        (["keys", "new", "a/b", "--dir", "other"], 1, "a party's name must not hold '/'"),
        (["keys", "show", "nowhere"], 1, "nowhere cannot be read"),
        (["keys", "roster", "nowhere.pub", "--out", "x"], 1, "nowhere.pub cannot be read"),
        (["keys", "roster", "alice/identity.key", "--out", "x"], 1, "is no fedray public key file"),
        (["keys", "roster", "alice/roster.json", "--out", "x"], 1, "is no fedray public key file"),
        (["keys", "roster", "alice/alice.pub", "--out", "no/where.json"], 1, "no/"),
    ],
)
def test_mistakes_are_said(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    try:
        found = main(arguments)
    except SystemExit as done:  # of argparse
        found = done.code
    said = capsys.readouterr()
    assert (found, said.out) == (code, "")
    assert text in said.err


def test_halves_that_do_not_fit_are_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "alice/alice.pub").write_bytes((home / "bob/bob.pub").read_bytes())
    assert main(["keys", "show", "alice"]) == 1
    assert "expected one .pub file with the public half of its key, found 0" in capsys.readouterr().err


def ledger_of(home: Path, *names: str) -> Path:
    """Writes a ledger that these parties signed with the keys of their folders."""
    identities = {name: read_identity(home / name) for name in names}
    roster = {name: public_bytes(identity) for name, identity in identities.items()}
    pages = {}
    for name, identity in identities.items():
        journal = Journal(name, identity)
        journal.begin(SID, roster)
        journal.append(Entry("driver", str(Kind.SHAPE), None, "tuple", 3, "1:bind", True))
        pages[name] = page_of(journal, roster)
    path = home / "ledger.jsonl"
    path.write_bytes(to_bytes(book_of(pages, roster)))
    return path


def test_a_ledger_is_checked_against_a_roster_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roster = str(home / "alice/roster.json")
    for names in (("alice", "bob"), ("bob",)):
        assert main(["ledger", str(ledger_of(home, *names)), "--verify", "--roster", roster]) == 0
        assert "all signed by the parties of this roster" in capsys.readouterr().out
    assert main(["keys", "new", "bob", "--dir", "impostor"]) == 0
    real = print_of(home / "bob")
    (home / "bob").rename(home / "away")
    (home / "impostor").rename(home / "bob")
    forged = str(ledger_of(home, "alice", "bob"))
    assert main(["ledger", forged, "--verify"]) == 0, "made up as a whole, which needs the roster to be found"
    capsys.readouterr()
    assert main(["ledger", forged, "--verify", "--roster", roster]) == 1
    said = capsys.readouterr()
    assert "verified" not in said.out
    assert f"the key of 'bob' has fingerprint {print_of(home / 'bob')}, in the roster it is {real}" in said.err
    assert main(["ledger", forged, "--roster", "nowhere.json"]) == 1
    assert "nowhere.json cannot be read" in capsys.readouterr().err


def test_fingerprints_differ_where_keys_do() -> None:
    keys = [public_bytes(generate_identity()) for _ in range(50)]
    prints = {fingerprint(key) for key in keys}
    assert len(prints) == 50
    assert all(len(one.split()) == 8 and len(one) == 39 for one in prints)


def test_a_public_file_is_what_new_wrote(home: Path) -> None:
    assert read_public(home / "alice/alice.pub") == ("alice", public_bytes(read_identity(home / "alice")))
