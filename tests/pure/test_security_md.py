# SPDX-License-Identifier: Apache-2.0
"""SECURITY.md and the tests' README held against what is there: every test that they name, every number stated."""

import ast
import importlib
import pickle
import re
from functools import cache
from pathlib import Path

import pytest

from fedray.party.code_source import parsed
from fedray.party.door.egress import Kind
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Guarded, Roster
from fedray.protocol.recovery.thresholds import propose

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
TABLES = (ROOT / "tests" / "README.md").read_text()
ADVERSARIES = (
    "a server without an ally",
    "a server with up to T allies",
    "the driver",
    "another user of the machine",
    "the network",
    "the other parties",
)
HEAD = "| promise | attack test | broken variant caught |"


def references(text: str) -> list[str]:
    """Returns the tests that a text names; one without a file, as `::test_it`, is of the file that was named last."""
    found, last = [], ""
    for path, name in re.findall(r"`(tests/[\w/]+\.py)?((?:::\w+)*)`", text):
        last = path or last
        if path or name:
            found.append(last + name)
    return found


def rows(text: str, head: str) -> list[list[str]]:
    """Returns the cells of a text's table that begins with a line; none where it has no such table."""
    table = text.partition(head)[2].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[1:]]


def against(adversary: str) -> list[list[str]]:
    """Returns the rows of an adversary's table: promise, attack tests, broken variant."""
    return rows(TEXT.partition(f"\n## Against {adversary}\n")[2].split("\n## ")[0], HEAD)


REFERENCES = sorted(set(references(TEXT) + references(TABLES)))
PROMISES = {row[0]: row for adversary in ADVERSARIES for row in against(adversary)}


@cache
def definitions(path: Path) -> set[str]:
    """Returns the names of a module's functions and classes, and of classes' methods as `Class::method`."""
    found = set()
    for node in parsed(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def is_there(reference: str) -> bool:
    path, _, name = reference.partition("::")
    if not name:
        return (ROOT / path).is_file()
    return name.split("::")[-1].startswith("test_") and (ROOT / path).is_file() and name in definitions(ROOT / path)


def test_every_named_test_is_there() -> None:
    assert [reference for reference in REFERENCES if not is_there(reference)] == []


def test_a_wrong_name_would_be_found() -> None:
    for wrong in ("test_no_pad_is_used_thrice", "drive"):  # none there, and one that is no test
        assert not is_there(f"tests/pure/test_pad_uniqueness.py::{wrong}")
    assert not is_there("tests/pure/test_that_is_not.py")
    assert "TestSetUp::test_a_swapped_public_key" in definitions(ROOT / "tests/pure/test_hostile.py")
    assert len(REFERENCES) > 300
    assert references("`tests/a.py::test_x`, `::test_y`") == ["tests/a.py::test_x", "tests/a.py::test_y"]


def test_there_are_promises_against_every_adversary() -> None:
    assert TEXT.count(HEAD) == len(ADVERSARIES)
    assert all(len(against(adversary)) >= 2 for adversary in ADVERSARIES)
    assert len(PROMISES) == sum(len(against(adversary)) for adversary in ADVERSARIES) >= 45


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_is_attacked_and_has_a_broken_variant(promise: str) -> None:
    said, attacked, broken = PROMISES[promise]
    assert said.startswith("**")
    for cell in (attacked, broken):
        # The first name in a cell says its file: no cell leans on the one before.
        assert re.match(r"[^`]*`tests/[\w/]+\.py::\w", cell), promise
    assert re.match(r"\w[^`]+: `", broken), f"{promise}: say in words what is broken"


def test_the_table_of_thresholds_is_what_is_proposed() -> None:
    found = rows(TEXT, "| n | T | t_sig | smallest sum | dropouts | neighbours k | t_share | dropouts, part B |")
    assert len(found) >= 10
    for row in found:
        n, *stated = map(int, row)
        roster = Roster.of({f"{i}": i.to_bytes(32, "big") for i in range(n)})
        one = Config.propose("masking", roster, ["server"], Encoding())
        other = propose(roster, ["server"], Encoding())
        expected = [one.colluders, one.t_sig, one.least_members, one.dropouts]
        assert stated == [*expected, other.degree, other.t_share, other.dropouts]


def test_the_limits_are_those_of_the_code() -> None:
    found = rows(TEXT, "| what a party keeps to | by default | where |")
    assert len(found) >= 8
    for _, stated, where in found:
        path, _, key = where.strip("`").partition(":")
        module, name = path.rsplit(".", 1)
        if module.endswith(".Policy"):
            policy = importlib.import_module("fedray.protocol.policy").Policy()
            value = getattr(policy, name)
        else:
            value = getattr(importlib.import_module(module), name)
        assert int(stated) == (value[key] if key else value)


def test_every_point_of_the_specification_has_its_tests() -> None:
    """All rows of both tables name a test; every hostile case and every mistake of the specification has its row."""
    for head, least in (("| section 12 | tests |", 22), ("| section 14 | the broken variant that is caught |", 11)):
        found = TABLES.split(head)[1].split("\n\n")[0].strip().splitlines()[1:]
        assert len(found) >= least
        assert all(re.search(r"`tests/[\w/]+\.py::", row) for row in found)
    points = re.findall(r"^\| (\d+) ", TABLES, flags=re.M)
    assert set(map(int, points)) == {1, 2, 3, 4, 5, 6, 7, 8, 9, 11}


def test_every_kind_of_egress_is_spoken_of() -> None:
    seen = TEXT.split("## What each of them sees")[1].split("\n## ")[0]
    assert {str(kind) for kind in Kind} <= set(re.findall(r"`(\w+)`", seen))


def test_headings_that_are_linked_exist() -> None:
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", TEXT, flags=re.M)
    }
    links = re.findall(r"\]\(#([\w-]+)\)", TEXT)
    assert links
    assert set(links) <= headings


def test_it_names_no_machine_and_no_person() -> None:
    assert not re.search(r"/(tmp|work|home|root)/", TEXT)
    assert "@" not in TEXT


def test_it_is_short_and_its_lines_fit_the_page() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 400
    assert max(len(line) for line in lines if not line.startswith("|")) <= 160


class Unguarded:
    def __init__(self) -> None:
        self.secret = b"key"


def test_a_holder_without_the_guard_would_be_pickled() -> None:
    class Holder(Guarded):
        secret = b"key"

    assert pickle.loads(pickle.dumps(Unguarded())).secret == b"key"
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(Holder())
