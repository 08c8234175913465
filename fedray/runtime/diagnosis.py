# SPDX-License-Identifier: Apache-2.0
"""What `fedray doctor` finds on the way to a cluster and between its nodes. Imports no Ray.

Each step of the way is looked at only where the one before it is good: behind a closed port there is no token to judge.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from fedray.errors import PlanError
from fedray.runtime.joining import Entrance, check_member, local
from fedray.runtime.nodes import findings
from fedray.runtime.nodes.certificates import SOON
from fedray.runtime.nodes.findings import Finding
from fedray.runtime.nodes.launch import INLINE_BYTES, Security
from fedray.runtime.nodes.ports import Ports
from fedray.runtime.nodes.presented import presented, renewal
from fedray.runtime.own_nodes import Node, listed, own_nodes, parties_of
from fedray.runtime.ray_errors import reason
from fedray.runtime.ray_interior import node_records, system_settings

_CALL_SECONDS = 5.0
_RAY_INLINE_BYTES = 100 << 10  # Ray's own limit, where nobody sets another
_CLOCK_SECONDS = 2.0  # more than certificates and ledgers can do with


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node says of itself and of the way to the others.

    Attributes:
        findings: What it has found.
        clock: Its time, seconds since 1970.
        versions: Of what is installed there.
    """

    findings: tuple[Finding, ...]
    clock: float
    versions: Mapping[str, str] = field(default_factory=dict)


def way(entrance: Entrance, environment: Mapping[str, str]) -> tuple[list[Finding], list[Node]]:
    """Returns how the way into a cluster is, step by step, and the cluster's nodes where it leads there.

    Args:
        entrance: The way.
        environment: Ray's variables for it.
    """
    found: list[Finding] = []
    try:
        address = socket.getaddrinfo(entrance.host, entrance.port, type=socket.SOCK_STREAM)[0][4][0]
        found.append(Finding("name", "good", f"{entrance.host} is {address}"))
    except OSError as error:
        remedy = "give the head's address in its place, or mend the name service"
        return [Finding("name", "bad", f"{entrance.host}: {error.strerror or error}", remedy)], []
    port = _called(entrance.host, entrance.port, "head", "is 'fedray head start' running there?")
    found.append(port)
    if port.health == "bad":
        return found, []
    try:
        entrance.knock(environment)
        found.append(Finding("TLS with the head", "good", "both sides take each other's certificates, or want none"))
    except (PlanError, OSError) as error:
        return [*found, Finding("TLS with the head", "bad", str(error), "as the message says")], []
    if entrance.by_client:
        return found, []  # the head's other port would have to be open for more
    try:
        nodes = Node.alive(node_records(entrance.address))
    except (PlanError, ConnectionError) as error:
        return [*found, Finding("token at the head", "bad", str(error), "as the message says")], []
    found += [Finding("token at the head", "good", "it is taken"), _inline(entrance.address)]
    return [*found, *_members(entrance, nodes)], nodes


def between(nodes: Sequence[Node]) -> list[Finding]:
    """Returns which ports of the other nodes can be called from this machine, and how all nodes' certificates are."""
    others = [node for node in nodes if not local(node.address)]
    found = [
        _called(node.address, port, f"{node.name}, port {port}", f"let it in at {node.address}")
        for node in others
        for port in node.ports
    ]
    for node in others:
        if node.started and node.ports:
            ports = Ports(node.ports[0])
            found.append(
                _let_in(node, ports.lines, "doubtful", "let them in where a server or a compute party of an SPU runs")
            )
            found.append(
                _let_in(node, ports.calls, "bad", f"let them in at {node.address}: no party there can be called")
            )
    # This machine's own as well: renewed files do nothing for a node that was started with those of before.
    return found + [finding for node in nodes for finding in _certificate(node)]


def at_node(nodes: Sequence[Node], head: tuple[str, int]) -> NodeReport:
    """Returns everything that a node can find by itself; runs on the node.

    Args:
        nodes: The cluster's nodes.
        head: Where the cluster is called: host and port; port 0 where that is not known.
    """
    found = [*findings.software(), *findings.machine(), *findings.parties()]
    here = next((node.address for node in nodes if local(node.address)), None)
    found += [*findings.secured(Security.of(os.environ), here), findings.settings(os.environ)]
    if head[1] and not local(head[0]):
        found.append(_called(*head, f"head, port {head[1]}", f"let it in at {head[0]}"))
    return NodeReport((*found, *between(nodes)), time.time(), findings.versions())


