# SPDX-License-Identifier: Apache-2.0
"""`fedray doctor`: looks at this machine, the way to its cluster and, if asked, at every node.

A verdict and a remedy for each thing. Changes nothing. Exit codes: 0 nothing is bad, 1 something is.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedray.errors import PlanError
from fedray.party.house.turns import home
from fedray.runtime import diagnosis
from fedray.runtime.environment import Environment
from fedray.runtime.joining import Entrance
from fedray.runtime.nodes import findings
from fedray.runtime.nodes.findings import Finding, as_plain
from fedray.runtime.nodes.launch import Security
from fedray.runtime.nodes.record import records
from fedray.runtime.own_nodes import Node
from fedray.runtime.ray_interior import reread_authentication

_MARKS = {"good": "ok", "doubtful": "look at this", "bad": "WRONG"}
_HERE = "this machine"


def add_arguments(commands: Any) -> None:
    """Adds `doctor` to the command line.

    Args:
        commands: What `argparse` calls the sub-parsers' action.
    """
    doctor = commands.add_parser(
        "doctor",
        help="look for what is wrong on this machine, on the way to a cluster, or on every node",
        description="Looks at versions, memory, the parties' files, token and certificate on this machine, and at each "
        "step of the way to a cluster: name, port, TLS, token, nodes, their ports. Changes nothing.",
    )
    doctor.add_argument(
        "address",
        nargs="?",
        metavar="ADDRESS",
        help="of the cluster, HOST:PORT or ray://HOST:PORT; without it, that of your node on this machine",
    )
    doctor.add_argument("--everywhere", action="store_true", help="let every node look as well, and compare the clocks")
    doctor.add_argument("--token", type=Path, metavar="FILE", help="the cluster's token (~/.fedray/token)")
    doctor.add_argument("--tls", type=Path, metavar="DIR", help="a certificate, on a machine without a node")
    doctor.add_argument("--insecure", action="store_true", help="look at a cluster without token or TLS all the same")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON only")


def run(options: argparse.Namespace) -> int:
    """Looks, prints, and returns the exit code."""
    found = {_HERE: [*findings.software(), *findings.machine(), *findings.parties()]}
    changed = Environment()
    try:
        if options.token or options.tls:
            given = _given(options)
            changed.set(given.variables())
            found[_HERE] += findings.secured(given, None)
        for record in records():
            if record.runs:
                own = findings.secured(record.security, record.ip)
                # Whose they are: a machine has several nodes, or others are asked for on the command line.
                found[_HERE] += [replace(each, check=f"{record.name}: {each.check}") for each in own]
        found |= _cluster(options, changed)
    finally:
        changed.restore()
        reread_authentication()
    if options.json:
        print(json.dumps({where: [as_plain(each) for each in list_] for where, list_ in found.items()}, indent=2))
    else:
        print("\n\n".join(_shown(where, list_) for where, list_ in found.items()))
    return 1 if any(each.health == "bad" for list_ in found.values() for each in list_) else 0


def _given(options: argparse.Namespace) -> Security:
    """Returns what the command line names; a token that it does not name is where a node's would be."""
    token, tls = (path and path.expanduser().absolute() for path in (options.token, options.tls))
    usual = home() / "token"
    return Security(token or (usual if os.path.lexists(usual) else None), tls)


def _cluster(options: argparse.Namespace, changed: Environment) -> Mapping[str, list[Finding]]:
    try:
        entrance = Entrance.of(options.address or "auto", os.environ)
    except PlanError as error:
        # A machine on which nothing was started yet is not ill.
        return {"cluster": [Finding("address", "doubtful", str(error), "name the head: fedray doctor HOST:PORT")]}
    changed.set(entrance.variables)
    reread_authentication()
    way, nodes = diagnosis.way(entrance, os.environ)
    found = {f"way to {entrance.address}": [*way, *diagnosis.between(nodes)]}
    if options.everywhere and all(each.health != "bad" for each in way):
        found |= _everywhere(options, entrance, nodes)
    return found


def _everywhere(options: argparse.Namespace, entrance: Entrance, nodes: Sequence[Node]) -> Mapping[str, list[Finding]]:
    from fedray.runtime.ray import on_every_node  # only here: the other checks need no Ray that runs

    asked = time.time()
    head = (entrance.host, 0 if entrance.by_client else entrance.port)
    answers = on_every_node(options.address or "auto", options.insecure, diagnosis.at_node, list(nodes), head)
    answered = time.time()
    found: dict[str, list[Finding]] = {}
    for name, answer in answers.items():
        if isinstance(answer, diagnosis.NodeReport):
            found[f"node {name}"] = diagnosis.all_of(answer, asked, answered)
        else:
            # Ray says of a process that it cannot call only that it died.
            remedy = (
                "a firewall there may stand before its ports (deploy/README.md, Ports): look with 'fedray doctor' on "
                "another node; or it has another fedray: install the same, and start its node again"
            )
            found[f"node {name}"] = [Finding("answer", "bad", str(answer), remedy)]
    return found


def _shown(where: str, found: Sequence[Finding]) -> str:
    width = max((len(each.check) for each in found), default=0)
    lines = [where]
    for each in found:
        lines.append(f"  {_MARKS[each.health]:<12}  {each.check:<{width}}  {each.found}")
        if each.remedy:
            lines.append(f"  {'':<12}  {'':<{width}}  -> {each.remedy}")
    return "\n".join(lines)
