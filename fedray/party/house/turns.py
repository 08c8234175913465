# SPDX-License-Identifier: Apache-2.0
"""Turns: how many sessions a party serves side by side, and who holds it since when.

A session holds a locked file in a folder of the machine's user, and the kernel lets go of it when the process ends,
however it ends. Knows no session and no party beyond their names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from fedray.errors import PlanError
from fedray.party.keys.own_files import OTHERS_WRITE, open_own, real_folder
from fedray.types import PartyName

HOME = "FEDRAY_HOME"
"""Names the folder in which fedray keeps what it has to remember on a machine; `~/.fedray` without it."""

PATIENCE = 1.0
"""Seconds to wait for a session that is just ending."""

_POLL = 0.05
_MOST_NOTE = 400  # bytes of what is read of somebody else's session


def home(environment: Mapping[str, str] | None = None) -> Path:
    """Returns where fedray keeps what it has to remember on this machine.

    Args:
        environment: Variables of the process; None for those of this one.

    Raises:
        PlanError: FEDRAY_HOME is no absolute path.
    """
    around = os.environ if environment is None else environment
    named = Path(os.path.expanduser(around.get(HOME, "~/.fedray")))
    if not named.is_absolute():
        raise PlanError(f"{HOME} is {around.get(HOME)!r}; expected an absolute path, or one below a home (~)")
    return named


class Turn:
    """One of the sessions that a party serves, from here until `close` or the end of the process.

    Args:
        party: Whose.
        sessions: How many it serves side by side.
        holder: Who asks: the session and its driver, for the next one that finds it taken.
        folder: Where the locks are.
        patience: Seconds to wait for a session that is just ending.

    Raises:
        PlanError: All are taken; with who holds them since when.
    """

    def __init__(self, party: PartyName, sessions: int, holder: str, folder: Path, patience: float = PATIENCE) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = real_folder(folder)
        deadline = time.monotonic() + patience
        while True:
            holders = []
            for number in range(1, sessions + 1):
                # Of the party's name, which `check_name` lets lead nowhere.
                self._file = open_own(folder / f"{party}.{number}", os.O_RDWR | os.O_CREAT, OTHERS_WRITE)
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holders.append(os.pread(self._file, _MOST_NOTE, 0).decode(errors="replace"))
                    os.close(self._file)
                    continue
                now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, f"{holder} since {now}".encode()[:_MOST_NOTE], 0)
                return
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL)
        self._file = -1
        at_a_time = "one session at a time" if sessions == 1 else f"{sessions} sessions side by side"
        raise PlanError(
            f"party {party!r} serves {at_a_time} (sessions in its party.toml) and is held by {'; '.join(holders)}. "
            "Wait until sf.shutdown() has ended it there, or ask who holds it"
        )

    def close(self) -> None:
        """Lets another session have it."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1
