# SPDX-License-Identifier: Apache-2.0
"""JoinedCluster: a cluster that is there already, joined and left again. Imports no Ray; it is handed what it needs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fedray.errors import PlanError
from fedray.runtime import diagnosis
from fedray.runtime.environment import Environment
from fedray.runtime.joining import Entrance, check_answers, check_member, check_secure
from fedray.runtime.local_cluster import RayProcess
from fedray.runtime.nodes.presented import check_presented
from fedray.runtime.own_nodes import Node, own_nodes
from fedray.runtime.ray_errors import reason, versions
from fedray.runtime.ray_interior import node_records, reread_authentication
from fedray.runtime.signals import held
from fedray.types import PartyName

_log = logging.getLogger("fedray")

_BIRTH_SECONDS = 15.0  # for a head that has just been started to have a node, its own
_TRIES = 3  # the process that a head starts for each ray:// driver can die on a busy machine


class JoinedCluster:
    """A cluster of somebody's. Its variables are this process's as long as it is joined.

    Args:
        ray: This process's Ray.
        address: As in `fedray.init`.
        insecure: As in `fedray.init`.
    """

    def __init__(self, ray: RayProcess, address: str, insecure: bool) -> None:
        self._ray, self._address, self._insecure = ray, address, insecure
        self._environment = Environment()
        self._entrance: Entrance | None = None
        self._joined = False

    def start(self, own: Sequence[PartyName], show_output: bool) -> None:
        """Joins it, or takes the one that this process is in.

        Args:
            own: The parties that need a node of their own there.
            show_output: Whether what parties print is shown at the driver.

        Raises:
            PlanError: It cannot be reached, or not safely, lacks a party's node, or this machine is no node of it.
        """
        if self._ray.is_initialized():
            if self._address != "auto":
                raise PlanError("Ray is running in this process already; use address='auto' to run on it")
            self._entrance = Entrance(self._ray.address())
            self._look(self._entrance, self._ray.nodes(), own)
            return
        entrance = self._entrance = Entrance.of(self._address, os.environ)
        try:
            self._environment.set(entrance.variables)
            reread_authentication()  # this process may have imported Ray before
            self._join(entrance, own, show_output)
        except BaseException:
            self.stop()
            raise

    def _join(self, entrance: Entrance, own: Sequence[PartyName], show_output: bool) -> None:
        check_secure(entrance, [], os.environ, self._insecure)
        for left in reversed(range(_TRIES)):
            with held("Ray connects"):
                try:
                    self._join_once(entrance, own, show_output)
                    break
                except PlanError:
                    raise
                except (Exception, SystemExit) as error:  # Ray exits where it meets a cluster of another kind
                    self._ray.shutdown()
                    if left and "Initialization failure" in str(error):
                        continue
                    if other := versions(str(error)):
                        raise PlanError(f"address={self._address!r}: {other}") from error
                    # A port that is closed says so itself; what Ray says is seldom the cause.
                    cause = "" if isinstance(error, OSError) else self.looked_over()
                    raise PlanError(
                        f"no Ray cluster can be reached at address={self._address!r} ({reason(error)}{cause}); start "
                        "one with 'fedray head start', or use address='local'"
                    ) from error
        if entrance.by_client:
            self._look(entrance, self._ray.nodes(), own)

    def _join_once(self, entrance: Entrance, own: Sequence[PartyName], show_output: bool) -> None:
        entrance.knock(os.environ)
        if not entrance.by_client and entrance.port:
            # Before Ray is begun: what it makes of a wrong token or a missing node takes it a minute to say.
            found = _records(entrance.address)
            self._look(entrance, found, own)
            check_member(entrance, Node.alive(found))
        self._joined = True
        self._ray.init(entrance.address, show_output)

    def _look(self, entrance: Entrance, found: Sequence[Mapping[str, Any]], own: Sequence[PartyName]) -> None:
        nodes = Node.alive(found)
        check_secure(entrance, nodes, os.environ, self._insecure)
        places = own_nodes(own, nodes, entrance.address, Node.gone(found))
        # From outside the cluster (ray://) the nodes' own ports may well be closed.
        if not entrance.by_client:
            check_answers(places)
            for line in check_presented(_called(entrance, places), os.environ):
                _log.warning("%s", line)

    def looked_over(self) -> str:
        """Returns what `fedray doctor` finds wrong on the way to it and between its nodes; empty for nothing."""
        if self._entrance is None:
            return ""
        found, nodes = diagnosis.way(self._entrance, os.environ)
        bad = [each for each in (*found, *diagnosis.between(nodes)) if each.health == "bad"]
        return "".join(f"; {each.check}: {each.found} ({each.remedy})" for each in bad)

    def stop(self) -> None:
        """Leaves it. Harmless when it is not joined; a Ray that the user has begun goes on."""
        if self._joined:
            self._joined = False
            self._ray.shutdown()
        self._environment.restore()
        reread_authentication()


def _called(entrance: Entrance, places: Mapping[PartyName, Sequence[Node]]) -> dict[str, tuple[str, int]]:
    """Returns where the head and each party's node are called; one that is both, once."""
    likeliest = {f"party {party!r}": nodes[0] for party, nodes in places.items()}
    called = {whose: (node.address, node.ports[0]) for whose, node in likeliest.items() if node.ports}
    if entrance.port and entrance.host not in {host for host, _ in called.values()}:
        called["the head"] = entrance.host, entrance.port
    return called


def _records(address: str) -> list[dict[str, Any]]:
    """Returns Ray's records of a cluster's nodes; a head answers a few seconds before it has its own."""
    deadline = time.monotonic() + _BIRTH_SECONDS
    while not Node.alive(found := node_records(address)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
