# SPDX-License-Identifier: Apache-2.0
"""`fedray doctor`: each fault is named with what to do, and nothing that is in order is called ill."""

import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from fedray.commands import doctor
from fedray.commands.cli import main
from fedray.party.house.turns import HOME
from fedray.runtime import diagnosis
from fedray.runtime.diagnosis import NodeReport
from fedray.runtime.joining import Entrance
from fedray.runtime.nodes import certificates, findings, token
from fedray.runtime.nodes.findings import Finding
from fedray.runtime.nodes.launch import RAY_SETTINGS, Security
from fedray.runtime.nodes.record import Record, began, folder_of
from fedray.runtime.own_nodes import Node


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this process one on a machine with alice's party and nothing else; returns its home."""
    monkeypatch.setenv(HOME, str(tmp_path))
    for name in list(os.environ):
        if name.startswith(("RAY_", "FEDRAY_PARTY", "FEDRAY_KEYS")):
            monkeypatch.delenv(name)
    assert main(["party", "init", "alice"]) == 0
    keys = tmp_path / "parties" / "alice" / "keys"
    assert main(["keys", "roster", f"{keys}/alice.pub", "--dir", str(keys)]) == 0
    return tmp_path


def told(found: list[Finding]) -> dict[str, Finding]:
    return {each.check: each for each in found}


