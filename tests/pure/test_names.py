# SPDX-License-Identifier: Apache-2.0
"""What may be a party's name, in every place where one comes in; and what a terminal makes of one that may not."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.commands.cli import main
from fedray.errors import PlanError
from fedray.party.keys import key_folder
from fedray.party.keys.credentials import Credentials
from fedray.party.keys.key_folder import new_identity, read_public, read_roster, written_public
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.crypto.names import MOST_BYTES, check_name
from fedray.runtime.settings import checked_names
from fedray.types import PartyConfig

GOOD = ["alice", "Ärger", "bob 2", "bank-a.example", "爱丽丝", "עליזה", "c:d", "x" * MOST_BYTES]

BAD = {
    "a number": 7,
    "nothing": "",
    "blank": " ",
    "blanks around": "bob ",
    "too long": "x" * (MOST_BYTES + 1),
    "half a character": "bob\ud800",
    "two spellings": unicodedata.normalize("NFD", "Ärger"),
    "a path": "/tmp/x/a",
    "a path below": "a/b",
    "a path of another system": "a\\b",
    "above": "..",
    "hidden": ".bob",
    "a home": "~bob",
    "a new line": "bob\nalice",
    "a carriage return": "bob\rcarol",
    "an escape": "bob\x1b[2K",
    "an escape of one character": "bob\x9b2K",
    "a tab": "bob\tx",
    "a zero byte": "bob\0",
    "right to left": "bob\u202e",
    "a mark of direction": "bob\u200f",
    "an isolate": "\u2067bob",
    "a line's end": "bob\u2028",
    "of no width": "bob\u200b",
    "a joiner": "bob\u034f",
    "a form": "bob\ufe0f",
    "a filler": "bob\u3164",
    "an empty pattern": "bob\u2800",
    "a hard blank": "bob\u00a0b",
    "a tag": "bob\U000e0041",
    "a mark on what is before it": "\u0301bob",
}


def accepted(name: object) -> list[str]:
    """Returns where a name is let in: from the driver, at its party, from a roster, in a message."""
    ways = {
        "check": lambda: check_name(name),
        "driver": lambda: checked_names([name]),
        "roster": lambda: Roster.of({name: bytes(32)}),
        "party": lambda: Credentials.of(PartyConfig(name, (name,), 0), {}).close(),
        "decoded": lambda: Roster.decode(_encoded(name)),
    }
    found = []
    for way, attempt in ways.items():
        try:
            attempt()
        except PlanError as error:
            # What is refused is shown, and a terminal must not act upon it.
            found += [] if str(error).isprintable() else [f"shown by {way}"]
        else:
            found.append(way)
    return found


def _encoded(name: object) -> bytes:
    if not isinstance(name, str) or "\ud800" in name or unicodedata.normalize("NFC", name) != name:
        raise PlanError("a message's text is Unicode in normal form")
    roster = object.__new__(Roster)
    object.__setattr__(roster, "names", (name,))
    object.__setattr__(roster, "keys", (bytes(32),))
    return roster.encode()


@pytest.mark.parametrize("name", GOOD)
def test_names_of_every_script_are_names(name: str, tmp_path: Path) -> None:
    assert len(accepted(name)) == 5
    if len(name) < MOST_BYTES:
        assert read_public(new_identity(tmp_path / "keys", name))[0] == name


@pytest.mark.parametrize("wrong", BAD)
def test_what_is_no_name_is_let_in_nowhere(wrong: str, tmp_path: Path) -> None:
    name = BAD[wrong]
    assert accepted(name) == []
    path = tmp_path / "bob.pub"
    path.write_bytes(written_public("bob", bytes(32)).replace(b'"bob"', _json(name)))
    with pytest.raises(PlanError, match=r"a party's name|normal form"):
        read_public(path)
    path.write_bytes(b'{"fedray": "roster", "parties": {' + _json(name if isinstance(name, str) else "") + b': "')
    with path.open("ab") as file:
        file.write(b"00" * 32 + b'"}}')
    with pytest.raises(PlanError, match=r"a party's name|normal form"):
        read_roster(path)


def _json(name: object) -> bytes:
    return json.dumps(name).encode()


@given(st.characters())
def test_whatever_a_terminal_acts_upon_is_in_no_name(character: str) -> None:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        with pytest.raises(PlanError):
            check_name(f"b{character}b")


SPOOFED = "bob  1111 2222 3333 4444 5555 6666 7777 8888\x1b[8m"
"""Ends in the escape that hides all that follows: the real fingerprint."""


def shown_roster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (tmp_path / "bob.pub").write_bytes(written_public("bob", bytes(32)).replace(b'"bob"', _json(SPOOFED)))
    main(["keys", "roster", str(tmp_path / "bob.pub"), "--out", str(tmp_path / "roster.json")])
    return "".join(capsys.readouterr())


def test_a_public_file_cannot_put_another_fingerprint_beside_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = shown_roster(tmp_path, capsys)
    assert "\x1b" not in shown
    assert "must be printable" in shown
    assert not (tmp_path / "roster.json").exists()


def test_a_reader_that_takes_any_name_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken variant."""
    monkeypatch.setattr(key_folder, "check_name", lambda _name: None)
    monkeypatch.setattr("fedray.protocol.crypto.keys.check_name", lambda _name: None)
    assert SPOOFED in shown_roster(tmp_path, capsys)
