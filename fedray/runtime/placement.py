# SPDX-License-Identifier: Apache-2.0
"""What parties ask of a cluster, and whether it has it.

Sees plain dicts and imports no Ray. It looks before Ray does, since Ray waits without a word for what is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from fedray.types import PartyConfig, PartyName

Resources: TypeAlias = Mapping[str, float]

# Ray takes these three under names of their own, and refuses them among its `resources`.
_OWN_OPTION: Mapping[str, str] = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}


def options(config: PartyConfig) -> dict[str, Any]:
    """Returns the options under which a party's process is started."""
    wanted = dict(config.resources or {})
    # A party that asks for nothing takes no CPU: parties mostly wait for each other, and ten of them should fit on a
    # laptop with two cores.
    chosen: dict[str, Any] = {"num_cpus": 0}
    chosen |= {option: wanted.pop(kind) for kind, option in _OWN_OPTION.items() if kind in wanted}
    return chosen | ({"resources": wanted} if wanted else {})


def threads_by_default(config: PartyConfig) -> int:
    """Returns how many compute threads Ray gives a process by itself."""
    # Ray sets OMP_NUM_THREADS to the number of CPUs that an actor asks for, and to 1 for one that asks for none.
    return max(1, int((config.resources or {}).get("CPU", 0)))


def custom(parties: Mapping[PartyName, PartyConfig]) -> dict[str, float]:
    """Returns what parties ask for by names that Ray does not know, all together: a local cluster offers it."""
    total: dict[str, float] = {}
    for config in parties.values():
        for kind, amount in (config.resources or {}).items():
            if kind not in _OWN_OPTION:
                total[kind] = total.get(kind, 0) + amount
    return total


def shortage(parties: Mapping[PartyName, PartyConfig], nodes: Sequence[Resources]) -> str | None:
    """Returns what the cluster lacks, or None.

    Args:
        parties: What each party asks for.
        nodes: What each host of the cluster has in all.
    """
    total: dict[str, float] = {}
    for name, config in parties.items():
        wanted = config.resources or {}
        # One host has to have all that a party asks for; what is left over on two hosts adds up to nothing.
        if not any(all(node.get(kind, 0) >= amount for kind, amount in wanted.items()) for node in nodes):
            return f"party {name!r} asks for {listed(wanted)}; no host has that, the hosts have {_hosts(nodes, wanted)}"
        for kind, amount in wanted.items():
            total[kind] = total.get(kind, 0) + amount
    # Only the sums are compared, not which party fits where. Ray finds that out when it starts them.
    for kind, amount in total.items():
        there = sum(node.get(kind, 0) for node in nodes)
        if amount > there:
            return f"the parties together ask for {amount:g} {kind}, and the cluster has {there:g}"
    return None


def listed(resources: Resources) -> str:
    """Returns resources as text, e.g. `"1 CPU, 1 alice"`."""
    return ", ".join(f"{amount:g} {kind}" for kind, amount in sorted(resources.items())) or "nothing"


def _hosts(nodes: Sequence[Resources], kinds: Resources) -> str:
    return "; ".join(listed({kind: node.get(kind, 0) for kind in kinds}) for node in nodes) or "not been found"
