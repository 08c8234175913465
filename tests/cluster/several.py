# SPDX-License-Identifier: Apache-2.0
"""A cluster of several machines (`hosts.py`): charlie has the head, every party its own node, with token and TLS."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.hosts import Host, hosts

ROOT = Path(__file__).parents[2]
HEAD = "10.0.0.1:6379"


@contextlib.contextmanager
def several(*parties: str, secure: bool = True) -> Iterator[dict[str, Host]]:
    """Makes charlie's machine and one for each party, all with their nodes up, for as long as the block lasts.

    Args:
        *parties: Their names.
        secure: Whether the cluster has TLS.
    """
    with hosts("charlie", *parties) as machines:
        server = machines["charlie"]
        issued = [
            f"fedray tls issue {name} --host {machine.ip} --ca ca --out for-{name}"
            for name, machine in machines.items()
        ]
        shell(server, "; ".join(["fedray tls init --ca ca", *issued]))
        for name, machine in machines.items():
            shell(machine, f"fedray party init {name}")
        for name, machine in machines.items():
            others = " ".join(str(keys(one) / f"{other}.pub") for other, one in machines.items() if other != name)
            shell(machine, f"fedray keys roster {others} --dir {keys(machine)}")
        tls = "--tls for-charlie" if secure else "--insecure"
        shell(server, f"fedray head start --party charlie {tls} --cpus 1")
        for name in parties:
            start(machines, name, secure=secure)
        yield machines


def keys(machine: Host) -> Path:
    """Returns the key folder of a machine's party."""
    return machine.home / ".fedray" / "parties" / machine.name / "keys"


def start(machines: dict[str, Host], party: str, *, secure: bool = True) -> None:
    """Starts a party's node, or starts it again."""
    server, machine = machines["charlie"], machines[party]
    if not (machine.home / "tls").exists():
        shutil.copytree(server.home / f"for-{party}", machine.home / "tls")
        shutil.copy(server.home / ".fedray" / "token", machine.home / ".fedray" / "token")
    shell(machine, f"fedray party start {party} --head {HEAD} {'--tls tls' if secure else '--insecure'} --cpus 1")


def shell(machine: Host, command: str, seconds: float = 280) -> str:
    """Runs commands on a machine; returns what they print."""
    code, out, err = machine.run(command, seconds, PYTHONPATH=str(ROOT))
    assert code == 0, f"{machine.name}$ {command}\n{out}\n{err}"
    return out


def program(machine: Host, text: str, name: str = "program.py") -> subprocess.Popen[str]:
    """Starts a Python program on a machine."""
    (machine.home / name).write_text(text)
    return machine.begin(["python", "-u", name], PYTHONPATH=str(ROOT))


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[int, str, str, float]:
    """Waits for a program; returns exit code, stdout, stderr, and how long it took from here on."""
    began = time.monotonic()
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err, time.monotonic() - began
