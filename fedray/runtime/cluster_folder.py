# SPDX-License-Identifier: Apache-2.0
"""The folder of a cluster's files, by which later programs see whether its own still lives. Knows no Ray.

A program that was killed can tidy up nothing: its folder stays, with the logs of a session, and for a minute some of
Ray's processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile

from fedray.runtime import environment

_OWNER = "owner"
_MARK = re.compile(rb"[0-9a-f]{16}")


class ClusterFolder:
    """A folder that nobody else may enter, held as long as this process lives or until it is removed.

    Args:
        mark: By what the processes of the cluster are found, see `fedray.runtime.environment.MARK`; 16 hexadecimal
            digits.
    """

    def __init__(self, mark: str) -> None:
        self.path = environment.private_folder()
        # A lock and not a process number, which another process gets one day, or another container has today.
        self._held = os.open(os.path.join(self.path, _OWNER), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Where files cannot be locked the mark is not written, and nobody ever takes the folder for one left behind.
        with contextlib.suppress(OSError):
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._held, mark.encode())  # after the lock: a file without a mark is not looked at

    def remove(self) -> None:
        """Removes it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)


def sweep() -> None:
    """Ends and removes what clusters of this user have left behind whose program was killed. Never raises."""
    with contextlib.suppress(OSError), os.scandir(environment.short_folder() or tempfile.gettempdir()) as above:
        for entry in above:
            if entry.name.startswith(environment.PREFIX):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        _remove_if_left(entry.path)


def _remove_if_left(path: str) -> None:
    # No link is followed: another user may not make anything in there, but a path is quickly changed above it.
    owner = os.open(os.path.join(path, _OWNER), os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while the program lives
        mark = os.read(owner, 64)
        if _MARK.fullmatch(mark):
            environment.end_processes(mark.decode(), peace=0)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(owner)
