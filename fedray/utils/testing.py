# SPDX-License-Identifier: Apache-2.0
"""Cluster definitions for trying things out on one machine.

Knows the shape of an SPU's cluster definition, as `spu` and SecretFlow write it, in plain values. Starts nothing and
imports no `spu`.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from fedray.errors import PlanError

_RUNTIME_CONFIG: Mapping[str, Any] = {"protocol": "SEMI2K", "field": "FM128", "fxp_fraction_bits": 18}

_PORTS = range(20_000, 32_768)
"""Ports to choose from: below those that systems give to outgoing connections, which could take one at any moment."""


def cluster_def(parties: Sequence[str], runtime_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the definition of an SPU whose nodes are these parties, all on this machine.

    The ports were free when this was called. They are not kept, so another program may take one before the SPU does.

    Args:
        parties: Names of the parties, at least two.
        runtime_config: Settings to change, e.g. `{"field": "FM64"}`; the others keep their defaults: protocol SEMI2K
            in the ring FM128 (integers mod 2^128), 18 fraction bits.

    Returns:
        `{"nodes": [{"party": "alice", "address": "127.0.0.1:40123"}, ...], "runtime_config": {...}}`.

    Raises:
        PlanError: Fewer than two parties, a name twice, or something that is not a name.

    Example:
        >>> definition = sf.utils.testing.cluster_def(["alice", "bob"], {"field": "FM64"})
        >>> [node["party"] for node in definition["nodes"]]
        ['alice', 'bob']
        >>> definition["runtime_config"]
        {'protocol': 'SEMI2K', 'field': 'FM64', 'fxp_fraction_bits': 18}
    """
    if isinstance(parties, str) or any(not isinstance(party, str) or not party for party in parties):
        raise PlanError(f"parties={parties!r}: expected a list of party names, e.g. ['alice', 'bob']")
    if len(parties) < 2:
        raise PlanError(f"parties={list(parties)}: expected at least two; one node alone cannot hold shares")
    if len(set(parties)) != len(parties):
        raise PlanError(f"parties={list(parties)}: a party is named twice")
    ports = _free_ports(len(parties))
    return {
        "nodes": [{"party": party, "address": f"127.0.0.1:{port}"} for party, port in zip(parties, ports, strict=True)],
        "runtime_config": {**_RUNTIME_CONFIG, **(runtime_config or {})},
    }


def _free_ports(count: int) -> list[int]:
    """Returns `count` different free TCP ports of 127.0.0.1, all held at once while they are picked."""
    found: list[int] = []
    with ExitStack() as stack:
        # At random, so that two programs that start at once seldom try the same; the system's own source, so that a
        # user's `random.seed` does not make them.
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                break
            with contextlib.suppress(OSError):  # somebody listens there
                # Held until all are found, or one port could be found twice.
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found
