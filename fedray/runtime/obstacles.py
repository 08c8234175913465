# SPDX-License-Identifier: Apache-2.0
"""What keeps a cluster from starting on this machine, and will the next time, too. Knows no Ray.

Ray finds out after half a minute, if at all, and says something else.
"""

from __future__ import annotations

import os
import sys

from fedray.errors import PlanError

MOST_PATH = 43
"""Characters of Ray's folder: the paths of its sockets, 64 longer, may have 107."""

_STREAMS = {1: ("standard output", "__stdout__"), 2: ("standard error", "__stderr__")}


def check_process() -> None:
    """Checks what every process that this one starts inherits: its working directory and where it writes.

    Raises:
        PlanError: It has been deleted, or one is closed.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise PlanError(
            "the working directory of this program has been deleted, and no process can be started in it; "
            "os.chdir(...) to another one, or start the program elsewhere"
        ) from None
    for number, (name, stream) in _STREAMS.items():
        # Closed before Python began, it is None, and by now another file may have its number: that would get whatever
        # is written to the stream.
        if getattr(sys, stream) is None or not _open(number):
            raise PlanError(
                f"the {name} of this program is closed, and Ray's processes write to it; start it with "
                f"{number}>/dev/null in place of {number}>&-"
            )


def _open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def check_path(folder: str) -> None:
    """Checks that Ray's sockets can lie in a folder.

    Args:
        folder: Ray's own, in which it makes one for each session.

    Raises:
        PlanError: Its path is too long.
    """
    over = len(os.fsencode(folder)) - MOST_PATH
    if over > 0:
        name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        raise PlanError(
            f"{folder} is too long by {over} characters for the sockets that Ray keeps in it; set {name} to a folder "
            "with a shorter path"
        )


def lasting(error: BaseException) -> bool:
    """Returns whether what has kept Ray from starting will the next time, too.

    Args:
        error: What was raised where Ray was started.
    """
    # A machine that is too busy shows as a connection that fails, or a time that is over.
    passing = isinstance(error, ConnectionError | TimeoutError | BlockingIOError)
    return isinstance(error, OSError | ValueError | TypeError | AttributeError | ImportError) and not passing


_begun_by = 0


def note_begun() -> None:
    """Notes that this process begins Ray."""
    global _begun_by
    _begun_by = os.getpid()


def check_no_fork(running: bool) -> None:
    """Checks that Ray, if it runs here, was begun by this process; a fork can neither use it nor begin another.

    Args:
        running: Whether it says that it runs.

    Raises:
        PlanError: This is a fork.
    """
    if running and _begun_by not in (0, os.getpid()):
        raise PlanError(
            f"process {_begun_by} has begun Ray, and this one is its fork, in which Ray cannot run; start processes by "
            "multiprocessing's 'spawn' and call sf.init(...) in them, or use address='inline'"
        )
