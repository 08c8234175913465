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

TOKEN = uuid.uuid4().hex * 2
SOON = {"RAY_NUM_REDIS_GET_RETRIES": "2"}
"""Lets Ray give up on a cluster that is not there after two seconds in place of twenty."""

RUN = """
import os, sys
import fedray as sf
sf.init(["alice", "bob"], ADDRESS, resources={"alice": {"site": 1}}, threads=2)
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


def ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


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
    port, client, *agents = ports(6)
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
    command += ["--node-ip-address=127.0.0.1", '--resources={"site": 1}']
    mark = uuid.uuid4().hex
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "FEDRAY_"))}
    with open(f"{folder}/out", "wb") as out:
        process = subprocess.Popen(
            command, env=kept | variables | {"FEDRAY_HEAD": mark}, stdout=out, stderr=out, start_new_session=True
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and not (answers(port) and answers(client)):
            time.sleep(0.2)
        yield variables, port, client
        process.terminate()
        process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


def test_by_host_and_port(program, head):
    variables, port, _ = head
    run = program(RUN.replace("ADDRESS", f"'127.0.0.1:{port}'"), **variables)
    assert run.finish() == (0, EXPECTED, "")
    assert run.left() == []


@pytest.mark.parametrize("address", ["None", "'auto'"])
def test_by_the_variable(program, head, address):
    variables, port, _ = head
    run = program(RUN.replace("ADDRESS", address), **variables, RAY_ADDRESS=f"127.0.0.1:{port}")
    assert run.finish() == (0, EXPECTED, "")


def test_by_ray_client(program, head):
    variables, _, client = head
    run = program(RUN.replace("ADDRESS", f"'ray://127.0.0.1:{client}'"), **variables)
    assert run.finish() == (0, EXPECTED, "")


def test_what_the_cluster_lacks_is_said_at_once(program, head):
    variables, port, _ = head
    source = """
import time
import fedray as sf
began = time.monotonic()
for wanted in ({"alice": {"site": 2}}, {"alice": {"site": 1}, "bob": {"site": 1}}, {"bob": {"elsewhere": 1}}):
    try:
        sf.init(["alice", "bob"], ADDRESS, resources=wanted)
    except sf.errors.PlanError as error:
        print(error)
print(time.monotonic() - began < 60)
"""
    run = program(source.replace("ADDRESS", f"'127.0.0.1:{port}'"), **variables)
    code, out, err = run.finish()
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "resources: party 'alice' asks for 2 site; no host has that, the hosts have 1 site",
        "resources: the parties together ask for 2 site, and the cluster has 1",
        "resources: party 'bob' asks for 1 elsewhere; no host has that, the hosts have 0 elsewhere",
        "True",
    ]


def test_two_sessions_share_a_cluster_and_ending_one_leaves_the_other(program, head):
    variables, port, _ = head
    first = program(
        f"""
import fedray as sf
sf.init(["alice"], "127.0.0.1:{port}")
print("ready", flush=True)
input_file = open(0)
input_file.readline()
print(sf.reveal(sf.PYU("alice")(abs)(-1)))
""",
        **variables,
    )
    assert first.read_line() == "ready"
    second = program(RUN.replace("ADDRESS", f"'127.0.0.1:{port}'"), **variables)
    assert second.finish() == (0, EXPECTED, "")
    first.process.stdin.write("go\n")
    first.process.stdin.flush()
    assert first.finish() == (0, "1\n", "")


@pytest.mark.parametrize("address", ["'127.0.0.1:1'", "'ray://127.0.0.1:1'", "'auto'", "'no.such.host.invalid:6379'"])
def test_nothing_there(program, address):
    source = f"""
import time
import fedray as sf
began = time.monotonic()
try:
    sf.init(["alice"], {address})
except sf.errors.PlanError as error:
    print(error)
print(time.monotonic() - began < LIMIT)
sf.init(["alice"], "inline")
print(sf.reveal(sf.PYU("alice")(abs)(-1)))
"""
    limit = "600" if address == "'auto'" else "20"  # Ray itself looks for a cluster then, and takes its time
    code, out, err = program(source.replace("LIMIT", limit), **SOON).finish(240)
    lines = out.splitlines()
    assert lines[0].startswith(f"no Ray cluster can be reached at address={address}"), (out, err)
    assert lines[0].endswith("start one with 'ray start --head', or use address='local'")
    assert lines[1:] == ["True", "1"]
    assert code == 0


def test_a_wrong_token(program, head):
    _, port, _ = head
    source = f"""
import fedray as sf
try:
    sf.init(["alice"], "127.0.0.1:{port}")
except sf.errors.PlanError as error:
    print(error)
"""
    code, out, _ = program(source, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64, **SOON).finish()
    assert code == 0
    assert out.startswith(f"no Ray cluster can be reached at address='127.0.0.1:{port}'")
