# SPDX-License-Identifier: Apache-2.0
"""A party's `party.toml`: what it may say, with which line an error is told, and that a driver cannot loosen it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedray as sf
from fedray.commands.party_toml import TEMPLATE
from fedray.data.files import ReadOptions, read_table
from fedray.errors import DataError, EgressDenied, PlanError
from fedray.party.house.house_rules import HouseRules
from fedray.party.house.in_force import VARIABLE, InForce
from fedray.party.house.process import settle
from fedray.party.house.turns import HOME, Turn
from fedray.types import PartyConfig

FULL = """\
name = "alice"
keys = "keys"
checkpoints = "kept"
egress = "strict"
paths = "registered"
printing = false
sessions = 1

[limits]
threads = 4
memory = "8 GB"

[data]
train = "/data/train.npy"
"near-by" = "here.csv"
mine = "~/x.npy"
"""


def rules(text: str) -> HouseRules:
    return HouseRules.read(text, "party.toml", "/etc/fedray")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this process one on alice's and bob's machine; returns the folder with a folder for each."""
    for name in ("alice", "bob"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "party.toml").write_text(f'name = "{name}"\n')
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    monkeypatch.delenv("FEDRAY_KEYS", raising=False)
    return tmp_path


def test_every_setting_is_read_and_paths_start_at_the_file() -> None:
    assert rules(FULL) == HouseRules(
        name="alice",
        keys="/etc/fedray/keys",
        checkpoints="/etc/fedray/kept",
        egress="strict",
        paths="registered",
        printing=False,
        sessions=1,
        threads=4,
        memory=8 << 30,
        data={"train": "/data/train.npy", "near-by": "/etc/fedray/here.csv", "mine": "~/x.npy"},
    )
    assert rules('name = "bob"') == HouseRules("bob")
    # What the driver is told holds no path.
    assert "/" not in str(rules(FULL).told())
    assert rules(FULL).told()["data"] == ["mine", "near-by", "train"]
    lines = ("", 'keys = "k"', 'checkpoints = "c"')
    assert [rules(f'name = "bob"\n{line}').told()["checkpoints"] for line in lines] == [False, True, True]


