# SPDX-License-Identifier: Apache-2.0
"""How a cluster is found and when it is refused: `auto` is one's own, and nothing goes to other machines unguarded."""

import os
import socket
from pathlib import Path

import pytest

import fedray as sf
from fedray.errors import PlanError
from fedray.party.house.turns import HOME
from fedray.runtime import joining
from fedray.runtime.joined_cluster import JoinedCluster
from fedray.runtime.joining import Entrance, check_answers, check_member, check_secure, local
from fedray.runtime.local_cluster import RayProcess
from fedray.runtime.nodes import record
from fedray.runtime.nodes.findings import Finding
from fedray.runtime.nodes.record import Record, began, records
from fedray.runtime.own_nodes import Node

HERE = Node("1", "head", "127.0.0.1", {}, {})
THERE = Node("2", "alice", "192.0.2.77", {"party": "alice"}, {})
GUARDED = {"RAY_AUTH_MODE": "token", "RAY_USE_TLS": "1"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME, str(tmp_path))
    return tmp_path


def written(name: str, address: str, ip: str = "10.0.0.2", pid: int = 0, tls: str = "/c") -> Record:
    pid = pid or os.getpid()
    record.folder_of(name).mkdir(parents=True, mode=0o700)
    found = Record(name, address, ip, False, pid, began(pid), "mark", "2026-01-01", "/t", tls)
    found.write()
    return found


def test_auto_is_the_cluster_of_the_node_that_this_user_has_started(machine: Path) -> None:
    with pytest.raises(PlanError, match=r"no node that you have started runs on this machine.*never joined"):
        Entrance.of("auto", {})
    written("alice", "10.0.0.1:6379")
    assert Entrance.of("auto", {}).address == "10.0.0.1:6379"
    assert Entrance.of("auto", {"RAY_ADDRESS": "10.9.9.9:1"}) == Entrance("10.9.9.9:1")
    # A second node of the same cluster changes nothing; one of another does.
    written("bob", "10.0.0.1:6379")
    assert Entrance.of("auto", {"RAY_ADDRESS": "auto"}).address == "10.0.0.1:6379"
    written("head", "10.0.0.2:6379")
    with pytest.raises(PlanError, match=r"several clusters; name one of 10\.0\.0\.1:6379, 10\.0\.0\.2:6379"):
        Entrance.of("auto", {})


def test_a_node_that_has_ended_is_none(machine: Path) -> None:
    written("alice", "10.0.0.1:6379", pid=1 << 22)  # above any process's number
    with pytest.raises(PlanError, match="no node that you have started"):
        Entrance.of("auto", {})


def test_token_and_certificates_are_those_of_this_machine_s_node(machine: Path) -> None:
    written("alice", "10.0.0.1:6379")
    for address in ("10.0.0.1:6379", "ray://10.0.0.1:10001"):
        found = Entrance.of(address, {}).variables
        assert (found["RAY_AUTH_TOKEN_PATH"], found["RAY_TLS_CA_CERT"]) == ("/t", "/c/ca.crt")
    assert Entrance.of("10.0.0.7:6379", {}).variables == {}
    assert Entrance.of("10.0.0.1:6380", {}).variables == {}
    written("here", "127.0.0.1:6379", ip="127.0.0.1")
    assert Entrance.of("localhost:6379", {}).variables["RAY_AUTH_MODE"] == "token"
    # What the user has said stands, as a whole.
    mixed = Entrance.of("10.0.0.1:6379", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}).variables
    assert not any(name.startswith("RAY_AUTH") for name in mixed)
    assert mixed["RAY_USE_TLS"] == "1"
    assert "RAY_TLS_CA_CERT" not in Entrance.of("10.0.0.1:6379", {"RAY_USE_TLS": "0"}).variables


def test_a_record_of_somebody_else_s_is_refused(machine: Path) -> None:
    written("alice", "10.0.0.1:6379")
    path = record.folder_of("alice") / "node.json"
    path.chmod(0o666)
    with pytest.raises(PlanError, match="other users may write it"):
        records()
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(PlanError, match="is damaged; remove it"):
        records()