def test_a_machine_in_order_has_nothing_bad(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    here = {each["check"]: each for each in found["this machine"]}
    assert {"versions", "memory", "shared memory", "processors", "open files", "alice: party.toml"} <= set(here)
    assert here["alice: keys"]["found"] == "an identity, and a roster of 1"
    assert found["cluster"][0]["health"] == "doubtful"
    assert not any(each["health"] == "bad" for list_ in found.values() for each in list_)
    assert all(each["remedy"] for list_ in found.values() for each in list_ if each["health"] != "good")


def test_token_and_certificate_are_told_once_for_each_node_and_say_whose(
    machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token.made(machine / "token")
    certificates.make_authority(machine / "ca")
    certificates.issue(machine / "ca", machine / "tls", "alice", ["10.0.0.2"])
    folder_of("alice").mkdir(parents=True, mode=0o700)
    pid = os.getpid()
    kept = str(machine / "token"), str(machine / "tls")
    Record("alice", "127.0.0.1:1", "10.0.0.2", False, pid, began(pid), "mark", "2026-01-01", *kept).write()
    monkeypatch.setattr(doctor, "_cluster", lambda *_: {})
    capsys.readouterr()
    main(["doctor", "--json", "--tls", str(machine / "tls")])
    found = json.loads(capsys.readouterr().out)["this machine"]
    checks = [each["check"] for each in found]
    assert len(checks) == len(set(checks))
    # Without --token, it is the file that a node would take.
    assert {"token", "TLS", "alice: token", "alice: TLS"} <= set(checks)
    assert {each["health"] for each in found if "TLS" in each["check"] or "token" in each["check"]} == {"good"}


def test_a_party_s_files(machine: Path) -> None:
    path = machine / "parties" / "alice" / "party.toml"
    np.save(machine / "x.npy", np.ones(3))
    path.write_text(path.read_text() + f'here = "{machine}/x.npy"\ngone = "/nowhere/secret.npy"\n')
    found = told(findings.parties())
    assert found["alice: data 'here'"].health == "good"
    assert found["alice: data 'gone'"].health == "bad"
    # This may be told to a driver elsewhere.
    assert "secret" not in str(found)
    lines = path.read_text()
    for folder, said in {"kept/here": "will be made", "keys": "can be written to", "party.toml": "cannot be"}.items():
        path.write_text(lines.replace('# checkpoints = "/data/checkpoints"', f'checkpoints = "{folder}"'))
        kept = told(findings.parties())["alice: checkpoints"]
        assert said in kept.found
        assert kept.health == ("bad" if folder == "party.toml" else "good")
    path.write_text(path.read_text().replace("# threads = 4", "threads = 100000"))
    assert told(findings.parties())["alice: threads"].health == "doubtful"
    (machine / "parties" / "alice" / "keys" / "identity.key").chmod(0o644)
    assert "other users may read or write" in told(findings.parties())["alice: keys"].found
    path.write_text(path.read_text().replace("sessions = 1", "sessions = 0"))
    (only,) = findings.parties()
    assert only.health == "bad"
    assert "sessions: expected a whole number" in only.found


def test_a_full_disk_is_told_before_a_ledger_cannot_be_written(machine: Path, monkeypatch) -> None:
    assert told(findings.parties())["alice: room for the ledger"].health == "good"
    monkeypatch.setattr(findings, "_LEAST_DISK", 1 << 60)
    full = told(findings.parties())["alice: room for the ledger"]
    assert (full.health, str(machine) in str(full)) == ("doubtful", False)


def test_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "_LEAST_MEMORY", 1 << 60)
    monkeypatch.setattr(findings, "_LEAST_SHARED", 1 << 60)
    monkeypatch.setattr(findings, "_LEAST_DISK", 1 << 60)
    monkeypatch.setattr(findings, "_LEAST_FILES", 1 << 60)
    monkeypatch.setattr(findings, "_version", lambda name: "" if name in ("tensorflow", "torch") else "1")
    found = told([*findings.machine(), *findings.software()])
    for check in ("memory", "shared memory", "room in FEDRAY_HOME", "open files", "framework"):
        assert found[check].health == "doubtful", check
        assert found[check].remedy, check


def test_token_and_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates.make_authority(tmp_path / "ca")
    certificates.issue(tmp_path / "ca", tmp_path / "tls", "alice", ["10.0.0.2"])
    certificates.issue(tmp_path / "ca", tmp_path / "short", "alice", ["10.0.0.2"], days=3)
    (tmp_path / "token").write_text("a" * 64)
    (tmp_path / "token").chmod(0o600)
    good = told(findings.secured(Security(tmp_path / "token", tmp_path / "tls"), "10.0.0.2"))
    assert {each.health for each in good.values()} == {"good"}
    soon = told(findings.secured(Security(tmp_path / "token", tmp_path / "short"), None))
    assert (soon["TLS"].health, "runs out soon" in soon["TLS"].remedy) == ("doubtful", True)
    assert "that has ca.key: fedray tls issue alice --host 10.0.0.2" in soon["TLS"].remedy
    assert "a" * 64 not in str(good)
    bad = told(findings.secured(Security(tmp_path / "none", tmp_path / "tls"), "10.0.0.3"))
    assert "no token at" in bad["token"].found
    assert "this node is called at 10.0.0.3" in bad["TLS"].found
    assert [each.health for each in findings.secured(Security(None, None), None)] == ["bad", "bad"]


def test_the_way_ends_at_its_first_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(address: str, **variables: str) -> list[tuple[str, str]]:
        return [(each.check, each.health) for each in diagnosis.way(Entrance(address), variables)[0]]

    assert looked("no.such.host.invalid:6379") == [("name", "bad")]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert looked(f"127.0.0.1:{port}") == [("name", "good"), ("head", "bad")]
    monkeypatch.setattr("fedray.runtime.joining._speaks_tls", lambda _entrance: True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"127.0.0.1:{server.getsockname()[1]}"
        assert looked(there)[2:] == [("TLS with the head", "bad")]
        monkeypatch.setattr("fedray.runtime.joining._speaks_tls", lambda _entrance: False)

        def refused(_address: str) -> list[object]:
            raise ConnectionError("its head does not answer")

        monkeypatch.setattr(diagnosis, "node_records", refused)
        assert looked(there)[3:] == [("token at the head", "bad")]
        record = {"Alive": True, "NodeID": "1", "NodeManagerAddress": "192.0.2.77", "Resources": {}, "NodeName": "bob"}
        monkeypatch.setattr(diagnosis, "node_records", lambda _address: [record])
        monkeypatch.setattr(diagnosis, "system_settings", lambda _address: {"max_direct_call_object_size": 1 << 20})
        # This machine is none of them.
        assert looked(there)[3:] == [("token at the head", "good"), ("inline limit", "good"), ("nodes", "bad")]
        here = record | {"NodeManagerAddress": "127.0.0.1", "Labels": {"party": "bob"}}
        monkeypatch.setattr(diagnosis, "node_records", lambda _address: [here])
        assert looked(there)[5:] == [("nodes", "good")]
        twice = [here, record | {"Labels": {"party": "bob"}}]
        monkeypatch.setattr(diagnosis, "node_records", lambda _address: twice)
        assert looked(there)[5:] == [("nodes", "bad")]


def test_a_head_that_sends_models_by_way_of_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "system_settings", lambda _address: {})
    found = diagnosis._inline("127.0.0.1:1")
    assert (found.health, found.found[:13]) == ("doubtful", "102,400 bytes")

    def fail(_address: str) -> dict[str, object]:
        raise RuntimeError("of Ray's own")

    monkeypatch.setattr(diagnosis, "system_settings", fail)
    assert "does not tell it: of Ray's own" in diagnosis._inline("127.0.0.1:1").found


def test_ports_of_the_other_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "local", lambda _host: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (good,) = diagnosis.between([Node("1", "bob", "127.0.0.1", {}, {}, (port,))])
    (bad,) = diagnosis.between([Node("1", "bob", "127.0.0.1", {}, {}, (port,))])
    assert (good.health, bad.health) == ("good", "bad")
    assert bad.check == f"bob, port {port}"
    assert "let it in at 127.0.0.1" in bad.remedy


def test_lines_are_let_in_where_the_machine_itself_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "local", lambda _host: False)
    node = Node("1", "bob", "10.9.9.9", {"fedray-started": "1"}, {}, (20000, 20001))

    def answering(error: OSError) -> list[Finding]:
        def connect(*_: object) -> None:
            raise error

        monkeypatch.setattr(socket, "create_connection", connect)
        return diagnosis.between([node])

    assert [one.health for one in answering(ConnectionRefusedError(111, "refused"))] == ["bad", "bad", "good", "good"]
    *_, lines, calls = answering(TimeoutError(110, "timed out"))
    assert (lines.health, lines.check) == ("doubtful", "bob, ports 20010-20099")
    assert (calls.health, calls.check) == ("bad", "bob, ports 20100-20999")
    assert "let them in at 10.9.9.9" in calls.remedy


