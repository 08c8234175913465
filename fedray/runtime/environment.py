# SPDX-License-Identifier: Apache-2.0
"""Environment variables that a cluster is started under, and how they are put back. Imports no Ray."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping

MARK = "FEDRAY_CLUSTER"
"""Variable that every process of a cluster started here inherits; its value is the cluster's own."""

_SKIP = "RAY_DEDUP_LOGS_SKIP_REGEX"
_token = secrets.token_hex(32)  # one per process: Ray reads its token once


class Environment:
    """Variables set for a while."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    def set(self, values: Mapping[str, str]) -> None:
        """Sets variables and remembers what they were."""
        for name, value in values.items():
            self._before.setdefault(name, os.environ.get(name))
            os.environ[name] = value

    def keep(self, *names: str) -> None:
        """Remembers variables that somebody else is about to change."""
        for name in names:
            self._before.setdefault(name, os.environ.get(name))

    def restore(self, names: Iterable[str] | None = None) -> None:
        """Puts back the named variables, or all."""
        for name in list(self._before) if names is None else names:
            before = self._before.pop(name)
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before


def authentication() -> dict[str, str]:
    """Returns what makes a new cluster ask for a token of our own, unless the user has decided about tokens.

    Otherwise Ray prints a warning and writes a token into the user's home.
    """
    return {} if "RAY_AUTH_MODE" in os.environ else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token}


def importing() -> dict[str, str]:
    """Returns what Ray is imported under: it would report a lost process on stdout, where `PartyLost` says it."""
    return {} if _SKIP in os.environ else {_SKIP: "^A worker died or was killed while executing"}


def services(mark: str) -> dict[str, str]:
    """Returns what Ray's own processes are started under; Ray would make parties nice and report usage."""
    return {MARK: mark, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def computing(threads: int) -> dict[str, str]:
    """Returns what numerical libraries read when a party's process loads them."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def short_folder() -> str | None:
    """Returns where a cluster's files go; None for where temporary files usually go.

    Ray's sockets lie in there, and a socket's path may have about a hundred characters: TMPDIR is often too long.
    """
    chosen = os.environ.get("RAY_TMPDIR", "/tmp")  # noqa: S108 (a folder with a random name is made inside)
    return chosen if os.access(chosen, os.W_OK) else None


def processes(mark: str) -> list[int]:
    """Returns the processes that inherited a mark; empty where there is no /proc."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc") if os.path.isdir("/proc") else ():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and wanted in _environ(entry.path):
            found.append(int(entry.name))
    return found


def _environ(path: str) -> list[bytes]:
    try:
        with open(f"{path}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []
