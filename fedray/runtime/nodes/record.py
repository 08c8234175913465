# SPDX-License-Identifier: Apache-2.0
"""Record: what is written down of a node that this user has started on this machine.

By it `status` and `stop` find the node, and a driver its own cluster with the cluster's token and certificates.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedray.errors import PlanError
from fedray.party.house.turns import home
from fedray.party.keys.own_files import OTHERS_WRITE, read_own, real_folder
from fedray.runtime.nodes.launch import Security

_FILE = "node.json"


@dataclass(frozen=True, slots=True)
class Record:
    """One node.

    Attributes:
        name: The party's name, or `"head"`.
        address: Where its cluster is called, `"host:port"`.
        ip: The node's own address.
        head: Whether it is the cluster's head.
        pid: Its first process.
        began: When that process began, as the kernel counts; no other process of that number has the same.
        mark: By what all its processes are found.
        since: When it was started, for people.
        token: Its cluster's token file; empty for none.
        tls: Folder of its certificates; empty for none.
        command: The command line that starts it.
    """

    name: str
    address: str
    ip: str
    head: bool
    pid: int
    began: int
    mark: str
    since: str
    token: str
    tls: str
    command: str = ""

    @property
    def runs(self) -> bool:
        """Whether its first process is there."""
        return self.began > 0 and began(self.pid) == self.began

    @property
    def security(self) -> Security:
        """What keeps strangers out of its cluster."""
        return Security(Path(self.token) if self.token else None, Path(self.tls) if self.tls else None)

    def write(self) -> None:
        """Writes it down, whole or not at all."""
        path = folder_of(self.name) / _FILE
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(asdict(self), indent=2) + "\n")
        beside.chmod(0o600)
        beside.replace(path)

    def erase(self) -> None:
        """Forgets it."""
        (folder_of(self.name) / _FILE).unlink(missing_ok=True)


def folder_of(name: str) -> Path:
    """Returns the folder of a node of this user."""
    return home() / "nodes" / name


def records() -> list[Record]:
    """Returns what is written down on this machine, of nodes that run and of nodes that have ended, by name.

    Raises:
        PlanError: A record is another user's, or damaged.
    """
    above = home() / "nodes"
    if not above.is_dir():
        return []
    above = real_folder(above)
    found = []
    for path in sorted(above.glob(f"*/{_FILE}")):
        try:
            # Checked as a key is: who writes it chooses the cluster that this user's program joins.
            text = read_own(path, OTHERS_WRITE)
        except FileNotFoundError:
            continue  # it has ended meanwhile
        try:
            content: Any = json.loads(text)
            found.append(Record(**content))
        except (ValueError, TypeError):
            raise PlanError(f"{path} is damaged; remove it") from None
    return found


def began(pid: int) -> int:
    """Returns when a process began, in the kernel's ticks; 0 where there is none of that number, or no /proc."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            # After the name, which may hold blanks and brackets, come the fields from the third on.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    # A zombie has ended, though its number is still taken.
    return 0 if fields[0] in "ZX" else int(fields[19])
