# SPDX-License-Identifier: Apache-2.0
"""The table of failures in `deploy/README.md`: each is made to happen on several machines, and comes out as it says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import hosts
from cluster.failures import DEADLINE, SCENARIOS
from cluster.several import several

WHY_NOT = hosts.reason()
TEXT = (Path(__file__).parents[2] / "deploy" / "README.md").read_text()
RAY_S = re.compile(r"gcs|raylet|\.cc:|Traceback|[Aa]ctor|grpc|ObjectRef|RayError")
GOES_ON = "^done with all$"
LOST = r"^PartyLost: party 'alice' has ended or cannot be reached .*[sS]tart again with"

# How it ends, what is told first, after how many seconds at most, and when the program is over at the latest.
EXPECTED = {
    "party": (LOST, LOST, 5, 15),
    "cut 10": (GOES_ON, "has waited for alice", 9, 60),
    "cut 30": (GOES_ON, "has waited for alice", 9, 100),
    "frozen": (rf"missing: alice \(no message within {DEADLINE:g} s\)", "has waited for alice", 9, 95),
    "memory": (r"^PartyError: party 'alice': MemoryError in hog", "MemoryError", 20, 40),
    "disk": ("cannot write its ledger", "cannot write its ledger", 20, 30),
    "node": (LOST, LOST, 15, 30),
    "slow": (GOES_ON, GOES_ON, 60, 90),
    "head": ("Lost|Error|done", "", 90, 120),
}


def test_every_failure_is_in_the_table() -> None:
    assert EXPECTED.keys() == SCENARIOS.keys()


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, hosts.Host]]:
    """Returns charlie's machine, which has the head, and those of two parties."""
    with several("alice", "bob") as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_becomes_of_a_run(machines, name, capsys) -> None:
    became, said, after, over = EXPECTED[name]
    row = SCENARIOS[name](machines)
    with capsys.disabled():
        print(f"\n{row.what}: {row.said!r} after {row.after:.0f} s; {row.became!r} after {row.over:.0f} s ", end="")
    assert row.what in TEXT
    assert re.search(became, row.became), row.all
    assert re.search(said, row.said), row.all
    assert row.after <= after
    assert row.over <= over
    assert not RAY_S.search(row.all), row.all
