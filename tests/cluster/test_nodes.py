# SPDX-License-Identifier: Apache-2.0
"""Nodes of two parties on one machine, on its loopback address: no root, no certificates, two blocks of ports."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DRIVER = """
import logging, os, sys
import fedray as sf
def where():
    print("printed by", sf.__name__)
    return os.environ["FEDRAY_PARTY"].split("/")[-2], os.getppid()
sf.init(["alice", "charlie"], "auto", log_level="INFO", threads=3)
alice, charlie = sf.PYU("alice"), sf.PYU("charlie")
(a, raylet_a), (c, raylet_c) = sf.reveal([alice(where)(), charlie(where)()])
print(a, c, raylet_a != raylet_c, sorted(sf.in_force()), sf.in_force()["alice"]["threads"])
print(sf.reveal(alice(os.getenv)("OMP_NUM_THREADS")), sf.reveal(charlie(os.getenv)("OMP_NUM_THREADS")))
import numpy as np
try:
    sf.reveal(alice(np.ones)(1 << 28))
except sf.errors.PartyError as error:
    print(error.remote_type)
from fedray.data.ndarray import load
print(load({alice: "three"}).shape)
sf.shutdown()
import time
time.sleep(1)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """Returns the home of a user who has two parties on this machine; their nodes end with the test."""
    folder = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))  # short: Ray keeps sockets below it
    for name, text in (
        ("charlie", ""),
        ("alice", 'printing = false\n[limits]\nthreads = 2\nmemory = "1 GB"\n[data]\nthree = "three.npy"\n'),
    ):
        (folder / "parties" / name).mkdir(parents=True)
        (folder / "parties" / name / "party.toml").write_text(f'name = "{name}"\n{text}')
    import numpy as np

    np.save(folder / "parties" / "alice" / "three.npy", np.ones(3))
    yield folder
    for name in ("alice", "head"):
        fedray(folder, "stop", name)
    shutil.rmtree(folder)


def fedray(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "FEDRAY_", "OMP_", "TF_"))}
    around = kept | {"FEDRAY_HOME": str(home), "PYTHONPATH": str(ROOT)}
    program = [sys.executable, *words] if words[0].endswith(".py") else [sys.executable, "-m", "fedray", *words]
    return subprocess.run(program, env=around, cwd=home, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_parties_on_one_machine_each_on_its_own_node_under_its_own_rules(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, client = (str(each.getsockname()[1]) for each in (one, two))
    head = ["--party", "charlie", "--ip", "127.0.0.1", "--port", port, "--client-port", client]
    started = fedray(home, "head", "start", *head, "--ports-from", "24000")
    assert started.returncode == 0, started.stderr
    line = ["party", "start", "alice", "--head", f"127.0.0.1:{port}", "--ip", "127.0.0.1"]
    taken = fedray(home, *line, "--ports-from", "24000")
    assert "is taken" in taken.stderr
    assert "--ports-from 25000" in taken.stderr
    started = fedray(home, *line, "--ports-from", "25000")
    assert started.returncode == 0, started.stderr

    (home / "drive.py").write_text(DRIVER)
    done = fedray(home, "drive.py")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[-4:] == ["alice charlie True ['alice', 'charlie'] 2", "2 3", "_ArrayMemoryError", "(3,)"]
    assert "alice: threads is 2 and not 3, by the party.toml of its machine" in done.stderr
    # Charlie's output is shown, and alice's stays with her.
    assert (done.stdout + done.stderr).count("printed by fedray") == 1
    assert "printed by fedray" in (home / "printed" / "alice.log").read_text()

    looked = fedray(home, "doctor", "--everywhere")
    assert looked.returncode == 0, looked.stdout
    assert looked.stdout.count("agrees with this machine's") == 2
    assert "WRONG" not in looked.stdout
    # One is ended, and the other goes on.
    assert fedray(home, "stop", "alice").stdout == "alice has been stopped\n"
    status = fedray(home, "status").stdout
    assert "head: runs at 127.0.0.1" in status
    assert "alice" not in status
    missing = fedray(home, "drive.py").stderr
    assert "party 'alice' has no node in the cluster" in missing
