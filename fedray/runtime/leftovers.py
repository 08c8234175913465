# SPDX-License-Identifier: Apache-2.0
"""What a program's cluster leaves behind: how it is found and ended, and the process that waits to do so.

A program that was killed can tidy up nothing. So each cluster has a watch: this file, run by itself, which waits until
its program has ended, in whatever way. It imports nothing of ours and little of Python's: it lives as long as a session
does, and takes some ten megabytes. Knows no Ray.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time

MARK = "FEDRAY_CLUSTER"
"""Variable that every process of a cluster started here inherits; its value is the cluster's own."""

OWNER = "owner"
"""Name of the file in a cluster's folder that its program holds locked, and that contains the mark."""

_TITLE = b"ray::"  # how the names begin that Ray gives to processes
_MARK = re.compile(rb"[0-9a-f]{16}")
_PEACE_SECONDS = 2.0  # for a cluster's processes to end by themselves
_GIVE_UP_SECONDS = 10.0  # for all of them to be gone, by force if need be


def processes(mark: str, folder: str) -> list[int]:
    """Returns the processes of a cluster; empty where there is no /proc.

    Args:
        mark: What they inherited.
        folder: Where their files are.
    """
    wanted, below = f"{MARK}={mark}".encode(), os.path.realpath(folder) + os.sep
    # Every process of a cluster inherits the mark, also those that a crashed parent has left behind, so this finds
    # what no list of started processes would.
    found = []
    for entry in os.scandir("/proc") if os.path.isdir("/proc") else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        if wanted in _read(f"{entry.path}/environ").split(b"\0") or _has_lost_it(entry.path, below):
            found.append(int(entry.name))
    return found


def end_processes(mark: str, folder: str, peace: float | None = None) -> None:
    """Waits until every process of a cluster has ended, and ends those that do not by themselves.

    Args:
        mark: What they inherited.
        folder: Where their files are.
        peace: Seconds for them to do so; None for two.
    """
    patience = _PEACE_SECONDS if peace is None else peace
    began = time.monotonic()
    while left := processes(mark, folder):
        waited = time.monotonic() - began
        if waited > _GIVE_UP_SECONDS:
            return
        # First in peace, so that they can write what they have. One left behind would keep its ports and its memory.
        if waited >= patience:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def remove_if_left(path: str, *, wait: bool) -> None:
    """Ends and removes a cluster whose program has ended.

    Args:
        path: The cluster's folder.
        wait: Whether to wait until it has.

    Raises:
        OSError: It has not, or the folder is none of a cluster's.
    """
    # No link is followed: another user may not make anything in there, but a path is quickly changed above it.
    owner = os.open(os.path.join(path, OWNER), os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))  # not to be had while the program lives
        mark = os.read(owner, 64)
        if _MARK.fullmatch(mark):
            # Where one waited they may be in the middle of something; otherwise they have had their time.
            end_processes(mark.decode(), path, peace=None if wait else 0)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(owner)


def watch(path: str) -> subprocess.Popen[bytes]:
    """Starts the process that removes a cluster's folder, and ends its processes, when this one has ended.

    Args:
        path: The folder.
    """
    return subprocess.Popen(  # noqa: S603 (this file, with a list of arguments and no shell)
        # By its own path and without the site's packages: as a module it would import the whole of fedray first.
        [sys.executable, "-I", "-S", __file__, path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # what ends this process's group, or closes its terminal, is what the watch is for
    )


def _has_lost_it(process: str, below: str) -> bool:
    """Returns whether a process may have had a mark, and has files open below a folder.

    Ray writes names of its own over the command lines of processes, and over the variables that follow: by chance the
    mark is among them.
    """
    if not _read(f"{process}/cmdline").startswith(_TITLE):
        return False
    with contextlib.suppress(OSError), os.scandir(f"{process}/fd") as files:  # it may end meanwhile
        for file in files:
            with contextlib.suppress(OSError):
                if os.readlink(file.path).startswith(below):
                    return True
    return False


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # it has ended, or is another user's
        return b""


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # nothing is left
        remove_if_left(sys.argv[1], wait=True)
