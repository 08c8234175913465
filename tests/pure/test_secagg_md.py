# SPDX-License-Identifier: Apache-2.0
"""The specification held against the code: its tables, its statements' names, the sections that the code cites."""

import math
import re
from fractions import Fraction
from pathlib import Path

import pytest

import fedray
from fedray.protocol.crypto.graph import quorum, sparse_graph

PACKAGE = Path(fedray.__file__).parent
TEXT = (PACKAGE / "protocol" / "SECAGG.md").read_text()
SOURCES = {path: path.read_text() for path in PACKAGE.rglob("*.py")}


def table(head: str) -> list[list[str]]:
    """Returns the cells of the table that begins with a line."""
    lines = TEXT.split(head)[1].split("\n\n")[0].strip().splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_quorums() -> None:
    rows = table("| n | T | t_sig | dropouts |")
    assert len(rows) >= 9
    for n, colluders, signers, dropouts in rows:
        for stated in zip(*(cell.split(" / ") for cell in (colluders, signers, dropouts)), strict=True):
            most, least, left = map(int, stated)
            assert quorum(int(n), most) == least
            assert int(n) - least == left


HEAD = next(line for line in TEXT.splitlines() if line.startswith("| n | g="))
CASES = [re.findall(r"([gd])=([\d./]+)", cell) for cell in HEAD.strip("|").split("|")[1:]]


@pytest.mark.parametrize("row", table(HEAD), ids=lambda row: row[0])
def test_the_table_of_degrees_and_thresholds(row: list[str]) -> None:
    n = int(row[0])
    for case, cell in zip(CASES, row[1:], strict=True):
        shares = dict(case)
        colluders, dropouts = (math.floor(n * Fraction(shares[name].replace(".", "0.", 1))) for name in "gd")
        for chosen, stated in zip((False, True), re.findall(r"\((\d+),(\d+)\)", cell), strict=True):
            graph = sparse_graph(n, colluders, dropouts, chosen=chosen)
            assert (graph.degree, graph.share_threshold) == tuple(map(int, stated)), (n, shares, chosen)


def test_every_statement_that_is_named_is_made() -> None:
    named = set(re.findall(r'enc\("([\w-]+)"', TEXT)) - {"hello"}
    code = "\n".join(SOURCES.values())
    made = set(re.findall(r'\b(?:enc|digest)\(\s*"([\w-]+)"', code)) | {"masked-a"}
    assert '_MASKED_PURPOSE = "masked-a"' in code
    assert len(named) > 15
    assert named - made == set()


def test_every_section_that_the_code_cites_is_there() -> None:
    headings = set(re.findall(r"^## (\d+)\.", TEXT, flags=re.M))
    steps = set(re.findall(r"^(?:\*\*)?([SVBR]\d)[. ]", TEXT, flags=re.M))
    assert {"S1", "S4", "V1", "V4", "B1", "B3", "R0", "R4"} <= steps
    for path, source in SOURCES.items():
        for cited in re.findall(r"\bsections? ((?:\d+(?:, | and )?)+)", source):
            assert set(re.findall(r"\d+", cited)) <= headings, path


def test_it_speaks_of_nothing_outside_the_repository() -> None:
    assert not re.search(r"\.\./|/(tmp|work|home|root)/|DESIGN|RUNTIME|FEATURES", TEXT)
    for path in re.findall(r"`((?:fedray|tests)/[\w/.-]+)`", TEXT):
        assert (PACKAGE.parent / path).exists(), path
