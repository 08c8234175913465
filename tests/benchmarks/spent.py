# SPDX-License-Identifier: Apache-2.0
"""What a program and all that it started have computed so far. Imports nothing of fedray; Linux only."""

from __future__ import annotations

import os
from pathlib import Path

_PARENT, _TIMES = 1, slice(11, 15)  # in /proc/PID/stat, after the name: user, system, and both of ended children


def cpu_of_all() -> float:
    """Returns CPU seconds of this process, of those that descend from it, and of children that have ended."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)] = int(fields[_PARENT])
        ticks[int(folder.name)] = sum(map(int, fields[_TIMES]))
    ours = {os.getpid()}
    while found := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= found
    return sum(ticks[process] for process in ours) / os.sysconf("SC_CLK_TCK")
