# SPDX-License-Identifier: Apache-2.0
"""The folder of a cluster's files, by which others see whether its program still lives. Knows no Ray.

Who is to end what a killed program leaves behind: `fedray/runtime/leftovers.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile

from fedray.runtime import environment
from fedray.runtime.leftovers import OWNER, remove_if_left, watch

_held: set[int] = set()  # the locks of this process's


class ClusterFolder:
    """A folder that nobody else may enter, held as long as this process lives or until it is removed.

    Args:
        mark: By what the processes of the cluster are found, see `fedray.runtime.leftovers.MARK`; 16 hexadecimal
            digits.
    """

    def __init__(self, mark: str) -> None:
        self.path = environment.private_folder()
        # A lock and not a process number, which another process gets one day, or another container has today.
        self._held = os.open(os.path.join(self.path, OWNER), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        _held.add(self._held)
        _at_fork()
        self._watch: subprocess.Popen[bytes] | None = None
        # Where files cannot be locked the mark is not written, and nobody ever takes the folder for one left behind.
        with contextlib.suppress(OSError):
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._held, mark.encode())  # after the lock: a file without a mark is not looked at
            self._watch = watch(self.path)

    def remove(self) -> None:
        """Removes it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        _held.discard(self._held)
        os.close(self._held)
        if self._watch is not None:  # last: till then it would finish what this process does not
            self._watch.kill()
            self._watch.wait()


def sweep() -> None:
    """Ends and removes what clusters of this user have left behind whose program was killed. Never raises.

    Their watches do so by themselves, unless they were killed as well.
    """
    with contextlib.suppress(OSError), os.scandir(environment.short_folder() or tempfile.gettempdir()) as above:
        for entry in above:
            if entry.name.startswith(environment.PREFIX):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        remove_if_left(entry.path, wait=False)


@functools.cache
def _at_fork() -> None:
    """Has forks of this process let go of its locks, which they would hold when it has ended."""
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    while _held:
        os.close(_held.pop())
