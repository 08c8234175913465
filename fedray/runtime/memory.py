# SPDX-License-Identifier: Apache-2.0
"""Whether the system has ended processes for want of memory: it tells nobody, but counts. Knows no Ray."""

from __future__ import annotations

from pathlib import Path

_SYSTEM = Path("/")

_BY_RAY = ("running low on memory", "OutOfMemory", "out-of-memory")
"""How Ray says that it has done so itself, which it does on clusters that others have started."""


class MemoryWatch:
    """Looks whether the count has grown since it was made.

    Args:
        root: Where the system's files are.
    """

    def __init__(self, root: Path = _SYSTEM) -> None:
        self._root = root
        self._before = _ended(root)

    def since(self) -> int:
        """Returns how many processes the system has ended for want of memory since then."""
        return _ended(self._root) - self._before


def blamed(text: str, since: int) -> str:
    """Returns what is known of memory where a party's process is lost; empty for nothing.

    Args:
        text: What Ray says.
        since: How many processes this machine's system has ended for want of memory since the session began.
    """
    remedy = "give it fewer rows or smaller batches, add memory, or set memory under [limits] in its party.toml"
    if any(said in text for said in _BY_RAY):
        return f"Ray has ended it for want of memory on its machine; {remedy}"
    if since > 0:
        return (
            f"since the session began this machine's system has ended {since} process{'es' if since > 1 else ''} for "
            f"want of memory, most likely this one; {remedy}"
        )
    return ""


def _ended(root: Path) -> int:
    # That of this process's own group, where there is one: the machine's counts what other containers do, too.
    for file in (*_of_group(root), root / "proc/vmstat"):
        try:
            lines = [line.split() for line in file.read_text().splitlines()]
            return next(int(words[1]) for words in lines if words[0] == "oom_kill")
        except (OSError, ValueError, IndexError, StopIteration):
            continue
    return 0


def _of_group(root: Path) -> list[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            found.append(root / "sys/fs/cgroup" / path.lstrip("/") / "memory.events")
        elif "memory" in kinds.split(","):
            found.insert(0, root / "sys/fs/cgroup/memory" / path.lstrip("/") / "memory.oom_control")
    return found
