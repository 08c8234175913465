# SPDX-License-Identifier: Apache-2.0
"""What `ray start` is called with, so that a node is as fedray needs it. Pure; runs nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedray.party.house.in_force import VARIABLE as PARTY_FILE
from fedray.party.keys.credentials import VARIABLE as KEYS
from fedray.runtime.environment import KEEPALIVE_MS, LOOPBACK
from fedray.runtime.far.lines import VARIABLE as LINES
from fedray.runtime.nodes.ports import Ports
from fedray.types import PartyName

PARTY_LABEL = "party"
"""Label of a node: whose it is."""

STARTED_LABEL = "fedray-started"
"""Label of a node: when it was started, in milliseconds since 1970. Of two records of one node the later one counts."""

INLINE_BYTES = 1 << 20
"""Largest value that travels in a call itself; by way of the object store a model of 36 thousand parameters costs 20 ms
a round in place of 5."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")  # what Ray takes for a label's value

_DEAD_AFTER = {
    # In so many words, the same on every host. A link that is cut for half a minute must not cost a party: a node
    # that Ray has given up ends, with everything in it, although its machine is well. With these it takes a minute.
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "5",
    # Nor its connections: Ray ends one by itself after 20 s without a word, and what was called over it is lost.
    "RAY_grpc_keepalive_timeout_ms": KEEPALIVE_MS,
}

RAY_SETTINGS: Mapping[str, str] = {
    **_DEAD_AFTER,
    # A slow link: after 10 s, Ray's own limit, it would send a value again that is still on its way.
    "RAY_object_manager_pull_timeout_ms": "600000",
    # By itself Ray lets every other program of the machine go before a party.
    "RAY_worker_niceness": "0",
    # It ends processes when the machine runs short of memory, whichever they are: a party would be lost for what
    # another program takes. party.toml has a limit for the party itself.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
"""Variables that every node of a cluster is started with, whatever its security."""


@dataclass(frozen=True, slots=True)
class Security:
    """What keeps strangers out of a cluster.

    Attributes:
        token: File with the cluster's token; None for none.
        tls: Folder with `ca.crt`, `node.crt` and `node.key`; None for none.
    """

    token: Path | None
    tls: Path | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Security:
        """Returns what a process runs under, by its variables.

        Args:
            environment: Those of the process.
        """
        token = environment.get("RAY_AUTH_TOKEN_PATH") if environment.get("RAY_AUTH_MODE", "") == "token" else None
        tls = environment.get("RAY_TLS_SERVER_CERT") if environment.get("RAY_USE_TLS") == "1" else None
        return cls(Path(token) if token else None, Path(tls).parent if tls else None)

    def variables(self) -> dict[str, str]:
        """Returns Ray's variables for it, the same for a node and for a driver."""
        # "disabled" in so many words: Ray would otherwise make a token of its own and write it into the user's home.
        found = {"RAY_AUTH_MODE": "disabled", "RAY_USE_TLS": "0"}
        if self.token is not None:
            # The file and not the token: what is in a variable is inherited by every program that a party starts.
            found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}
        if self.tls is not None:
            found |= {
                "RAY_USE_TLS": "1",
                "RAY_TLS_SERVER_CERT": str(self.tls / "node.crt"),
                "RAY_TLS_SERVER_KEY": str(self.tls / "node.key"),
                "RAY_TLS_CA_CERT": str(self.tls / "ca.crt"),
            }
        return found


@dataclass(frozen=True, slots=True)
class Launch:
    """One node, as it is to be started.

    Attributes:
        name: What it is called in lists of nodes: its party's name, or `"head"`.
        party: Whose node it is; None for a head that is nobody's.
        ip: Its own address.
        head: Where the cluster's head is, `"host:port"`; None where this node is it.
        ports: Its ports.
        folder: Where Ray's files go, in a folder that only the user may enter.
        started: Milliseconds since 1970.
        security: Token and TLS.
        party_file: The party's `party.toml`.
        keys: The party's key folder.
        cpus: How many processors are offered; None for all.
        store_bytes: Size of Ray's shared memory; None for Ray's choice.
        autoscaling: At a head that Ray's cluster launcher starts, the file that it has put there.
        asked: The command line of `fedray` that asks for it, whole, for people.
    """

    name: str
    party: PartyName | None
    ip: str
    head: str | None
    ports: Ports
    folder: Path
    started: int
    security: Security
    party_file: Path | None = None
    keys: Path | None = None
    cpus: int | None = None
    store_bytes: int | None = None
    autoscaling: Path | None = None
    asked: str = ""

    @property
    def address(self) -> str:
        """Where the cluster is called."""
        return self.head or f"{self.ip}:{self.ports.head}"

    def command(self, ray: str) -> list[str]:
        """Returns the command line; `ray` is the path of Ray's executable."""
        labels = {STARTED_LABEL: str(self.started)}
        if self.party is not None:
            labels[PARTY_LABEL] = label_of(self.party)
        line = [ray, "start", "--block", "--disable-usage-stats", "--log-color=false", f"--node-name={self.name}"]
        line += [f"--node-ip-address={self.ip}", f"--temp-dir={self.folder}", *self.ports.options()]
        line.append("--labels=" + ",".join(f"{name}={value}" for name, value in labels.items()))
        if self.party is not None:
            # Beside the label, for those who place their own actors by resources.
            line.append(f"--resources={json.dumps({self.party: 1})}")
        if self.head is None:
            settings = json.dumps({"max_direct_call_object_size": INLINE_BYTES})
            line += ["--head", "--include-dashboard=false", f"--system-config={settings}"]
            line += [] if self.autoscaling is None else [f"--autoscaling-config={self.autoscaling}"]
        else:
            line.append(f"--address={self.head}")
        if self.cpus is not None:
            line.append(f"--num-cpus={self.cpus}")
        if self.store_bytes is not None:
            line.append(f"--object-store-memory={self.store_bytes}")
        return line

    def variables(self, mark: Mapping[str, str]) -> dict[str, str]:
        """Returns the variables that are set for it.

        Args:
            mark: By what its processes are found again.
        """
        found = {**RAY_SETTINGS} | self.security.variables() | dict(mark)
        found[LINES] = "{} {}-{}".format(self.ip, *self.ports.lines)
        if on_loopback(self.ip):
            # Else Ray puts the address of the network in the place of the loopback one, and listens there.
            found[LOOPBACK] = "0"
        if self.party_file is not None:
            found[PARTY_FILE] = str(self.party_file)
        if self.keys is not None:
            found[KEYS] = str(self.keys)
        return found


def label_of(party: PartyName) -> str:
    """Returns the value of a node's label for a party: its name, or a hash of one that Ray does not take."""
    return party if _LABEL.fullmatch(party) else "x-" + hashlib.sha256(party.encode()).hexdigest()[:32]


def on_loopback(ip: str) -> bool:
    """Returns whether an address reaches no other machine."""
    return ip.startswith("127.") or ip in ("::1", "localhost")
