# SPDX-License-Identifier: Apache-2.0
"""What a party's process prints and logs: to others' eyes only through the party's door.

A cluster collects it from all processes and shows it to the driver, and to whoever else may ask. Knows the process's
two output streams, as Python and as the system see them. Does not know what may leave.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

_STREAMS = {"stdout": 1, "stderr": 2}

_SECONDS = 1.0
"""How long whoever flushes waits until what it printed has passed the door."""

Let: TypeAlias = Callable[[str, int], bool]
"""(stream, bytes) -> whether they may leave; writes them down."""

_Item: TypeAlias = tuple[str, bytes] | threading.Event


class Output:
    """A process's output, from `take` on.

    What Python prints passes the door and then goes where it went before. What other code prints, such as a library in
    C or a process that was started here, goes there by itself: it is noted once it is there. Where that cannot be told,
    and where nothing may leave, it goes nowhere.

    Args:
        let: Asked before Python's output leaves, and told of the rest.
        silent: Whether nothing may leave.

    Attributes:
        silent: The same.
    """

    def __init__(self, let: Let, *, silent: bool) -> None:
        self._let, self.silent = let, silent
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._files: dict[str, int] = {}
        self._written: dict[str, int] = {}  # bytes in each file that were noted, or there before

    def take(self) -> None:
        """Puts itself in the place of the process's output streams, for good."""
        for name, number in _STREAMS.items():
            getattr(sys, name).flush()
            self._files[name] = own = os.dup(number)
            found = os.fstat(own)
            # Only of a file can it be told how much others have written; a pipe keeps no count.
            if self.silent or not stat.S_ISREG(found.st_mode):
                _shut(number)
            else:
                self._written[name] = found.st_size
            setattr(sys, name, _Stream(name, self._queue, self.settle))
        os.register_at_fork(after_in_child=_plain)
        # A thread of its own: a finalizer may print at any moment, also while this thread holds the ledger's lock.
        threading.Thread(target=self._work, name="fedray-output", daemon=True).start()

    def settle(self) -> None:
        """Waits until what was printed has passed the door, for a second at most."""
        passed = threading.Event()
        self._queue.put(passed)
        passed.wait(_SECONDS)

    def _work(self) -> None:
        while True:
            items = [self._queue.get()]
            while True:  # all that has gathered, so that a line has one entry and not one for each part
                try:
                    items.append(self._queue.get_nowait())
                except Empty:
                    break
            for name in _STREAMS:
                self._pass(name, b"".join(item[1] for item in items if isinstance(item, tuple) and item[0] == name))
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()

    def _pass(self, name: str, content: bytes) -> None:
        if content and self._let(name, len(content)):
            self._write(name, content)
        if name in self._written:
            others = os.fstat(self._files[name]).st_size - self._written[name]
            if others > 0:
                self._written[name] += others
                if not self._let(f"{name} of other code", others):
                    # As when the ledger is closed: it was there before anybody could be asked, and is the last.
                    _shut(_STREAMS[name])

    def _write(self, name: str, content: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the thread that others wait for
            while content:
                count = os.write(self._files[name], content)
                content = content[count:]
                if name in self._written:
                    self._written[name] += count


def _shut(number: int) -> None:
    """Lets whatever is written to one of the system's streams go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _plain() -> None:
    """Gives a process that was forked off streams without a thread, which it has not inherited."""
    for name, number in _STREAMS.items():
        setattr(sys, name, open(number, "w", closefd=False, buffering=1, errors="backslashreplace"))  # noqa: SIM115


class _Stream(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`."""

    def __init__(self, name: str, queue: SimpleQueue[_Item], settle: Callable[[], None]) -> None:
        self.name = f"<{name}>"
        self._stream, self._queue, self._settle = name, queue, settle
        self.buffer = _Bytes(name, queue)  # for code that prints bytes

    @property
    def encoding(self) -> str:  # type: ignore[override] # the base class has an attribute
        """What text becomes."""
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        self._queue.put((self._stream, str(text).encode("utf-8", "backslashreplace")))
        return len(text)

    def flush(self) -> None:
        self._settle()

    def close(self) -> None:
        """Does nothing: the streams of a process end with it, and nobody is there to wait for after a fork."""

    def fileno(self) -> int:
        # Of the system's stream, which is taken care of as well: what is started here may inherit it.
        return _STREAMS[self._stream]


class _Bytes(io.RawIOBase):
    """Stands for the buffer below one of them."""

    def __init__(self, name: str, queue: SimpleQueue[_Item]) -> None:
        self._stream, self._queue = name, queue

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        taken = bytes(content)
        self._queue.put((self._stream, taken))
        return len(taken)
