# SPDX-License-Identifier: Apache-2.0
"""What takes long says what it waits for; what does not says nothing."""

import logging
import threading

import pytest

from fedray.runtime import lifetime, patience


class Heard(logging.Handler):
    """Lets a test wait for what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.enough = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        if len(self.texts) == 2:
            self.enough.set()


def test_a_long_wait_is_said_and_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AGAIN", 0.0)
    heard = Heard()
    logging.getLogger("fedray").addHandler(heard)
    try:
        with patience.said("waiting for bob", 0.0):
            assert heard.enough.wait(60)
    finally:
        logging.getLogger("fedray").removeHandler(heard)
    assert heard.texts[0] == "waiting for bob, for 0 s so far"


def test_a_short_one_is_not_and_an_error_goes_through(caplog: pytest.LogCaptureFixture) -> None:
    with patience.said("waiting for bob", 600.0):
        pass
    with pytest.raises(ValueError, match="inside"), patience.said("waiting for bob", 600.0):
        raise ValueError("inside")
    assert caplog.records == []
    assert not [thread for thread in threading.enumerate() if thread.name == "fedray-patience" and thread.join(10)]


def test_init_says_whose_processes_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()

    class Slow:
        parties = ("alice", "bob")

        def start(self) -> None:
            assert heard.enough.wait(60)

        def stop(self) -> None:
            """Nothing was begun."""

    monkeypatch.setattr(patience, "AGAIN", 0.0)
    monkeypatch.setattr(lifetime, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(lifetime, "make_current", lambda _: None)
    logging.getLogger("fedray").addHandler(heard)
    try:
        lifetime._begin(Slow())  # type: ignore[arg-type]
    finally:
        logging.getLogger("fedray").removeHandler(heard)
    assert heard.texts[0] == "init: waiting until the processes of alice, bob run, for 0 s so far"
