# SPDX-License-Identifier: Apache-2.0
"""Which node of a cluster is whose. Pure.

Ray alone would put a party on any host that has room for it, a stranger's as well, and say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedray.errors import PlanError
from fedray.runtime.nodes.launch import PARTY_LABEL, STARTED_LABEL, label_of
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a cluster, as Ray knows it.

    Attributes:
        id: Ray's number of it.
        name: What it is called.
        address: Of its machine.
        labels: As it was started with.
        resources: What it has in all.
        ports: Where Ray's two services there are called by other nodes.
    """

    id: str
    name: str
    address: str
    labels: Mapping[str, str]
    resources: Mapping[str, float]
    ports: tuple[int, ...] = ()

    @classmethod
    def alive(cls, records: Iterable[Mapping[str, Any]]) -> list[Node]:
        """Returns the living ones among Ray's own records."""
        return cls._of(record for record in records if record["Alive"])

    @classmethod
    def gone(cls, records: Iterable[Mapping[str, Any]]) -> list[Node]:
        """Returns those among Ray's own records that have ended or were given up."""
        return cls._of(record for record in records if not record["Alive"])

    @classmethod
    def _of(cls, records: Iterable[Mapping[str, Any]]) -> list[Node]:
        return [
            cls(
                record["NodeID"],
                record.get("NodeName") or record["NodeManagerAddress"],
                record["NodeManagerAddress"],
                record.get("Labels") or {},
                record.get("Resources") or {},
                tuple(record[port] for port in ("NodeManagerPort", "ObjectManagerPort") if record.get(port)),
            )
            for record in records
        ]

    @property
    def started(self) -> int:
        """When it was started, milliseconds since 1970; 0 where nothing says so."""
        text = self.labels.get(STARTED_LABEL, "")
        return int(text) if text.isdigit() else 0


def own_nodes(
    parties: Sequence[PartyName], nodes: Sequence[Node], address: str, gone: Sequence[Node] = ()
) -> dict[PartyName, list[Node]]:
    """Returns each party's own node, by its label, else by a resource of the party's name; never another's.

    More than one stands for a party where Ray still has the record of a node that was started again: the one started
    last comes first.

    Args:
        parties: Their names.
        nodes: Those that live.
        address: Where the cluster is called, for errors.
        gone: Those that have ended or were given up, for errors.

    Raises:
        PlanError: A party has none, or two on different machines.
    """
    found: dict[PartyName, list[Node]] = {}
    for party in parties:
        labelled = [node for node in nodes if node.labels.get(PARTY_LABEL) == label_of(party)]
        # A node that says whose it is belongs to nobody else, whatever resources it offers.
        offering = [node for node in nodes if PARTY_LABEL not in node.labels and node.resources.get(party, 0) > 0]
        own = sorted(labelled or offering, key=lambda node: node.started, reverse=True)
        if not own:
            raise PlanError(
                f"party {party!r} has no node in the cluster at {address}; {listed(nodes)}. {_lost(party, gone)}Start "
                f"it on {party}'s machine: fedray party start {party} --head {address} --tls DIR (--insecure, where "
                "the cluster has no certificates). (A simulation, where parties share what machines there are, says "
                "placement='anywhere'.)"
            )
        if len({node.address for node in own}) > 1:
            places = " and ".join(sorted(node.address for node in own))
            raise PlanError(
                f"party {party!r} has two nodes in the cluster at {address}, at {places}; stop one of them there with "
                "'fedray stop'. One that is gone without that is forgotten after a minute"
            )
        found[party] = own
    return found


def parties_of(nodes: Sequence[Node]) -> list[PartyName]:
    """Returns the labels by which nodes say whose they are, each once."""
    return sorted({node.labels[PARTY_LABEL] for node in nodes if PARTY_LABEL in node.labels})


def listed(nodes: Sequence[Node]) -> str:
    """Returns the nodes as text: name, label, address."""
    if not nodes:
        return "it has no nodes"
    rows = [f"{node.name} ({_whose(node)}, {node.address})" for node in sorted(nodes, key=lambda node: node.name)]
    return f"its nodes are {', '.join(rows)}"


def _lost(party: PartyName, gone: Sequence[Node]) -> str:
    places = {node.address for node in gone if node.labels.get(PARTY_LABEL) == label_of(party)}
    if not places:
        return ""
    return (
        f"It had one, at {' and '.join(sorted(places))}, which has ended or could no longer be called, as when its "
        "certificate has run out: 'fedray status' there says more. "
    )


def _whose(node: Node) -> str:
    return f"party={node.labels[PARTY_LABEL]}" if PARTY_LABEL in node.labels else "no party"
