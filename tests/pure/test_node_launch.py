# SPDX-License-Identifier: Apache-2.0
"""What a node is started with: every port fixed, whose it is, and the settings that were measured."""

import json
from pathlib import Path

import pytest

from fedray.errors import PlanError
from fedray.runtime.nodes.launch import Launch, Security
from fedray.runtime.nodes.ports import Ports, table

HEAD = Launch(
    "head", None, "10.0.0.1", None, Ports(head=6379), Path("/r"), 17, Security(Path("/t"), Path("/c")), cpus=0
)
ALICE = Launch(
    *("alice", "alice", "10.0.0.2", "10.0.0.1:6379", Ports(), Path("/r"), 18, Security(Path("/t"), None)),
    party_file=Path("/p/party.toml"),
    keys=Path("/p/keys"),
    store_bytes=1 << 28,
)


def test_a_head() -> None:
    line = HEAD.command("/bin/ray")
    assert line[:4] == ["/bin/ray", "start", "--block", "--disable-usage-stats"]
    for option in (
        "--head",
        "--port=6379",
        "--ray-client-server-port=10001",
        "--num-cpus=0",
        "--include-dashboard=false",
    ):
        assert option in line
    settings = [one for one in line if one.startswith("--system-config=")]
    assert json.loads(settings[0].partition("=")[2]) == {"max_direct_call_object_size": 1 << 20}
    assert "--labels=fedray-started=17" in line
    assert HEAD.address == "10.0.0.1:6379"
    assert not any(one.startswith("--resources") for one in line)


def test_a_party_s_node() -> None:
    line = ALICE.command("/bin/ray")
    for option in ("--address=10.0.0.1:6379", "--labels=fedray-started=18,party=alice", '--resources={"alice": 1}'):
        assert option in line
    assert "--head" not in line
    assert "--object-store-memory=268435456" in line
    variables = ALICE.variables({"FEDRAY_CLUSTER": "m"})
    assert variables["FEDRAY_PARTY"] == "/p/party.toml"
    assert variables["FEDRAY_KEYS"] == "/p/keys"
    assert variables["FEDRAY_LINES"] == "{} {}-{}".format(ALICE.ip, *ALICE.ports.lines)
    assert variables["RAY_AUTH_TOKEN_PATH"] == "/t"
    assert (variables["RAY_USE_TLS"], variables["RAY_memory_monitor_refresh_ms"]) == ("0", "0")
    assert variables["RAY_object_manager_pull_timeout_ms"] == "600000"
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in variables


def test_health_checks_outlast_half_a_minute() -> None:
    """A link that is cut so long must not cost a node."""
    found = {k.removeprefix("RAY_health_check_"): int(v) for k, v in HEAD.variables({}).items() if "health" in k}
    silent = (found["period_ms"] + found["timeout_ms"]) * found["failure_threshold"]
    assert silent >= 60_000
    assert {k: v for k, v in ALICE.variables({}).items() if "health" in k} == {
        k: v for k, v in HEAD.variables({}).items() if "health" in k
    }


def test_nothing_of_a_cluster_without_token_and_certificates_is_left_to_ray() -> None:
    assert Security(None, None).variables() == {"RAY_AUTH_MODE": "disabled", "RAY_USE_TLS": "0"}
    assert Security(None, Path("/c")).variables()["RAY_TLS_SERVER_KEY"] == "/c/node.key"


def test_every_port_that_ray_would_choose_is_fixed_and_in_one_block_or_the_head_s() -> None:
    ports = Ports(30000, head=6379)
    options = dict(one.removeprefix("--").split("=") for one in ports.options())
    assert set(options) == {
        *("port", "ray-client-server-port", "node-manager-port", "object-manager-port", "runtime-env-agent-port"),
        *("dashboard-agent-grpc-port", "dashboard-agent-listen-port", "metrics-export-port"),
        *("min-worker-port", "max-worker-port"),
    }
    inner = [int(port) for name, port in options.items() if name not in ("port", "ray-client-server-port")]
    assert all(30000 <= port < 31000 for port in inner)
    assert len(set(options.values())) == len(options)
    assert set(ports.single) <= {int(port) for port in options.values()}


def test_the_table_names_what_others_call() -> None:
    text = table(Ports(head=6379).firewall())
    ports = ["TCP", "6379", "20000", "20001", "20100-20999", "20010-20099", "10001"]
    assert [line.split()[0] for line in text.splitlines()] == ports
    assert "6379" not in table(Ports().firewall())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"first": 80}, "--ports-from: expected 1024 to 64536, found 80"),
        ({"first": 65000}, "--ports-from"),
        ({"head": 0}, "--port: expected a port from 1 to 65535, found 0"),
        ({"head": 20500}, "--port: 20500 lies in the block 20000-20999"),
        ({"head": 6379, "client": 70000}, "--client-port"),
        ({"head": 6379, "client": 6379}, "two different ports"),
    ],
)
def test_ports_that_are_none_or_meet(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        Ports(**wrong)
