# SPDX-License-Identifier: Apache-2.0
"""SPU, several parties that compute on shares, as the driver's notation sees it.

Describes one and checks the description. Using it needs additive sharing, which this version does not have: every use
is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from fedray.errors import PlanError
from fedray.runtime.session import running
from fedray.types import PartyName


@dataclass(frozen=True)
class SPU:
    """Several parties that compute on shares of values none of them sees.

    Args:
        cluster_def: `{"nodes": [{"party": "alice", "address": "127.0.0.1:9100"}, ...], "runtime_config": {...}}`, as
            `sf.utils.testing.cluster_def` makes it.

    Raises:
        PlanError: The definition is not of this form, or names a party that the session does not have.
    """

    cluster_def: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.cluster_def, Mapping) or "nodes" not in self.cluster_def:
            raise PlanError(f"SPU: expected a dict with 'nodes', found {self.cluster_def!r}")
        nodes = self.cluster_def["nodes"]
        if not isinstance(nodes, list | tuple) or len(nodes) < 2:
            raise PlanError(f"SPU: expected at least two nodes, found {nodes!r}")
        for node in nodes:
            if not isinstance(node, Mapping) or not isinstance(node.get("party"), str):
                raise PlanError(f"SPU: expected nodes such as {{'party': 'alice', 'address': ...}}, found {node!r}")
        if len(set(self.parties)) != len(self.parties):
            raise PlanError(f"SPU: a party is named twice in {', '.join(self.parties)}")
        session = running()
        if session is not None:
            for party in self.parties:
                session.check(party)

    @property
    def parties(self) -> tuple[PartyName, ...]:
        """Names of the parties whose processes hold the shares."""
        return tuple(node["party"] for node in self.cluster_def["nodes"])

    def __repr__(self) -> str:
        return f"SPU({', '.join(self.parties)})"

    def __hash__(self) -> int:
        return hash(self.parties)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002 (every use is refused)
        """Refuses.

        Raises:
            PlanError: Always.
        """
        self.refuse()

    def refuse(self) -> NoReturn:
        """Says that this version cannot compute on shares.

        Raises:
            PlanError: Always.
        """
        raise PlanError(f"{self!r}: computing on shares comes with the SPU; until then use SecureAggregator for sums")


class SPUObject:
    """The name of a value that an SPU holds in shares. None can exist before the SPU does."""

    device: SPU

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 (whatever is passed, it is refused)
        raise PlanError("SPUObject: a handle on shared values comes with the SPU; it is never made by hand")
