# SPDX-License-Identifier: Apache-2.0
"""Which node of a cluster is whose: no party is ever put on another's."""

import pytest

from fedray.errors import PlanError
from fedray.runtime.nodes.launch import label_of
from fedray.runtime.own_nodes import Node, own_nodes

AT = "10.0.0.1:6379"


def node(name: str, address: str, started: int = 0, party: str = "", **resources: float) -> Node:
    labels = {"fedray-started": str(started)} if started else {}
    labels |= {"party": label_of(party)} if party else {}
    return Node(f"id-{name}", name, address, labels, {"CPU": 2.0} | resources)


HEAD = node("head", "10.0.0.1")
ALICE = node("alice", "10.0.0.2", 5, "alice", alice=1)


def test_by_label_else_by_resource() -> None:
    bob = node("10.0.0.3", "10.0.0.3", bob=1)
    assert own_nodes(["alice", "bob"], [HEAD, ALICE, bob], AT) == {"alice": [ALICE], "bob": [bob]}


def test_a_node_that_says_whose_it_is_is_nobody_else_s() -> None:
    both = node("alice", "10.0.0.2", 5, "alice", alice=1, bob=1)
    with pytest.raises(PlanError, match="party 'bob' has no node"):
        own_nodes(["alice", "bob"], [HEAD, both], AT)
    # And a resource of the name, anywhere else, is no second place for a party with a label.
    assert own_nodes(["alice"], [both, node("other", "10.0.0.9", alice=1)], AT) == {"alice": [both]}


def test_a_missing_node_is_told_with_those_that_are_there_and_the_command() -> None:
    with pytest.raises(PlanError) as caught:
        own_nodes(["alice", "bob"], [HEAD, ALICE], AT)
    assert str(caught.value) == (
        "party 'bob' has no node in the cluster at 10.0.0.1:6379; its nodes are alice (party=alice, 10.0.0.2), head "
        "(no party, 10.0.0.1). Start it on bob's machine: fedray party start bob --head 10.0.0.1:6379 --tls DIR "
        "(--insecure, where the cluster has no certificates). (A simulation, "
        "where parties share what machines there are, says placement='anywhere'.)"
    )
    with pytest.raises(PlanError, match="it has no nodes"):
        own_nodes(["bob"], [], AT)


def test_of_two_records_of_one_node_the_later_one_comes_first_and_two_machines_are_refused() -> None:
    again = node("alice", "10.0.0.2", 7, "alice")
    for nodes in ([ALICE, again], [again, ALICE]):
        assert own_nodes(["alice"], nodes, AT) == {"alice": [again, ALICE]}
    with pytest.raises(PlanError, match=r"party 'alice' has two nodes .*10\.0\.0\.2 and 10\.0\.0\.7; stop one"):
        own_nodes(["alice"], [ALICE, node("alice", "10.0.0.7", 9, "alice")], AT)


def test_names_that_ray_takes_for_no_label_have_one_of_their_own() -> None:
    names = ["alice", "zoë", "Dr. A", "a" * 64, "-a"]
    labels = [label_of(name) for name in names]
    assert labels[0] == "alice"
    assert len(set(labels)) == len(names)
    assert all(label.isascii() and len(label) <= 63 and " " not in label for label in labels)


def test_records_of_ray() -> None:
    alive = {"NodeID": "1", "Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": {}, "NodeName": ""}
    assert Node.alive([alive, alive | {"Alive": False}]) == [Node("1", "10.0.0.1", "10.0.0.1", {}, {})]
    odd = Node.alive([alive | {"Labels": {"fedray-started": "soon"}}])
    assert odd[0].started == 0
