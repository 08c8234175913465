# SPDX-License-Identifier: Apache-2.0
"""Runs the processes of a node: starts them, waits until they answer, stays with them, and ends them and no others."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from fedray.errors import PlanError
from fedray.party.keys.own_files import real_folder
from fedray.runtime import leftovers
from fedray.runtime.nodes.launch import Launch
from fedray.runtime.nodes.record import Record, began, folder_of
from fedray.runtime.obstacles import MOST_PATH
from fedray.runtime.ray_errors import versions

_TRIES = 3  # Ray gives a node 30 s to come up, which a busy machine may need twice
_TRY_SECONDS = 90.0
_POLL_SECONDS = 0.1
LOG = "ray.log"
"""In a node's folder: what `ray start` said."""
_UP = "Ray runtime started."
_TAIL = 300  # characters of Ray's log in an error


@dataclass
class Started:
    """A node that was started: its record, and its first process."""

    record: Record
    process: subprocess.Popen[bytes]


def prepare(name: str) -> Path:
    """Makes the folder of a node, for its user only, and returns that for Ray's files in it; logs of before stay.

    Raises:
        PlanError: Others may write it, its path is too long, or the node runs.
    """
    folder = folder_of(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = real_folder(folder)
    inner = folder / "r"  # Ray lets everybody into its own folder, which therefore lies in one that is closed
    if len(str(inner)) > MOST_PATH:
        raise PlanError(
            f"{inner} is too long by {len(str(inner)) - MOST_PATH} characters for the sockets that Ray keeps in it; "
            "set FEDRAY_HOME to a folder of yours with a short path"
        )
    _keep_logs(folder, inner)
    shutil.rmtree(inner, ignore_errors=True)
    return inner


def _keep_logs(folder: Path, inner: Path) -> None:
    """Puts the logs of a node's last run aside: a service manager starts a node again before anybody has read why."""
    if (folder / LOG).exists():
        (folder / LOG).replace(folder / f"{LOG}.last")
    logs = (inner / "session_latest").resolve() / "logs"
    if logs.is_relative_to(inner) and logs.is_dir():
        kept = folder / "logs.last"
        shutil.rmtree(kept, ignore_errors=True)
        logs.rename(kept)


def check_ports(launch: Launch) -> None:
    """Checks that nothing else has the node's ports.

    Raises:
        PlanError: Something has, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in launch.ip else socket.AF_INET
    for port in launch.ports.single:
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((launch.ip, port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise PlanError(f"--ip: {launch.ip} is no address of this machine ('ip addr' lists them)") from None
                raise PlanError(
                    f"port {port} of {launch.ip} is taken ({error.strerror}); if another node of this machine has it, "
                    f"give this one a block of its own, e.g. --ports-from {launch.ports.first + 1000}"
                ) from None


def start(launch: Launch, ray: str) -> Started:
    """Starts a node and returns when it answers.

    Args:
        launch: What to start.
        ray: Path of Ray's executable.

    Raises:
        PlanError: It does not come up, with what Ray says.
    """
    for left in reversed(range(_TRIES)):
        node = _begin(launch, ray)
        try:
            if _came_up(node, launch.name):
                node.record.write()
                return node
        except BaseException:
            end(node.record)
            node.record.erase()
            raise
        end(node.record)
        node.process.wait()
        said = _complaint(folder_of(launch.name) / LOG)
        if not left or _hopeless(said):
            raise PlanError(f"node {launch.name!r} did not start: {said}")
    raise AssertionError("unreachable")


def stay(node: Started) -> int:
    """Waits until a node ends, by itself or because this process is told to; returns the exit code for it."""
    told: list[int] = []

    def tell(number: int, _: FrameType | None) -> None:
        told.append(number)
        node.process.terminate()

    with _handled({signal.SIGTERM: tell, signal.SIGINT: tell}):
        node.process.wait()
    end(node.record)
    node.record.erase()
    if told:
        return 0  # as asked: a service manager must not take it for a failure
    print(
        f"fedray: node {node.record.name!r} has ended: {_complaint(folder_of(node.record.name) / LOG)}",
        file=sys.stderr,
    )
    return 1


def end(record: Record) -> None:
    """Ends the processes of one node, and no others."""
    if record.runs:
        os.kill(record.pid, signal.SIGTERM)
    leftovers.end_processes(record.mark, str(folder_of(record.name)))


def _begin(launch: Launch, ray: str) -> Started:
    mark = secrets.token_hex(8)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # None of Ray's own: one that was left from something else would make this node unlike the others.
    around = kept | launch.variables({leftovers.MARK: mark})
    with open(folder_of(launch.name) / LOG, "ab") as log:
        # In a session of its own: Ctrl-C in the terminal that starts it must not end it.
        process = subprocess.Popen(  # noqa: S603 (Ray's executable, with a list of arguments and no shell)
            launch.command(ray), env=around, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    security = launch.security
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    token, tls = str(security.token or ""), str(security.tls or "")
    pid, known = process.pid, (launch.name, launch.address, launch.ip, launch.head is None)
    record = Record(*known, pid, began(pid), mark, since, token, tls, launch.asked)
    return Started(record, process)


def _came_up(node: Started, name: str) -> bool:
    deadline = time.monotonic() + _TRY_SECONDS
    log = folder_of(name) / LOG
    while time.monotonic() < deadline:
        if _UP in log.read_text(errors="replace"):
            return True
        if node.process.poll() is not None:
            return False
        time.sleep(_POLL_SECONDS)
    return False


def _complaint(log: Path) -> str:
    """Returns the part of Ray's log that says something, in short."""
    text = log.read_text(errors="replace") if log.exists() else ""
    if "InvalidAuthToken" in text or "Unauthenticated" in text:
        return "the head does not take this token; copy the head's token file anew"
    if other := versions(text):
        return other
    lines = [re.sub(r"^\S+ \S+\s+[A-Z]+ \S+ -- ", "", line).strip() for line in text.splitlines()]
    telling = [line for line in lines if re.search(r"(?i)error|fail|unable|cannot|could not|mismatch|timed out", line)]
    chosen = telling[-1] if telling else next((line for line in reversed(lines) if line), "Ray said nothing")
    return f"{chosen[-_TAIL:]} (all of it: {log})"


def _hopeless(said: str) -> bool:
    return any(words in said for words in ("does not take this token", "install the same versions"))


@contextmanager
def _handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
