# SPDX-License-Identifier: Apache-2.0
"""Where a command writes: a pipe that nobody reads any more, and files that are to be written at the end."""

from __future__ import annotations

import os
import select
import sys
import tempfile
from pathlib import Path

from fedray.errors import PlanError

PIPE_CODE = 141
"""Exit code where nobody reads any more: what shells give a program that SIGPIPE ended."""


def finish() -> None:
    """Writes out what is still held back for standard output.

    Raises:
        OSError: It cannot be written; `BrokenPipeError` where nobody reads it any more.
    """
    # Python does it at its end, where it can only complain.
    if sys.stdout is not None:
        sys.stdout.flush()


def unread() -> bool:
    """Returns whether nobody reads standard output any more."""
    # Asked of the pipe: what was held back, a failed attempt to write it out may have dropped.
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in asked.poll(0))


def drop() -> None:
    """Drops what is still held back and cannot be written: Python would try again at its end, and complain."""
    try:
        finish()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def check_writable(option: str, path: Path) -> None:
    """Checks that a file can be written, before anybody trains for minutes and then finds out.

    Args:
        option: Which option names it.
        path: The file, which need not be there.

    Raises:
        PlanError: It cannot.
    """
    if not path.parent.is_dir():
        raise PlanError(f"{option}: there is no folder {str(path.parent)!r}")
    if path.is_dir():
        raise PlanError(f"{option}: {str(path)!r} is a folder; name a file in it")
    if path.exists() and not os.access(path, os.W_OK):
        raise PlanError(f"{option}: {str(path)!r} is there and may not be written; name another file")
    try:
        # Tried and not asked for: a file system that is mounted to be read only says nothing of that.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise PlanError(
            f"{option}: nothing can be written in the folder {str(path.parent)!r} ({error.strerror}); name another one"
        ) from None
