# SPDX-License-Identifier: Apache-2.0
"""The ports of a node, all of them fixed, and who has to reach them. Pure.

Ray takes random ports by itself, for which no firewall can have a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedray.errors import PlanError

HEAD = 6379
"""Where a cluster's head is called by the other nodes."""

CLIENT = 10001
"""Where a head is called by drivers on machines that are no nodes (`ray://`)."""

FIRST = 20000
"""First port of a node's block; below those that Linux gives out by itself (from 32768 on)."""

WIDTH = 1000
"""Ports of a block. A second node on the same address begins so much higher."""

_LINES, _LAST_LINE = 10, 99  # in the block: a port for each party of it that serves a session
_WORKERS = 100  # from here on in the block: one port for each process of a worker, of a party or of a driver
_LAST = 65535


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """One line of a firewall's table.

    Attributes:
        ports: A port, or the first and the last one, e.g. `"20100-20999"`.
        callers: Which machines have to reach them.
        what: What answers there.
    """

    ports: str
    callers: str
    what: str


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one node.

    Attributes:
        first: First port of its block.
        head: Port of the cluster's head, where this node is it; else None.
        client: Port for drivers elsewhere, at a head.

    Raises:
        PlanError: A port is none, or two are the same.
    """

    first: int = FIRST
    head: int | None = None
    client: int = CLIENT

    def __post_init__(self) -> None:
        if not 1024 <= self.first <= _LAST - WIDTH + 1:
            raise PlanError(f"--ports-from: expected 1024 to {_LAST - WIDTH + 1}, found {self.first}")
        if self.head is None:
            return
        for option, port in (("--port", self.head), ("--client-port", self.client)):
            if not 1 <= port <= _LAST:
                raise PlanError(f"{option}: expected a port from 1 to {_LAST}, found {port}")
            if self.first <= port < self.first + WIDTH:
                raise PlanError(
                    f"{option}: {port} lies in the block {self.first}-{self.first + WIDTH - 1} of --ports-from; take "
                    "another one"
                )
        if self.head == self.client:
            raise PlanError(f"--port and --client-port: expected two different ports, found {self.head} twice")

    @property
    def single(self) -> tuple[int, ...]:
        """The ports that have to be free when the node starts, without those of processes that come later."""
        heads = () if self.head is None else (self.head, self.client)
        return (*heads, *range(self.first, self.first + 6))

    @property
    def lines(self) -> tuple[int, int]:
        """The first and the last port at which its parties are called by those of other nodes."""
        return self.first + _LINES, self.first + _LAST_LINE

    @property
    def calls(self) -> tuple[int, int]:
        """The first and the last port at which Ray calls its parties, and a driver there."""
        return self.first + _WORKERS, self.first + WIDTH - 1

    def options(self) -> list[str]:
        """Returns the options of `ray start` that fix them."""
        first = self.first
        # The three agents' as well, though nobody calls them from outside: with ports of chance Ray waits for files
        # that tell them, and gives up after 15 s on a busy machine.
        named = {
            "node-manager-port": first,
            "object-manager-port": first + 1,
            "runtime-env-agent-port": first + 2,
            "dashboard-agent-grpc-port": first + 3,
            "dashboard-agent-listen-port": first + 4,
            "metrics-export-port": first + 5,
            "min-worker-port": self.calls[0],
            "max-worker-port": self.calls[1],
        }
        if self.head is not None:
            named |= {"port": self.head, "ray-client-server-port": self.client}
        return [f"--{name}={port}" for name, port in named.items()]

    def firewall(self) -> list[FirewallRule]:
        """Returns what a firewall has to let in."""
        first = self.first
        rows = [
            FirewallRule(f"{first}", "every node", "Ray's node manager"),
            FirewallRule(f"{first + 1}", "every node", "Ray's object manager"),
            FirewallRule("{}-{}".format(*self.calls), "every node", "the parties, and a driver on this node"),
        ]
        of_lines = FirewallRule(
            "{}-{}".format(*self.lines),
            "parties' nodes",
            "lines: what a server or compute party here is sent, and .to()",
        )
        rows.append(of_lines)
        if self.head is not None:
            rows.insert(0, FirewallRule(f"{self.head}", "every node", "the head"))
            rows.append(FirewallRule(f"{self.client}", "drivers on no node", "ray:// (close it if there are none)"))
        return rows


def table(rules: Sequence[FirewallRule]) -> str:
    """Returns a firewall's table as text for people."""
    rows = [
        ("TCP port", "let in from", "what answers there"),
        *[(row.ports, row.callers, row.what) for row in rules],
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
