# SPDX-License-Identifier: Apache-2.0
"""What parties print is shown line by line, each with the party's name; and what a party's process logs."""

import logging
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from fedray.errors import PartyLost
from fedray.runtime.shown import ShownOutput, follow

HERE, THERE = "127.0.0.1", "10.0.0.2"


class Parties:
    """Stands for the calls to parties: `mark` brings what they print, the mark last, by way of another thread."""

    def __init__(self, lines: dict[str, list[str]], dead: tuple[str, ...] = ()) -> None:
        self.lines, self.dead = lines, dead
        self.show: Any = None
        self.places: dict[str, int] = {}

    def call(self, party: str, method: str, label: str, text: str) -> str:
        assert (method, label) == ("mark", "output")
        if party not in self.dead:
            threading.Thread(target=self._come, args=(party, text)).start()
        return party

    def _come(self, party: str, text: str) -> None:
        place = self.places[party]
        self.show(HERE, place, [*self.lines[party], text], False)
        self.show(HERE, place, [text], True)

    def get(self, refs: list[str], seconds: float) -> None:
        del seconds
        for party in refs:
            if party in self.dead:
                raise PartyLost(f"party {party!r} has ended", party=party)


def test_each_line_has_the_party_s_name_and_none_is_merged_away(capsys: pytest.CaptureFixture[str]) -> None:
    output = ShownOutput({(HERE, 7): "alice", (HERE, 8): "bob", (THERE, 7): "carol"}, Parties({}))  # type: ignore[arg-type]
    output.show(HERE, 7, ["loss 0.5", "loss 0.5"], False)
    output.show(HERE, 8, ["loss 0.5"], False)
    output.show(THERE, 7, ["a warning"], True)
    output.show(HERE, 9, ["of no party"], False)
    output.show(HERE, 7, [], False)
    output.show("", 8, ["from somewhere"], True)
    output.show("", 7, ["from somewhere"], True)
    output.show("", 9, ["from somewhere"], True)
    shown = capsys.readouterr()
    assert shown.out == "alice: loss 0.5\nalice: loss 0.5\nbob: loss 0.5\n"
    assert shown.err == "carol: a warning\nbob: from somewhere\nalice or carol: from somewhere\n"


def test_what_was_printed_has_come_when_it_settles_and_marks_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    parties = Parties({"alice": ["one", "two"], "bob": ["three"]})
    output = ShownOutput({(HERE, 7): "alice", (HERE, 8): "bob"}, parties)  # type: ignore[arg-type]
    parties.show, parties.places = output.show, {"alice": 7, "bob": 8}
    output.settle()
    shown = capsys.readouterr()
    assert sorted(shown.out.splitlines()) == ["alice: one", "alice: two", "bob: three"]
    assert shown.err == ""


def test_a_party_that_has_ended_is_not_waited_for() -> None:
    parties = Parties({"alice": []}, dead=("bob",))
    output = ShownOutput({(HERE, 7): "alice", (HERE, 8): "bob"}, parties)  # type: ignore[arg-type]
    parties.show, parties.places = output.show, {"alice": 7}
    output.settle()


def test_whose_output_stays_is_said_once(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    taken: list[Any] = []
    follow(["alice", "bob", "carol"], {(HERE, 8): "bob"}, Parties({}), taken.append)()  # type: ignore[arg-type]
    assert [record.getMessage().partition(". ")[0] for record in caplog.records] == [
        "log_level: nothing is shown of what these parties print and log: alice, carol"
    ]
    taken[0](HERE, 8, ["here"], False)
    assert capsys.readouterr().out == "bob: here\n"
    caplog.clear()
    follow(["bob"], {(HERE, 8): "bob"}, Parties({}), taken.append)  # type: ignore[arg-type]
    assert caplog.records == []


def test_in_a_notebook_a_cell_ends_when_what_was_printed_in_it_has_come(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    callbacks: list[Any] = []
    events = SimpleNamespace(register=lambda _, fn: callbacks.append(fn), unregister=lambda _, fn: callbacks.remove(fn))
    shell = SimpleNamespace(events=events)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    parties = Parties({"bob": ["in the cell"]})

    def source(show: Any) -> None:
        parties.show = show

    parties.places = {"bob": 8}
    unfollow = follow(["bob"], {(HERE, 8): "bob"}, parties, source)  # type: ignore[arg-type]
    callbacks[0]("the cell's result")
    assert capsys.readouterr().out == "bob: in the cell\n"
    unfollow()
    unfollow()
    assert callbacks == []


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
