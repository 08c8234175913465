# SPDX-License-Identifier: Apache-2.0
"""The cluster definition has the shape that users of SPU know."""

from __future__ import annotations

import json
import socket

import pytest

from fedray.errors import PlanError
from fedray.utils import testing
from fedray.utils.testing import cluster_def


def test_shape_and_defaults() -> None:
    found = cluster_def(["alice", "bob"])
    assert [node["party"] for node in found["nodes"]] == ["alice", "bob"]
    assert found["runtime_config"] == {"protocol": "SEMI2K", "field": "FM128", "fxp_fraction_bits": 18}
    json.dumps(found)  # plain values only


def test_ports_are_different_and_free() -> None:
    addresses = [node["address"] for node in cluster_def([f"p{i}" for i in range(8)])["nodes"]]
    assert len(set(addresses)) == 8
    for address in addresses:
        host, port = address.split(":")
        with socket.socket() as listener:
            listener.bind((host, int(port)))


def test_no_outgoing_connection_takes_a_port() -> None:
    with socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", 0))
        by_system = outgoing.getsockname()[1]
    ports = [int(node["address"].split(":")[1]) for node in cluster_def([f"p{i}" for i in range(8)])["nodes"]]
    assert max(ports) < 32_768 <= by_system


def test_a_port_that_is_taken_is_not_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [taken.getsockname()[1], other.getsockname()[1]]
        other.close()
        monkeypatch.setattr("fedray.utils.testing._PORTS", [ports[0]] * 3 + [ports[1]])
        assert testing._free_ports(1) == [ports[1]]


def test_given_settings_change_the_defaults_and_leave_them_alone() -> None:
    assert cluster_def(["a", "b"], {"field": "FM64"})["runtime_config"] == {
        "protocol": "SEMI2K",
        "field": "FM64",
        "fxp_fraction_bits": 18,
    }
    assert cluster_def(["a", "b"])["runtime_config"]["field"] == "FM128"


@pytest.mark.parametrize(
    ("parties", "match"),
    [(["alice"], "at least two"), ([], "at least two"), (["a", "a"], "twice"), ("alice", "list"), ([1, 2], "names")],
)
def test_wrong_parties_are_refused(parties: list[str], match: str) -> None:
    with pytest.raises(PlanError, match=match):
        cluster_def(parties)