def test_other_machines_are_not_reached_without_token_and_tls() -> None:
    for variables, lacking in (
        ({}, "a token and TLS"),
        ({"RAY_AUTH_MODE": "token"}, "TLS"),
        ({"RAY_USE_TLS": "1"}, "a token"),
        ({"RAY_AUTH_MODE": "token", "RAY_USE_TLS": "0"}, "TLS"),
    ):
        said = rf"reaches to other machines \(192\.0\.2\.77\) without {lacking}:.*insecure=True"
        for address, nodes in (
            ("192.0.2.77:6379", []),
            ("ray://192.0.2.77:10001", []),
            ("127.0.0.1:6379", [HERE, THERE]),
        ):
            with pytest.raises(PlanError, match=said):
                check_secure(Entrance(address), nodes, variables, insecure=False)
            check_secure(Entrance(address), nodes, variables, insecure=True)
            check_secure(Entrance(address), nodes, GUARDED, insecure=False)
    # A cluster whose nodes are all on this machine goes over no network.
    check_secure(Entrance("127.0.0.1:6379"), [HERE], {}, insecure=False)


def test_a_driver_on_a_machine_that_is_no_node_is_told_so() -> None:
    check_member(Entrance("127.0.0.1:6379"), [HERE, THERE])
    with pytest.raises(PlanError, match=r"is there .*alice .*none of its nodes.*address='ray://192\.0\.2\.77:10001'"):
        check_member(Entrance("192.0.2.77:6379"), [THERE])


def test_a_party_s_node_that_does_not_answer_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "local", lambda _host: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        there = {"bob": [Node("1", "bob", "127.0.0.1", {}, {}, (port,)), Node("2", "bob", "127.0.0.1", {}, {}, (1,))]}
        check_answers(there)
    with pytest.raises(
        PlanError, match=rf"party 'bob' has a node at 127.*127\.0\.0\.1:{port} does not answer \(.*refused"
    ):
        check_answers(there)
    check_answers({"bob": [Node("1", "bob", "127.0.0.1", {}, {})]})  # versions of Ray that tell no port


def test_what_is_this_machine_s_own_address() -> None:
    assert local("127.0.0.1")
    assert local("localhost")
    assert not local("192.0.2.77")
    assert not local("no.such.host.invalid")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"placement": "alone"}, "placement: expected 'own' or 'anywhere', found 'alone'"),
        ({"insecure": "no"}, "insecure: expected True or False, found 'no'"),
    ],
)
def test_arguments_of_init(wrong: dict[str, object], said: str) -> None:
    sf.shutdown()
    with pytest.raises(PlanError, match=said):
        sf.init(["alice"], "inline", **wrong)


def test_what_ray_says_without_a_cause_is_explained_by_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedray.runtime.joined_cluster.reread_authentication", lambda: None)
    monkeypatch.setattr("fedray.runtime.joined_cluster.node_records", lambda _address: [])
    monkeypatch.setattr("fedray.runtime.joined_cluster._BIRTH_SECONDS", 0.0)
    monkeypatch.setattr("fedray.runtime.joining._speaks_tls", lambda _entrance: False)
    found = [Finding("name", "good", "fine"), Finding("bob, port 7", "bad", "it does not answer", "let it in")]
    monkeypatch.setattr("fedray.runtime.diagnosis.way", lambda *_: (found, []))

    def init(*_: object) -> None:
        raise RuntimeError("Failed to get the system config")

    ended: list[str] = []
    ray = RayProcess(init, lambda: ended.append("shutdown"), lambda: False, list, str)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(PlanError) as raised:
            JoinedCluster(ray, address, insecure=False).start([], show_output=False)
    assert str(raised.value) == (
        f"no Ray cluster can be reached at address='{address}' (Failed to get the system config; bob, port 7: it does "
        "not answer (let it in)); start one with 'fedray head start', or use address='local'"
    )
    assert ended
