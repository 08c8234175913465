# SPDX-License-Identifier: Apache-2.0
"""What parties print is shown line by line, each with the party's name; and what a party's process logs."""

import logging
import subprocess
import sys

import pytest

from fedray.runtime.shown import ShownOutput, show_parties

HERE, THERE = "127.0.0.1", "10.0.0.2"


def test_each_line_has_the_party_s_name_and_none_is_merged_away(capsys: pytest.CaptureFixture[str]) -> None:
    output = ShownOutput({(HERE, 7): "alice", (HERE, 8): "bob", (THERE, 7): "carol"})
    output.show((HERE, 7), ["loss 0.5", "loss 0.5"], is_error=False)
    output.show((HERE, 8), ["loss 0.5"], is_error=False)
    output.show((THERE, 7), ["a warning"], is_error=True)
    output.show((HERE, 9), ["of no party"], is_error=False)
    output.show((HERE, 7), [], is_error=False)
    shown = capsys.readouterr()
    assert shown.out == "alice: loss 0.5\nalice: loss 0.5\nbob: loss 0.5\n"
    assert shown.err == "carol: a warning\n"


def test_whose_output_stays_is_said_once(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    taken = []
    show_parties(["alice", "bob", "carol"], {"bob": (HERE, 8)}, taken.append)
    assert [record.getMessage().partition(". ")[0] for record in caplog.records] == [
        "log_level: nothing is shown of what these parties print and log: alice, carol"
    ]
    taken[0](HERE, 8, ["here"], False)
    assert capsys.readouterr().out == "bob: here\n"
    caplog.clear()
    show_parties(["bob"], {"bob": (HERE, 8)}, taken.append)
    assert caplog.records == []


PROGRAM = """
import logging, sys
from fedray.party.logs import write_logs
write_logs(sys.argv[1])
logging.getLogger("mine").info("of the user's own")
logging.info("of the root")
logging.getLogger("fedray.party").info("of fedray")
logging.getLogger("absl").info("of a package")
logging.getLogger("absl").warning("of a package, in earnest")
logging.getLogger("mine").debug("in detail")
"""


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        ("WARNING", ["WARNING:absl:of a package, in earnest"]),
        (
            "INFO",
            [
                "INFO mine: of the user's own",
                "INFO root: of the root",
                "INFO fedray.party: of fedray",
                "WARNING absl: of a package, in earnest",
            ],
        ),
    ],
)
def test_what_a_party_s_process_logs(level: str, lines: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr.splitlines()) == ("", lines)


def test_a_level_below_warnings_belongs_to_the_party_s_process_alone() -> None:
    assert logging.getLogger().level == logging.WARNING
