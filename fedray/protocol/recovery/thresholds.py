# SPDX-License-Identifier: Apache-2.0
"""What sums that survive dropouts must satisfy: a Config's graph and counts, proposed and checked (SECAGG section 10).

Knows counts only. Both ends build a round's neighbourhoods here, so that nobody has to be told them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fedray.errors import PlanError, ProtocolError
from fedray.protocol.config import Config, Encoding, GraphRule
from fedray.protocol.crypto.graph import (
    CHOSEN_UP_TO,
    COMPLETE_UP_TO,
    Graph,
    check_sparse,
    complete_graph,
    permutation,
    sparse_graph,
)
from fedray.protocol.crypto.keys import Roster, kdf
from fedray.protocol.crypto.keystream import CHUNK_BYTES, Keystream, scratch
from fedray.protocol.messages import enc
from fedray.types import PartyName, Round

SESSION_ROUNDS = 1 << 14
"""Most rounds of one session on a sparse graph: the degree is computed for so many chances to fall apart."""

SET_UP_ATTEMPTS = 16
"""Set-ups of one roster that a party joins; whoever confirms last may end those whose graph it dislikes."""

DROPOUT_SHARE = 10
"""A sparse graph tolerates one dropped party in so many, by default."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a set of survivors must satisfy.

    Attributes:
        graph: Who is masked with whom.
        colluders: T.
        least_members: Fewest survivors: n_min, t_sig and T + 2.
        signatures: t_sig, fewest signers.
    """

    graph: Graph
    colluders: int
    least_members: int
    signatures: int

    @classmethod
    def of(cls, config: Config) -> Thresholds:
        """Returns the thresholds that a Config states.

        Raises:
            ProtocolError: It states no possible graph, or weaker thresholds than section 10 computes.
        """
        graph = _stated(config)
        if config.t_share > graph.degree + 1 or config.dropouts > config.parties - config.least_members:
            raise ProtocolError(
                f"Config refused: t_share {config.t_share} of {graph.degree + 1} holders, or {config.dropouts} "
                f"dropouts of {config.parties} parties with at least {config.least_members} survivors, cannot work"
            )
        if not graph.complete:
            check_sparse(graph, config.colluders, SESSION_ROUNDS * SET_UP_ATTEMPTS)
        return cls(graph, config.colluders, config.least_members, config.t_sig)

    def check_survivors(self, members: Collection[int], ring: Sequence[int]) -> None:
        """Checks whether a set of survivors may be opened.

        Args:
            members: Indices of U, each once.
            ring: The round's permutation.

        Raises:
            ProtocolError: It is too small, too many dropped out, or some party's secrets could not be reconstructed.
        """
        if len(members) < self.least_members:
            raise ProtocolError(f"{len(members)} survivors, expected at least {self.least_members}")
        dropped = self.graph.parties - len(members)
        if dropped > self.graph.dropouts:
            raise ProtocolError(f"{dropped} parties dropped out, this party accepts at most {self.graph.dropouts}")
        holders = self.graph.holders(ring, members)
        if holders.min() < self.graph.share_threshold:
            raise ProtocolError(
                f"{holders.min()} survivors hold shares of party {holders.argmin()}, expected at least "
                f"{self.graph.share_threshold}"
            )


def propose(
    roster: Roster,
    receivers: Sequence[PartyName],
    encoding: Encoding,
    *,
    colluders: int | None = None,
    n_min: int | None = None,
    dropouts: int | None = None,
    chosen: bool | None = None,
    batch: int = 64,
) -> Config:
    """Returns the Config of a session with recovery, with the smallest graph that is safe.

    Args:
        roster: The parties that contribute.
        receivers: The server.
        encoding: How numbers become words.
        colluders: T; by default max(1, floor((n - 1) / 3)), or 0 for two parties.
        n_min: Fewest inputs in an opened sum; by default 3.
        dropouts: D, most parties that may drop out of one round; by default as many as the quorum allows on the
            complete graph, and n / 10 on a sparse one.
        chosen: Whether the coordinator may choose who drops out; by default up to 200 parties.
        batch: Rounds that one key set-up serves.

    Raises:
        PlanError: The settings do not fit together.
    """
    config = Config.propose("recovery", roster, receivers, encoding, colluders=colluders, n_min=n_min)
    n = config.parties
    if dropouts is not None and not 0 <= dropouts <= config.dropouts:
        raise PlanError(f"{n} parties: dropouts must be 0 to {config.dropouts}, found {dropouts}")
    # Below that size a sparse graph that is safe has hardly fewer edges than the complete one.
    if n <= COMPLETE_UP_TO:
        return replace(config, batch=batch, dropouts=config.dropouts if dropouts is None else dropouts)
    most = min(config.dropouts, n // DROPOUT_SHARE) if dropouts is None else dropouts
    safe = n <= CHOSEN_UP_TO if chosen is None else chosen
    graph = _computed(n, config.colluders, most, chosen=safe)
    rule: GraphRule = "chosen" if safe else "random"
    return replace(config, graph=rule, degree=graph.degree, t_share=graph.share_threshold, dropouts=most, batch=batch)


@lru_cache(maxsize=256)
def ring_of(graph: Graph, gseed: bytes, sid: bytes, number: Round) -> tuple[int, ...]:
    """Returns the permutation of one round, the same for everybody; empty for the complete graph.

    Args:
        graph: Who is masked with whom.
        gseed: Seed of the session's graphs, which nobody chose.
        sid: Session id.
        number: Round.
    """
    if graph.complete:
        return ()
    # From a seed that nobody knew before all had committed: else the last one would choose its neighbours.
    key = kdf(gseed, sid, enc("perm", number))
    return permutation(graph.parties, lambda count: _words(key, count))


def _words(key: bytes, count: int) -> list[int]:
    stream, buffer, words = Keystream(key), scratch(), np.empty(0, "<u8")
    while len(words) < count:
        stream.fill(buffer, CHUNK_BYTES)
        words = np.concatenate([words, buffer[:CHUNK_BYTES].view("<u8")])
    return [int(word) for word in words[:count]]


def _stated(config: Config) -> Graph:
    n = config.parties
    if config.scheme != "recovery":
        raise ProtocolError(f"Config refused: scheme is {config.scheme!r}, expected 'recovery'")
    if config.graph == "complete":
        if config.degree != n - 1 or config.t_share <= config.colluders:
            raise ProtocolError(
                f"Config refused: a complete graph of {n} has degree {n - 1} and t_share above {config.colluders}, "
                f"found {config.degree} and {config.t_share}"
            )
        return complete_graph(n, config.t_share, config.dropouts)
    if config.degree % 2 or not 2 <= config.degree < n - 1:
        raise ProtocolError(f"Config refused: a sparse graph of {n} has an even degree, found {config.degree}")
    return Graph(n, config.degree, config.t_share, config.dropouts, chosen=config.graph == "chosen")


def _computed(parties: int, colluders: int, dropouts: int, *, chosen: bool) -> Graph:
    exposures = SESSION_ROUNDS * SET_UP_ATTEMPTS
    return sparse_graph(parties, colluders, dropouts, chosen=chosen, exposures=exposures)