def test_clocks() -> None:
    now = time.time()
    for off, health in ((0.0, "good"), (-5.0, "good"), (6.0, "good"), (9.0, "bad"), (86400.0, "bad"), (-8.0, "bad")):
        # Asked ten seconds ago and answered now: whatever lies between is in order, and two seconds on either side.
        assert diagnosis.clock(NodeReport((), now - 5 + off), now - 10, now).health == health, off
    assert "86395 s ahead of" in diagnosis.clock(NodeReport((), now - 5 + 86400), now - 10, now).found
    assert "86395 s behind" in diagnosis.clock(NodeReport((), now - 5 - 86400), now - 10, now).found


def test_another_version_on_one_node() -> None:
    here = findings.versions()
    assert {"Python", "ray", "fedray", "numpy"} <= set(here)
    assert [each.health for each in findings.differences(here, here)] == ["good"]
    for name, health in (("ray", "bad"), ("Python", "bad"), ("fedray", "bad"), ("numpy", "doubtful")):
        (found,) = findings.differences({**here, name: "0.0.1"}, here)
        assert (found.check, found.health) == (f"{name} version", health)
        assert found.found == f"0.0.1 there, {here[name]} here"
        assert "on every machine" in found.remedy
    # What only one of them has is no difference: a server needs no framework.
    assert findings.differences({**here, "there": "2"}, {**here, "here": "1"})[0].health == "good"
    now = time.time()
    report = NodeReport((), now, {**here, "ray": "0.0.1"})
    assert [each.check for each in diagnosis.all_of(report, now, now)] == ["ray version", "clock"]


def test_a_node_that_was_started_otherwise(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings.settings(RAY_SETTINGS).health == "good"
    other = findings.settings({**RAY_SETTINGS, "RAY_memory_monitor_refresh_ms": "250"})
    assert (other.health, other.found) == ("doubtful", "RAY_memory_monitor_refresh_ms is 250")
    assert "RAY_worker_niceness is not set" in findings.settings({}).found
    for secure in (Security(Path("/t"), Path("/c")), Security(None, None)):
        assert Security.of(secure.variables()) == secure
    for name, value in {**RAY_SETTINGS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nowhere/token"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(diagnosis, "local", lambda host: host == "127.0.0.1")
    with socket.create_server(("localhost", 0)) as server:
        head = ("localhost", server.getsockname()[1])
        found = told(list(diagnosis.at_node([Node("1", "bob", "127.0.0.1", {}, {})], head).findings))
    assert found[f"head, port {head[1]}"].health == "good"
    assert found["Ray's settings"].health == "good"
    assert (found["token"].health, found["TLS"].health) == ("bad", "good")  # on loopback it takes no certificate
    assert found["alice: keys"].health == "good"


def test_what_is_bad_is_marked_with_its_remedy_below() -> None:
    shown = doctor._shown(
        "node bob", [Finding("clock", "bad", "a day off", "set it"), Finding("memory", "good", "8 GB")]
    )
    assert shown.splitlines() == [
        "node bob",
        "  WRONG         clock   a day off",
        "                        -> set it",
        "  ok            memory  8 GB",
    ]
