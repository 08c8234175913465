# SPDX-License-Identifier: Apache-2.0
"""Sessions on a cluster that is there already, started as its own documentation says: `ray start --head`."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from free_ports import free_ports

TOKEN = uuid.uuid4().hex * 2
SOON = {"RAY_NUM_REDIS_GET_RETRIES": "2"}
"""Lets Ray give up on a cluster that is not there after two seconds in place of twenty."""

RUN = """
import os
import fedray as sf
def visit(address):
    sf.init(["alice", "bob"], address, resources={"alice": {"site": 1}}, threads=2)
    alice, bob = sf.PYU("alice"), sf.PYU("bob")
    held = [alice(abs)(-i) for i in range(5)]
    moved = [h.to(bob) for h in held]
    print(sf.reveal({"sum": bob(sum)(moved), "threads": alice(os.getenv)("OMP_NUM_THREADS")}))
    try:
        sf.reveal(bob(lambda: 1 / 0)())
    except sf.errors.PartyError as error:
        print(error.party, error.remote_type)
    gone = bob(os._exit)(1)
    try:
        sf.wait([gone])
    except sf.errors.PartyLost as error:
        print("lost", error.party)
    sf.shutdown()
    import ray
    print(ray.is_initialized())
"""
EXPECTED = "{'sum': 10, 'threads': '2'}\nbob ZeroDivisionError\nlost bob\nFalse\n"

MORE = """
def look_in(address):
    sf.init(["alice"], address)
    print(sf.reveal(sf.PYU("alice")(abs)(-7)))
    sf.shutdown()
os.environ["RAY_ADDRESS"] = WHERE
look_in(None)
import ray
ray.init(WHERE, logging_level="ERROR", log_to_driver=False)
try:
    look_in("local")
except sf.errors.PlanError as error:
    print(error)
look_in("auto")
print(ray.is_initialized())
ray.shutdown()
look_in("auto")
for wanted in ({"alice": {"site": 2}}, {"alice": {"site": 1}, "bob": {"site": 1}}, {"bob": {"elsewhere": 1}}):
    try:
        sf.init(["alice", "bob"], WHERE, resources=wanted)
    except sf.errors.PlanError as error:
        print(error)
"""
MORE_EXPECTED = """7
Ray is running in this process already; use sf.init(..., address='auto') to run on it
7
True
7
resources: party 'alice' asks for 2 site; no host has that, the hosts have 1 site
resources: the parties together ask for 2 site, and the cluster has 1
resources: party 'bob' asks for 1 elsewhere; no host has that, the hosts have 0 elsewhere
"""

SMALL = """
import fedray as sf
sf.init(["alice"], WHERE)
print("ready", flush=True)
input()
print(sf.reveal(sf.PYU("alice")(abs)(-1)))
"""


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def head():
    """Starts a head node; returns (variables, gcs port, client port)."""
    folder = tempfile.mkdtemp(prefix="f", dir="/tmp")
    port, client, *agents = free_ports(6)
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    command = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--include-dashboard=false"]
    command += [f"--port={port}", f"--ray-client-server-port={client}", f"--temp-dir={folder}", "--num-cpus=2"]
    names = [
        "dashboard-agent-grpc-port",
        "dashboard-agent-listen-port",
        "metrics-export-port",
        "runtime-env-agent-port",
    ]
    command += [f"--{name}={number}" for name, number in zip(names, agents, strict=True)]
    command += ["--node-ip-address=127.0.0.1", '--resources={"site": 1, "alice": 1, "bob": 1}']
    mark = uuid.uuid4().hex
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "FEDRAY_"))}
    with open(f"{folder}/out", "wb") as out:
        process = subprocess.Popen(
            command, env=kept | variables | {"FEDRAY_HEAD": mark}, stdout=out, stderr=out, start_new_session=True
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and not (answers(port) and answers(client)):
            time.sleep(0.2)
        try:
            assert answers(port), Path(folder, "out").read_text()
            yield variables, port, client
        finally:
            process.terminate()
            process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow  # with the walk-through's machines; what a cluster answers that cannot be joined is not
def test_by_every_address_beside_a_session_of_another_program_which_goes_on(program, head):
    """Beside: a Ray that runs in the program already is joined and left running, and what the cluster lacks is said."""
    variables, port, client = head
    there = repr(f"127.0.0.1:{port}")
    other = program(SMALL.replace("WHERE", there), **variables)
    assert other.read_line() == "ready", other.finish()
    run = program(RUN + f"visit({there})" + MORE.replace("WHERE", there), **variables)
    assert run.finish(200) == (0, EXPECTED + MORE_EXPECTED, "")
    assert run.left() == []
    run = program(RUN + f"visit('ray://127.0.0.1:{client}')", **variables)
    assert run.finish(200) == (0, EXPECTED, "")
    other.tell("go")
    assert other.finish() == (0, "1\n", "")
    assert other.left() == []


def test_a_wrong_token_and_nothing_there(program, head):
    """Each is refused, the program goes on, and the next address is as good as the first."""
    _, port, _ = head
    addresses = [f"127.0.0.1:{port}", "127.0.0.1:1", "ray://127.0.0.1:1", "no.such.host.invalid:6379", "auto"]
    source = f"""
import time
import fedray as sf
for address in {addresses}:
    began = time.monotonic()
    try:
        sf.init(["alice"], address)
    except sf.errors.PlanError as error:
        print(error)
    print(time.monotonic() - began < 20)
sf.init(["alice"], "inline")
print(sf.reveal(sf.PYU("alice")(abs)(-1)))
"""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    code, out, err = program(source, **token, **SOON).finish(240)
    lines = out.splitlines()
    assert len(lines) == 2 * len(addresses) + 1, (out, err)
    assert lines[0].startswith(f"the cluster at {addresses[0]} asks for its token, and this driver has another one")
    assert lines[-3].startswith("address='auto': no node that you have started runs on this machine"), (out, err)
    for address, said in zip(addresses[1:-1], lines[2:-3:2], strict=True):
        assert said.startswith(f"no Ray cluster can be reached at address={address!r}"), (out, err)
        assert said.endswith("start one with 'fedray head start', or use address='local'")
    assert lines[1::2] == ["True"] * len(addresses)
    assert lines[-1] == "1"
    assert code == 0
