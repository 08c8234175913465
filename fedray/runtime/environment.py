# SPDX-License-Identifier: Apache-2.0
"""Environment variables that a cluster and its parties run under, and how they are put back. Imports no Ray."""

from __future__ import annotations

import os
import secrets
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from fedray.errors import PlanError
from fedray.party.keys.own_files import real_folder
from fedray.runtime.leftovers import MARK

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Variable of Ray's: with "0" it listens on the loopback address, where that is the one it is given."""

KEEPALIVE_MS = "120000"
"""How long Ray's connections may be silent: longer than the minute after which it gives a node up."""

PREFIX = "fedray-"
"""How the names of folders for a cluster's files begin."""

_token = secrets.token_hex(32)  # one per process: Ray reads its token once, so a second session cannot have another


class Environment:
    """Environment variables that are set for a while, and what they were before."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    def set(self, values: Mapping[str, str]) -> None:
        """Sets variables and remembers what they were."""
        for name, value in values.items():
            # Not overwritten by a second call: what is put back is the user's own value.
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
    """Returns the variables that make a new cluster ask for a token, unless the user has decided about tokens.

    Otherwise Ray prints a warning and writes a token into the user's home.
    """
    return {} if "RAY_AUTH_MODE" in os.environ else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token}


def importing() -> dict[str, str]:
    """Returns the variables under which Ray is imported.

    Ray would otherwise copy the driver's folder to every party where the driver was started by `uv run`, and end its
    connections after 20 s without a word from the other machine.
    """
    return {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_grpc_keepalive_timeout_ms": KEEPALIVE_MS}


def services(mark: str) -> dict[str, str]:
    """Returns the variables under which Ray's own processes are started.

    By itself Ray gives its workers a low priority, so that any other program on the machine slows the parties down,
    reports its usage to its makers, and listens on every network of the machine.
    """
    return {
        MARK: mark,
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Where memory runs short Ray would end every party, idle ones first. The system itself ends the largest one.
        "RAY_memory_monitor_refresh_ms": "0",
        # In so many words: no cluster of several machines. Then all that Ray starts takes this one's own address.
        LOOPBACK: "0",
    }


def debugging() -> dict[str, str]:
    """Returns the variables that keep `breakpoint()` in a party from waiting for a debugger that nobody sees."""
    # Ray's own opens one on the machine's network address, and asks nobody who calls there.
    return {"PYTHONBREAKPOINT": f"{__name__}.{refuse_breakpoint.__name__}"}


def refuse_breakpoint(*_: object, **__: object) -> NoReturn:
    """Stands for `breakpoint()` in a party with a process of its own.

    Raises:
        PlanError: Always.
    """
    raise PlanError(
        "breakpoint() has no terminal in a party's own process; use address='inline' to debug, where every party runs "
        "in the driver's process"
    )


def computing(threads: int) -> dict[str, str]:
    """Returns the variables that numerical libraries read when a party's process loads them."""
    # All three, since nobody knows which library the party's NumPy was built with. Threads change the order in which
    # floating-point numbers are added, and so the last bits of a result: runs repeat only at a fixed number.
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        # TensorFlow's remarks on the CPU, once per party, would bury what the user prints.
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def short_folder() -> str | None:
    """Returns where a cluster's files go; None for where temporary files usually go.

    Ray's sockets lie in there, and a socket's path may have about a hundred characters: TMPDIR is often too long.
    """
    chosen = os.environ.get("RAY_TMPDIR", "/tmp")  # noqa: S108 (a folder with a random name is made inside)
    return chosen if os.access(chosen, os.W_OK) else None


def private_folder() -> str:
    """Makes a folder that nobody else may enter, for a cluster's files, and returns its path.

    Warns where another user could put one of theirs in its place.
    """
    made = tempfile.mkdtemp(prefix=PREFIX, dir=short_folder())
    try:
        real_folder(Path(made))
    except PlanError as error:
        warnings.warn(
            f"other users of this machine can get at the parties' files: {error}. Or set RAY_TMPDIR to a folder of "
            "your own with a short path",
            stacklevel=2,
        )
    return made
