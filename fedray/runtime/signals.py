# SPDX-License-Identifier: Apache-2.0
"""Signals: which ones wait while something goes on that must not be broken off, and which end a program in order.

Knows no Ray. Python lets only the main thread set handlers, and runs them there: in other threads nothing here does
anything, and nothing there is interrupted.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGHUP)  # what a service manager sends, and a terminal that is closed
_PATIENCE_SECONDS = 60.0  # after which a signal breaks off even what it should not: it may have hung


@contextlib.contextmanager
def held(what: str | None = None) -> Iterator[None]:
    """Lets signals wait until the block is done; then they do what they would have done, KeyboardInterrupt above all.

    Ray broken off while it connects cannot be started again in that process, and kills it when one tries.

    Args:
        what: What goes on, for whoever presses Ctrl-C and sees nothing happen, e.g. `"Ray starts"`. None where that is
            an end, which who presses it waits for anyway.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or isinstance(signal.getsignal(signal.SIGINT), _Waiting):
        yield  # nothing comes here, or they wait already
        return
    waiting = _Waiting(what)
    try:
        waiting.begin()
        yield
    finally:
        waiting.end()


class _Waiting:
    """The handler of all signals that wait, and what was there before."""

    def __init__(self, what: str | None) -> None:
        self._what = what
        self._before: dict[int, Any] = {}
        self._came: dict[int, float] = {}

    def begin(self) -> None:
        # Ctrl-C first: it raises, and between two of these lines it would leave the others taken.
        for number in (signal.SIGINT, *_ENDING):
            before = signal.getsignal(number)
            # One that is ignored stays so. None is a handler in C, which Python cannot put back.
            if before not in (signal.SIG_IGN, None):
                self._before[number] = before
                signal.signal(number, self)

    def end(self) -> None:
        for number in (*_ENDING, signal.SIGINT):
            if number in self._before:
                # Also where nothing has come: Ray puts handlers of its own in place, some of them in C.
                signal.signal(number, self._before[number])
        for came in sorted(self._came, key=lambda came: came == signal.SIGINT):
            signal.raise_signal(came)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        before = self._before[number]
        if now - self._came.setdefault(number, now) > _PATIENCE_SECONDS and callable(before):
            before(number, frame)
        elif now == self._came[number] and number == signal.SIGINT and self._what is not None:
            # It may come in the middle of another `print`, which refuses a second one.
            with contextlib.suppress(Exception):
                print(f"interrupted; {self._what}, which takes a few seconds more", file=sys.stderr, flush=True)


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Has what a user's handler raises in the block come out of it, as it was raised.

    Ray, while it waits, runs handlers in C: of any SystemExit it makes one with code 1, and any error but these and
    KeyboardInterrupt it loses, to fail by it at its next step. So it is handed a KeyboardInterrupt in their place.
    """
    hearing = _Hearing()
    if threading.current_thread() is threading.main_thread():
        hearing.begin()
    try:
        yield
    except KeyboardInterrupt:
        if hearing.raised is None:
            raise
        raise hearing.raised from None
    finally:
        hearing.end()


class _Hearing:
    """The handler in place of a user's own ones, which it calls."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self._before: dict[int, Any] = {}

    def begin(self) -> None:
        for number in _USUAL:
            before = signal.getsignal(number)
            # A thousandth of a millisecond where there is none, as in nearly every program.
            if callable(before) and before is not signal.default_int_handler and not isinstance(before, _OURS):
                self._before[number] = before
                signal.signal(number, self)

    def end(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) is self:  # else the handler has set another one
                signal.signal(number, before)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[number](number, frame)
        except BaseException as error:
            self.raised = error
            raise KeyboardInterrupt from None


_OURS = (_Waiting, _Hearing)
_USUAL = (*_ENDING, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


_guarded = threading.Event()


def guard() -> None:
    """Has SIGTERM and SIGHUP end the program by `SystemExit`, so that it can tidy up.

    Where its user has a handler or ignores them, that stays.
    """
    _guarded.set()
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)


def unguard() -> None:
    """Takes that back."""
    _guarded.clear()
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (what `signal` calls it with)
    if _guarded.is_set():
        raise SystemExit(128 + number)  # as shells count a program that ended by a signal
    # A thread has ended the session, and could not take this handler back.
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
