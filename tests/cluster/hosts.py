# SPDX-License-Identifier: Apache-2.0
"""Separate machines out of network namespaces: each with its own address, loopback, ports, home and shared memory.

They hang on one bridge. Needs root and iproute2, on Linux; `reason` says what is missing.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

NETWORK = "10.0.0"  # the hosts' own: nothing of it reaches the machine's network


def reason() -> str:
    """Returns why there can be no such machines here; empty where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "network namespaces need iproute2 and util-linux"
    name = f"fd{uuid.uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "this container may make no network namespaces"
    # The bridge is another kernel module.
    bridge = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True).returncode
    subprocess.run(["ip", "link", "del", name], capture_output=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return "this container may make no bridge" if bridge else ""


class Host:
    """One machine."""

    def __init__(self, name: str, number: int, prefix: str, folder: Path) -> None:
        self.name, self.ip = name, f"{NETWORK}.{number}"
        self._namespace, self.device = f"{prefix}-{name}", f"{prefix}{number}"
        self._bridge = f"{prefix}br"
        self.home = folder / name  # short: Ray keeps sockets below it
        self.home.mkdir(parents=True)
        self._pids: list[subprocess.Popen[str]] = []
        self._relay: subprocess.Popen[str] | None = None

    def up(self) -> None:
        """Plugs it in."""
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self.device, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("link", "set", self.device, "master", self._bridge, "up")
        _ip("-n", self._namespace, "addr", "add", f"{self.ip}/24", "dev", "eth0")
        _ip("-n", self._namespace, "link", "set", "lo", "up")
        _ip("-n", self._namespace, "link", "set", "eth0", "up")
        # Ray and fedray find their own address by the way to everywhere.
        _ip("-n", self._namespace, "route", "add", "default", "dev", "eth0")

    def begin(self, command: str | Sequence[str], **variables: str) -> subprocess.Popen[str]:
        """Starts a program, or a shell with a text of commands, and returns at once."""
        line = ["bash", "-euc", command] if isinstance(command, str) else list(command)
        own = f'hostname {self.name}; mount -t tmpfs -o mode=1777 tmpfs /dev/shm; exec "$@"'
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "FEDRAY_", "OMP_", "TF_"))}
        kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}"
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._namespace, "unshare", "--uts", "--mount", "sh", "-c", own, "sh", *line],
            env=kept | {"HOME": str(self.home)} | variables,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._pids.append(process)
        return process

    def run(self, command: str | Sequence[str], seconds: float = 200, **variables: str) -> tuple[int, str, str]:
        """Runs a program to its end; returns exit code, stdout, stderr."""
        process = self.begin(command, **variables)
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err

    def processes(self) -> list[int]:
        """Returns the processes that run there."""
        found = subprocess.run(["ip", "netns", "pids", self._namespace], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        """Pulls the plug: every process there is gone at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut(self) -> None:
        """Takes its link down."""
        _ip("link", "set", self.device, "down")

    def heal(self) -> None:
        """Takes its link up again."""
        _ip("link", "set", self.device, "up")

    def slow(self, delay_ms: float, mbit: float) -> None:
        """Gives it a link of so many milliseconds and Mbit/s each way in the place of its own."""
        script = str(Path(__file__).with_name("slow_link.py"))
        place = [self._namespace, self.device, self._bridge, self.ip]
        line = [sys.executable, script, *place, f"{delay_ms:g}", f"{mbit:g}"]
        self._relay = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        if self._relay.stdout is None or self._relay.stdout.readline() != "ready\n":
            raise RuntimeError("the link could not be made slow")

    def down(self) -> None:
        """Ends everything on it and takes it away."""
        self.kill()
        if self._relay is not None:
            self._relay.kill()
            self._relay.communicate()
        for process in self._pids:
            process.wait(10)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        subprocess.run(["ip", "netns", "del", self._namespace], capture_output=True)
        subprocess.run(["ip", "link", "del", self.device], capture_output=True)


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[dict[str, Host]]:
    """Makes machines of these names, the first at .1, for as long as the block lasts."""
    prefix = f"f{uuid.uuid4().hex[:5]}"
    folder = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
    machines = {name: Host(name, number, prefix, folder) for number, name in enumerate(names, start=1)}
    bridge = f"{prefix}br"
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for machine in machines.values():
            machine.up()
        yield machines
    finally:
        for machine in machines.values():
            machine.down()
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
