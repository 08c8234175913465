# SPDX-License-Identifier: Apache-2.0
"""`deploy/README.md`, word for word, on three hosts: from nothing to a trained model. And what is told of faults."""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import hosts

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "README.md").read_text()
STEPS = re.findall(r"^```sh at=(\w+)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
NAMES = ("charlie", "alice", "bob")
WHY_NOT = hosts.reason()

SCP = f"""#!{sys.executable}
import shutil, sys
from pathlib import Path
homes = {{"10.0.0.1": "charlie", "10.0.0.2": "alice", "10.0.0.3": "bob"}}
*sources, target = [word for word in sys.argv[1:] if word != "-r"]
for source in sources:
    host, _, path = source.partition(":")
    found = Path.home().parent / homes[host] / path
    shutil.copytree(found, target) if found.is_dir() else shutil.copy(found, target)
"""
"""Stands for `scp`: the hosts have no server for it, and one file system."""


@pytest.fixture
def machines() -> Iterator[dict[str, hosts.Host]]:
    """Returns charlie's, alice's and bob's machine."""
    with hosts.hosts(*NAMES) as found:
        tools = found["charlie"].home.parent / "tools"
        tools.mkdir()
        (tools / "scp").write_text(SCP)
        (tools / "scp").chmod(0o755)
        yield found


def step(machine: hosts.Host, command: str, seconds: float = 280) -> str:
    """Runs one block of the walk-through; returns what it prints."""
    tools = machine.home.parent / "tools"
    code, out, err = machine.run(f'PATH="{tools}:$PATH"\n{command}', seconds, PYTHONPATH=str(ROOT))
    assert code == 0, f"{machine.name}$ {command}\n{out}\n{err}"
    return out


def test_every_machine_has_its_part_and_no_block_is_forgotten() -> None:
    assert {name for name, _ in STEPS} == set(NAMES)
    assert len(re.findall(r"^```sh at=", TEXT, flags=re.MULTILINE)) == len(STEPS)
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        assert address in TEXT


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")
def test_from_nothing_to_a_trained_model(machines: dict[str, hosts.Host], capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    said = [step(machines[name], command) for name, command in STEPS]
    with capsys.disabled():
        print(f" walk-through: {time.monotonic() - began:.0f} s ", end="")
    trained = next(text for text in said if "accuracy" in text)
    assert "'paths': 'registered'" in trained
    first, second = map(float, re.findall(r"accuracy \[([\d.]+), ([\d.]+)\]", trained)[0])
    assert 0.3 < first < second
    assert second > 0.7
    for machine in machines.values():
        assert machine.processes() == [], "a node that was stopped leaves no process behind"


DRIVER = """
import sys, time
import fedray as sf
began = time.monotonic()
try:
    sf.init(["alice", "bob", "charlie"][: int(sys.argv[1])], sys.argv[2])
    print("joined", flush=True)
    if len(sys.argv) > 3:
        time.sleep(600)
except sf.errors.PlanError as error:
    print(error)
print(f"after {time.monotonic() - began:.0f} s")
"""


def drive(machine: hosts.Host, parties: int, address: str = "auto", **variables: str) -> tuple[str, float]:
    """Returns what a driver prints on one machine, and the seconds that `init` took; nothing but that is printed."""
    (machine.home / "drive.py").write_text(DRIVER)
    _, out, err = machine.run(["python", "drive.py", str(parties), address], PYTHONPATH=str(ROOT), **variables)
    said, _, seconds = out.rpartition("after ")
    assert not re.search(r"gcs|raylet|\.cc:|Traceback", err), err
    return said.strip(), float(seconds.removesuffix(" s\n"))


def is_told(machine: hosts.Host, parties: int, address: str, said: str, within: float, **variables: str) -> None:
    found, seconds = drive(machine, parties, address, **variables)
    assert re.search(said, found), found
    assert seconds <= within, found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")
def test_what_a_driver_is_told(machines: dict[str, hosts.Host]) -> None:
    server, alice, bob = (machines[name] for name in NAMES)
    for name, command in STEPS[:-4]:
        if "fedray stop" not in command and not (name == "bob" and "party start" in command):
            step(machines[name], command)
    there = "10.0.0.1:6379"

    # A node that is missing, at once, with those that are there and the command.
    said = (
        r"party 'bob' has no node in the cluster at 10\.0\.0\.1:6379; its nodes are "
        r"alice \(party=alice, 10\.0\.0\.2\), head \(party=charlie, 10\.0\.0\.1\)\. "
        r"Start it on bob's machine: fedray party start bob --head 10\.0\.0\.1:6379"
    )
    for machine in (server, alice):
        is_told(machine, 3, "auto", said, 20)

    # Bob's machine is no node, and has neither token nor certificate at hand; then one of them; then both.
    is_told(bob, 1, "auto", "no node that you have started runs on this machine", 15)
    is_told(bob, 1, there, r"reaches to other machines \(10\.0\.0\.1\) without a token and TLS", 15)
    shutil.copytree(server.home / "for-bob", bob.home / "tls")
    shutil.copy(server.home / ".fedray" / "token", bob.home / ".fedray" / "token")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(bob.home / ".fedray" / "token")}
    certificates = certified(bob.home / "tls")
    is_told(bob, 1, there, r"without TLS", 15, **token)
    is_told(bob, 1, there, r"without a token", 15, **certificates)
    member = r"is there \(its nodes are .*\), and this machine is none of its nodes.*ray://10\.0\.0\.1:10001"
    is_told(bob, 1, there, member, 20, **token, **certificates)
    wrong = bob.home / "wrong"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    other = token | {"RAY_AUTH_TOKEN_PATH": str(wrong)}
    is_told(bob, 1, there, "asks for its token, and this driver has another one", 20, **other, **certificates)
    is_told(
        bob,
        1,
        "10.0.0.1:6380",
        r"can be reached at address='10\.0\.0\.1:6380' \(.*refused",
        10,
        **token,
        **certificates,
    )
    step(bob, "fedray tls init --ca ~/own; fedray tls issue bob --host 10.0.0.3 --ca ~/own --out ~/own-tls")
    is_told(bob, 1, there, "does not pass: unable to get local issuer", 10, **token, **certified(bob.home / "own-tls"))

    # A node with another token, and one with a certificate of another authority.
    line = "fedray party start bob --head 10.0.0.1:6379 --tls ~/tls"
    code, _, err = bob.run(f"{line} --token ~/wrong", PYTHONPATH=str(ROOT))
    assert code == 1
    assert "did not start: the head does not take this token" in err
    code, _, err = bob.run("fedray party start bob --head 10.0.0.1:6379 --tls ~/own-tls", 60, PYTHONPATH=str(ROOT))
    assert code == 1
    assert "the certificate of 10.0.0.1:6379 does not pass" in err

    # All are there, and by ray:// as well; a second driver is told who holds the party since when.
    step(bob, line)
    first = server.begin(["python", "drive.py", "3", "auto", "stay"], PYTHONPATH=str(ROOT))
    assert first.stdout is not None
    assert first.stdout.readline() == "joined\n"
    # Every party is held, and the first to answer is named.
    held = r"party '\w+' serves one session at a time .* held by session [0-9a-f]{8} of .*@charlie .* since 20"
    is_told(alice, 3, "auto", held, 60)
    first.kill()
    is_told(bob, 3, "ray://10.0.0.1:10001", "joined", 60)

    # Every node looks at itself and at the way to the others, in both directions, and the clocks are compared.
    said = step(alice, "fedray doctor --everywhere || true")
    assert "WRONG" not in said, said
    for found in (
        "node alice (10.0.0.2)",
        "node bob (10.0.0.3)",
        "node head (10.0.0.1)",
        "bob: data 'images'",
        "clock",
    ):
        assert found in said, said
    step(bob, "mv data/labels.npy data/elsewhere.npy")
    wrong = step(server, "fedray doctor --everywhere || echo ill")
    assert re.search(r"WRONG +bob: data 'labels' +cannot be read", wrong), wrong
    assert wrong.endswith("ill\n")

    # Killed as by a power cut, and started again at once: Ray has two records of it for a minute.
    bob.kill()
    is_told(server, 3, "auto", r"party 'bob' has a node at 10\.0\.0\.3, and 10\.0\.0\.3:20000 does not answer", 20)
    step(bob, line)
    is_told(server, 3, "auto", "joined", 60)


def certified(folder: Path) -> dict[str, str]:
    """Returns Ray's variables for a folder of certificates."""
    names = {"CA_CERT": "ca.crt", "SERVER_CERT": "node.crt", "SERVER_KEY": "node.key"}
    return {"RAY_USE_TLS": "1"} | {f"RAY_TLS_{name}": str(folder / file) for name, file in names.items()}
