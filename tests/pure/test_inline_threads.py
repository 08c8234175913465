# SPDX-License-Identifier: Apache-2.0
"""Parties in one process: threads start when they are needed, and a start that fails leaves none behind."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

import fedray as sf
from fedray.errors import PlanError
from fedray.runtime.inline import _Lane

MANY = [f"p{number}" for number in range(60)]


def ours() -> list[str]:
    """Returns the names of the parties' threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.partition("-")[0] in MANY]


def left() -> list[str]:
    """Returns those that do not end within half a minute."""
    deadline = time.monotonic() + 30
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    return ours()


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    """Waits for the threads of one test before the next one counts its own."""
    yield
    assert left() == []


def test_each_of_many_parties_takes_one_thread() -> None:
    sf.init(MANY, "inline", seed=1)
    try:
        assert sf.reveal([sf.PYU(name)(abs)(-1) for name in MANY]) == [1] * len(MANY)
        assert sorted(ours()) == sorted(f"{name}-command" for name in MANY)
    finally:
        sf.shutdown()
    assert left() == []


def test_where_no_more_threads_can_be_started_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if len(ours()) >= 40:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(PlanError, match="take fewer parties"):
            sf.init(MANY, "inline", seed=1)
        assert left() == []
    sf.init(MANY, "inline", seed=1)
    assert sf.reveal(sf.PYU("p59")(abs)(-1)) == 1
    sf.shutdown()


def test_jobs_that_block_get_a_thread_each_up_to_the_width_and_free_ones_are_used_again() -> None:
    lane, gate = _Lane("p0-message", 3), threading.Event()
    for _ in range(5):
        done: Future[bool] = Future()
        lane.put(lambda done=done: done.set_result(True))
        assert done.result(30)
    began = [threading.Event() for _ in range(4)]

    def block(mine: threading.Event) -> None:
        mine.set()
        gate.wait(30)

    for event in began[:3]:
        lane.put(lambda event=event: block(event))
    assert all(event.wait(30) for event in began[:3])
    assert ours() == ["p0-message"] * 3
    lane.put(lambda: block(began[3]))
    assert ours() == ["p0-message"] * 3
    assert not began[3].is_set()
    gate.set()
    assert began[3].wait(30)
    lane.close()
    lane.join(time.monotonic() + 30)