def all_of(report: NodeReport, asked: float, answered: float) -> list[Finding]:
    """Returns what a node has found, and how it compares with this machine.

    Args:
        report: What it has said.
        asked: When it was asked, by this machine's clock.
        answered: When its answer had come.
    """
    compared = findings.differences(report.versions, findings.versions())
    return [*report.findings, *compared, clock(report, asked, answered)]


def clock(report: NodeReport, asked: float, answered: float) -> Finding:
    """Returns whether a node's clock agrees with this machine's.

    Args:
        report: What it has said.
        asked: When it was asked, by this machine's clock.
        answered: When its answer had come.
    """
    # Between the two it may say anything: a node takes seconds to start the process that answers.
    off = max(report.clock - answered, asked - report.clock, 0.0)
    if off <= _CLOCK_SECONDS:
        return Finding("clock", "good", "agrees with this machine's")
    side = "ahead of" if report.clock > answered else "behind"
    return Finding(
        "clock", "bad", f"{off:.0f} s {side} this machine's", "set both by the network: timedatectl set-ntp true"
    )


def _inline(address: str) -> Finding:
    """Returns whether a model of ordinary size travels in the call itself."""
    check = "inline limit"
    try:
        most = int(system_settings(address).get("max_direct_call_object_size", _RAY_INLINE_BYTES))
    except Exception as error:  # Ray's own words for it, which no interface promises
        return Finding(check, "doubtful", f"the head does not tell it: {reason(error)}", "start it with fedray")
    if most >= INLINE_BYTES:
        return Finding(check, "good", f"values of up to {most:,} bytes travel in the call itself")
    remedy = "start the head with 'fedray head start', or as deploy/README.md says"
    return Finding(check, "doubtful", f"{most:,} bytes: larger values, models too, take 15 ms more a round", remedy)


def _members(entrance: Entrance, nodes: Sequence[Node]) -> list[Finding]:
    found = []
    try:
        check_member(entrance, nodes)
        own_nodes(parties_of(nodes), nodes, entrance.address)
        found.append(Finding("nodes", "good" if nodes else "doubtful", listed(nodes)))
    except PlanError as error:
        found.append(Finding("nodes", "bad", str(error), "as the message says"))
    return found


def _let_in(node: Node, ports: tuple[int, int], health: findings.Health, remedy: str) -> Finding:
    """Returns whether a firewall stands before a node's ports at which somebody listens during sessions only.

    Args:
        node: The node.
        ports: The first and the last one.
        health: How bad it is if so.
        remedy: What to do then.
    """
    first, last = ports
    check = f"{node.name}, ports {first}-{last}"
    try:
        socket.create_connection((node.address, first), _CALL_SECONDS).close()
    except ConnectionRefusedError:
        pass  # its own kernel says so
    except OSError as error:
        said = f"{node.address}:{first} does not answer: {error.strerror or error}"
        return Finding(check, health, said, remedy)
    return Finding(check, "good", "its first port is reached, or refused (nobody listens outside of sessions)")


def _certificate(node: Node) -> list[Finding]:
    """Returns how long the certificate is good that a node runs with; nothing where it shows none."""
    shown = presented(node.address, node.ports[0], os.environ) if node.ports else None
    if shown is None:
        return []
    left, check = shown.left(), f"{node.name}, certificate"
    if left <= timedelta():
        return [Finding(check, "bad", f"ran out on {shown.until}", renewal([shown]))]
    health: findings.Health = "doubtful" if left < SOON else "good"
    return [Finding(check, health, f"good until {shown.until}", "" if health == "good" else renewal([shown]))]


def _called(host: str, port: int, check: str, remedy: str) -> Finding:
    try:
        socket.create_connection((host, port), _CALL_SECONDS).close()
        return Finding(check, "good", f"{host}:{port} answers")
    except OSError as error:
        said = error.strerror or str(error)
        return Finding(
            check, "bad", f"{host}:{port} does not answer: {said}", f"{remedy} (a firewall, a route, or nobody)"
        )
