# SPDX-License-Identifier: Apache-2.0
"""Signals wait while Ray cannot be broken off, and then do what they would have done; a user's handlers stay."""

import signal
import threading
from collections.abc import Iterator

import pytest

from fedray.runtime import signals
from fedray.runtime.signals import guard, heard, held, unguard

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Puts back what the tests change."""
    before = {number: signal.getsignal(number) for number in ALL}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def now() -> list[object]:
    return [signal.getsignal(number) for number in ALL]


def test_ctrl_c_comes_when_the_block_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    before, done = now(), []
    with pytest.raises(KeyboardInterrupt), held("Ray starts"), held("within"):
        done += [signal.raise_signal(signal.SIGINT) for _ in range(3)]
    assert (now(), done) == (before, [None] * 3)  # the block went to its end
    assert capsys.readouterr().err == "interrupted; Ray starts, which takes a few seconds more\n"


def test_an_end_goes_on_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), held():
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err == ""


def test_an_interrupt_is_told_even_if_the_block_fails() -> None:
    before = now()

    def fail() -> None:
        with held("Ray starts"):
            signal.raise_signal(signal.SIGINT)
            raise ValueError("of the block")

    with pytest.raises(KeyboardInterrupt) as raised:
        fail()
    assert isinstance(raised.value.__context__, ValueError)
    assert now() == before


def test_a_users_own_handlers_get_what_came_and_stay_whatever_the_block_sets() -> None:
    came: list[int] = []
    for number in ALL:
        signal.signal(number, lambda number, _frame: came.append(number))
    before = now()
    with held("Ray starts"), held("within"):
        for number in ALL:
            signal.raise_signal(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does
        assert came == []
    assert now() == before
    assert sorted(came) == sorted(ALL)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with held("Ray starts"):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.raise_signal(signal.SIGHUP)


def test_what_hangs_can_be_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_PATIENCE_SECONDS", -1.0)
    reached: list[None] = []
    with pytest.raises(KeyboardInterrupt), held("Ray starts"):
        reached += [signal.raise_signal(signal.SIGINT)]
    assert reached == []


def test_other_threads_have_no_signals() -> None:
    before, seen = now(), []

    def work() -> None:
        guard()
        with held("Ray starts"):
            seen.append(now())
        unguard()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def as_ray_does(number: int) -> None:
    """Runs handlers as Ray does while it waits: it knows KeyboardInterrupt and makes 1 of any code."""
    try:
        signal.raise_signal(number)
    except SystemExit:
        raise SystemExit(1) from None
    except Exception as error:
        raise AssertionError("lost, and Ray fails later") from error


@pytest.mark.parametrize("raised", [SystemExit(5), SystemExit("text"), TimeoutError("mine"), KeyboardInterrupt("mine")])
def test_what_a_users_handler_raises_under_a_wait_is_what_comes(raised: BaseException) -> None:
    def handle(_number: int, _frame: object) -> None:
        raise raised

    signal.signal(signal.SIGTERM, handle)
    with pytest.raises(type(raised)) as found, heard(), heard():
        as_ray_does(signal.SIGTERM)
    assert found.value is raised
    assert signal.getsignal(signal.SIGTERM) is handle


def test_a_handler_that_raises_nothing_and_sets_another_is_let_be() -> None:
    before, came = now(), []

    def handle(_number: int, _frame: object) -> None:
        came.append("once")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    signal.signal(signal.SIGTERM, handle)
    with heard():
        as_ray_does(signal.SIGTERM)
        as_ray_does(signal.SIGTERM)
    assert came == ["once"]
    assert now() == [before[0], signal.SIG_IGN, before[2]]
    with pytest.raises(KeyboardInterrupt), heard():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_ends_in_order(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    guard()
    with pytest.raises(SystemExit) as raised:
        signal.raise_signal(number)
    assert raised.value.code == 128 + number
    with pytest.raises(SystemExit) as raised, heard():
        as_ray_does(number)
    assert raised.value.code == 128 + number
    with held():
        assert signal.getsignal(number) is not signal.SIG_DFL
    unguard()
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_users_own_way_of_ending_stays() -> None:
    mine = [signal.SIG_IGN, lambda _number, _frame: None]
    signal.signal(signal.SIGHUP, mine[0])
    signal.signal(signal.SIGTERM, mine[1])
    guard()
    assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)] == mine
    unguard()
    assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)] == mine