def test_what_party_init_writes_is_read_with_every_line_in_force() -> None:
    assert rules(TEMPLATE).egress == "strict"
    lines = [line.removeprefix("# ") if " = " in line and "(" not in line else line for line in TEMPLATE.splitlines()]
    found = rules("\n".join(line for line in lines if " = " in line or line.startswith("[")).replace("NAME", "alice"))
    assert (found.threads, found.memory, list(found.data)) == (4, 8 << 30, ["mnist_train"])
    assert found.checkpoints == "/data/checkpoints"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('egress = "strict"', "party.toml: no name"),
        ('name = "alice"\nname = "bob"', "party.toml, line 2: name is there a second time; take one of the two away"),
        ('name = "a"\n[data]\nx = "y"\nx = "y"\nz = "y"', "party.toml, line 4: x is there a second time"),
        ('name = "a"\n[data]\nx = "y"\n[data]\nz = "y"', r"party.toml, line 4: \[data\] is there a second time"),
        ('name = "a', "party.toml, line 1: this is no TOML"),
        (
            'name = "alice"\negres = "strict"',
            r"line 2: party.toml has no setting 'egres'; it has name, keys, checkpoints, egress",
        ),
        ('name = "alice"\n\negress = "none"', "line 3: egress: expected one of 'default', 'strict', found 'none'"),
        ('name = "alice"\nprinting = "no"', "line 2: printing: expected true or false, found 'no'"),
        ('name = "alice"\npaths = true', "line 2: paths: expected 'any' or 'registered'"),
        ('name = "alice"\nsessions = 0', "line 2: sessions: expected a whole number from 1 on, found 0"),
        ('name = "alice"\nsessions = true', "line 2: sessions: expected a whole number"),
        ('name = "../bob"', "line 1: a party's name must not hold"),
        ("name = 3", "line 1: a party's name must be a non-empty string"),
        ('name = "alice"\nkeys = ""', "line 2: keys: expected the path"),
        (
            'name = "alice"\ncheckpoints = true',
            "line 2: checkpoints: expected the path of a folder in quotes",
        ),
        ('name = "alice"\nkeys = "k"\nsessions = 2', "line 3: sessions = 2 and keys: one identity"),
        ('name = "alice"\n[limits]\nthread = 4', r"line 3: \[limits\] has no setting 'thread'; it has threads, memory"),
        ('name = "alice"\n[limits]\nthreads = "4"', "line 3: threads: expected a whole number"),
        ('name = "alice"\n[limits]\nmemory = "8"', 'line 3: memory: expected an amount from "256 MB" on'),
        ('name = "alice"\n[limits]\nmemory = 8', 'line 3: memory: expected an amount from "256 MB" on'),
        ('name = "alice"\n[limits]\nmemory = "1 MB"', "line 3: memory"),
        ('name = "alice"\n[limit]\nthreads = 4', "line 2: party.toml has no setting 'limit'"),
        ('name = "alice"\ndata = "/x.npy"', r"line 2: expected a section \[data\], found str"),
        ('name = "alice"\n[data]\na = "/secret"\n"b.npy" = "/x"', "line 4: a name of data is made of letters"),
        ('name = "alice"\n[data]\n# x = 1\nx = 1', "line 4: x: expected the path of a file in quotes, found int"),
        (
            'name = "alice"\n[data]\nx = { y = "/z" }',
            "line 3: x: expected the path of a file in quotes, found a section",
        ),
        ('name = "alice"\nthis is no TOML', "party.toml, line 2: this is no TOML .*; expected a line such as"),
    ],
)
def test_errors_name_the_line(text: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        rules(text)


def test_a_driver_is_narrowed_and_cannot_loosen(machine: Path) -> None:
    asked = PartyConfig("alice", ("alice",), 0, egress="default", threads=8)
    assert InForce.of(asked).config == asked
    (machine / "alice" / "party.toml").write_text('name = "alice"\negress = "strict"\n[limits]\nthreads = 2\n')
    found = InForce.of(asked)
    assert (found.config.egress, found.config.threads) == ("strict", 2)
    assert found.told()["threads"] == 2
    # The other way round the driver may be stricter than the operator.
    (machine / "alice" / "party.toml").write_text('name = "alice"\n')
    assert InForce.of(PartyConfig("alice", ("alice",), 0, egress="strict")).told()["egress"] == "strict"


def test_a_file_that_is_missing_or_another_s_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PartyConfig("alice", ("alice",), 0)
    path = machine / "alice" / "party.toml"
    monkeypatch.setenv(VARIABLE, str(machine / "bob" / "party.toml"))
    with pytest.raises(PlanError, match=r"this machine's party is 'bob'.*the driver started 'alice' here"):
        InForce.of(config)
    for wrong in ("", "party.toml"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(PlanError, match="expected the absolute path"):
            InForce.of(config)
    monkeypatch.setenv(VARIABLE, str(machine))
    path.chmod(0o666)
    with pytest.raises(PlanError, match="other users may write it"):
        InForce.of(config)
    path.unlink()
    with pytest.raises(PlanError, match=r"party\.toml is not there; 'fedray party init"):
        InForce.of(config)
    path.write_bytes(b"\xff")
    with pytest.raises(PlanError, match="no UTF-8 text"):
        InForce.of(config)


def test_the_key_folder_is_the_file_s(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "alice" / "party.toml").write_text('name = "alice"\nkeys = "keys"\n')
    config = PartyConfig("alice", ("alice",), 0)
    assert InForce.of(config).environment["FEDRAY_KEYS"] == str(machine / "alice" / "keys")
    monkeypatch.setenv("FEDRAY_KEYS", "/elsewhere")
    with pytest.raises(PlanError, match=r"names the key folder .*, and FEDRAY_KEYS names /elsewhere"):
        InForce.of(config)


def test_data_is_loaded_by_name_and_with_registered_paths_by_nothing_else(machine: Path) -> None:
    np.save(machine / "x.npy", np.arange(3.0))
    path = machine / "alice" / "party.toml"
    path.write_text(f'name = "alice"\n[data]\ntrain = "{machine}/x.npy"\n')
    options = ReadOptions()
    assert read_table("train", "alice", options)[0].tolist() == [0, 1, 2]
    assert read_table(str(machine / "x.npy"), "alice", options)[0].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"'test' is no data registered in its party.toml \(it has train\)"):
        read_table("test", "alice", options)
    # Bob's machine has other names.
    with pytest.raises(DataError, match=r"party 'bob': 'train' is no data registered.*\(it has none\)"):
        read_table("train", "bob", options)
    path.write_text('name = "alice"\npaths = "registered"\n' + path.read_text().partition("\n")[2])
    assert read_table("train", "alice", options)[0].tolist() == [0, 1, 2]
    for other in (f"{machine}/x.npy", "../train", "train.npy", f"{machine}/./x.npy"):
        with pytest.raises(DataError, match="nothing else may be loaded there"):
            read_table(other, "alice", options)


def test_a_session_is_told_what_is_in_force(machine: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(machine / "x.npy", np.arange(3.0))
    text = f'name = "alice"\negress = "strict"\npaths = "registered"\n[data]\ntrain = "{machine}/x.npy"\n'
    (machine / "alice" / "party.toml").write_text(text)
    sf.shutdown()
    sf.init(["alice", "bob"], "inline", egress="default")
    try:
        told = sf.in_force()
        assert told["alice"]["egress"] == "strict"
        assert told["alice"]["data"] == ["train"]
        assert told["bob"]["egress"] == "default"
        assert [r.getMessage() for r in caplog.records] == [
            "alice: egress is 'strict' and not 'default', by the party.toml of its machine"
        ]
        alice = sf.PYU("alice")
        with pytest.raises(EgressDenied):
            sf.reveal(alice(abs)(-1))
        assert sf.reveal(sf.PYU("bob")(abs)(-1)) == 1
        from fedray.data.ndarray import load

        assert load({alice: "train"}).shape == (3,)
    finally:
        sf.shutdown()


def test_a_party_whose_file_is_wrong_says_so_in_answer_to_every_call(machine: Path) -> None:
    (machine / "alice" / "party.toml").write_text('name = "alice"\nprinting = "no"\n')
    sf.shutdown()
    with pytest.raises(PlanError, match=r"party 'alice'.*line 2: printing: expected true or false"):
        sf.init(["alice", "bob"], "inline")


def test_a_second_session_is_told_who_holds_the_party_since_when(machine: Path) -> None:
    (machine / "alice" / "party.toml").write_text('name = "alice"\nsessions = 2\n')
    folder = machine / "home" / "sessions"
    first = Turn("alice", 2, "session 1 of ann@here", folder)
    second = Turn("alice", 2, "session 2 of ben@there", folder)
    Turn("bob", 1, "session 3 of cyd", folder).close()
    said = r"serves 2 sessions side by side .*session 1 of ann@here since \d{4}-.* UTC; session 2 of ben@there since"
    with pytest.raises(PlanError, match=said):
        Turn("alice", 2, "session 4", folder, patience=0.0)
    first.close()
    first.close()
    third = Turn("alice", 2, "session 5 of dan", folder, patience=0.0)
    second.close()
    third.close()


def test_a_session_that_ends_lets_the_next_one_in_and_one_that_is_refused_holds_nothing(machine: Path) -> None:
    sf.shutdown()
    sf.init(["alice"], "inline")
    held = Turn("bob", 1, "session 1 of ann@here", machine / "home" / "sessions")
    sf.shutdown()
    with pytest.raises(PlanError, match=r"party 'bob' serves one session at a time .*ann@here"):
        sf.init(["alice", "bob"], "inline")
    held.close()
    sf.init(["alice", "bob"], "inline")
    sf.shutdown()


LIMITED = """
import os, sys
from fedray.party.house.process import settle
from fedray.types import PartyConfig
settled = settle(PartyConfig("alice", ("alice",), 0, threads=8))
print(settled.config.threads, settled.refusal, settled.printing_stays)
import numpy as np
try:
    np.ones(1 << 30, np.uint8)
except MemoryError:
    os.write(2, b"no memory")
"""


def test_memory_and_printing_are_limited_in_the_party_s_own_process(machine: Path) -> None:
    (machine / "alice" / "party.toml").write_text(
        'name = "alice"\nprinting = false\n[limits]\nmemory = "512 MB"\nthreads = 2\n'
    )
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (machine / "home" / "printed" / "alice.log").read_text() == "2 None True\nno memory"


def test_output_that_cannot_stay_here_is_a_refusal_and_not_shown(machine: Path) -> None:
    (machine / "alice" / "party.toml").write_text('name = "alice"\nprinting = false\n')
    (machine / "home").write_text("no folder")
    settled = settle(PartyConfig("alice", ("alice",), 0))
    assert not settled.printing_stays
    assert isinstance(settled.refusal, OSError)
