# SPDX-License-Identifier: Apache-2.0
"""An exception in a party fits on a screen, and what travels of it is bounded."""

import pickle

import numpy as np
import pytest

import fedray as sf
from fedray.errors import DataError, FedRayError, PartyError
from fedray.party.failures import to_error, to_failure
from fedray.party.tracebacks import FULL, sentence
from fedray.types import Failure

LIBRARY = f'  File "{np.__file__}", line 7, in call\n'
MINE = '  File "/home/me/train.py", line 3, in build\n'


def deep() -> None:
    np.linalg.inv(np.zeros((2, 2)))


def failed(text: bool = True) -> Failure:
    with pytest.raises(np.linalg.LinAlgError) as raised:
        deep()
    return to_failure(raised.value, "alice", "deep", text=text)


@pytest.mark.parametrize("text", [True, False])
def test_the_users_own_frames_are_shown_and_the_others_on_demand(monkeypatch: pytest.MonkeyPatch, text: bool) -> None:
    failure = pickle.loads(pickle.dumps(failed(text)))
    shown = str(to_error(failure))
    assert "in deep" in shown or " deep\n" in shown
    assert "_linalg.py" not in shown
    assert ("np.linalg.inv(np.zeros((2, 2)))" in shown) is text
    assert shown.endswith(f"{FULL}=full shows them)")
    monkeypatch.setenv(FULL, "full")
    assert "_linalg.py" in str(to_error(failure))
    assert FULL not in str(to_error(failure))


def test_what_is_passed_on_is_shown_once() -> None:
    def ask() -> None:
        from fedray.runtime.gather import opened

        opened(failed())

    with pytest.raises(PartyError) as raised:
        ask()
    again = to_failure(raised.value, "bob", "ask", text=True)
    assert str(to_error(again)) == str(raised.value)


def test_a_text_without_end_does_not_travel() -> None:
    for error in (ValueError("x" * 5_000_000), DataError("x\n" * 500_000)):
        try:
            raise error
        except Exception as caught:
            failure = to_failure(caught, "alice", "work", text=True)
        assert len(pickle.dumps(failure)) < 100_000
        assert len(str(to_error(failure))) < 20_000


def test_a_long_text_keeps_its_beginning_its_end_and_the_users_own_lines() -> None:
    listed = "Graph execution error:\n\nDetected at node x defined at:\n" + LIBRARY * 40 + MINE + LIBRARY * 40
    assert sentence(f"{listed}shapes (2, 3) and (4,)\n").splitlines() == [
        "Graph execution error:",
        "Detected at node x defined at:",
        MINE.rstrip(),
        "shapes (2, 3) and (4,)",
    ]
    lines = sentence("\n".join(map(str, range(100)))).splitlines()
    assert lines[:4] + lines[-1:] == ["0", "1", "2", "3", "99"]
    assert lines[4] == "... 88 lines ..."
    assert sentence("two\n\nlines") == "two\n\nlines"


def test_the_drivers_own_frames_end_at_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def frames() -> list[str]:
        with pytest.raises(FedRayError) as raised:
            sf.reveal(sf.PYU("alice")(deep)())
        return [entry.name for entry in raised.traceback]

    sf.init(["alice"], "inline")
    assert frames()[-2:] == ["reveal", "get"]
    monkeypatch.setenv(FULL, "full")
    assert len(frames()) > 4
    sf.shutdown()


def test_colours_of_a_terminal_are_no_part_of_a_sentence() -> None:
    assert (
        sentence("\x1b[1mThe structure does not match\x1b[0m\nof \x1b[1;31mx\x1b[m")
        == "The structure does not match\nof x"
    )
