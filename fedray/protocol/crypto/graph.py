# SPDX-License-Identifier: Apache-2.0
"""Who is masked with whom: the complete graph, or a Harary graph whose degree is computed.

Knows counts and probabilities. Does not know keys, rounds' contents nor messages; the permutation of a round's ring is
drawn from keystream words that the caller supplies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from fedray.errors import PlanError, ProtocolError

COMPLETE_UP_TO = 32
"""Rosters up to this size use the complete graph."""

CHOSEN_UP_TO = 200
"""Rosters up to this size are safe against dropouts that a malicious coordinator chooses."""

PRIVACY_BITS = 41
LIVENESS_BITS = 20

DrawWords = Callable[[int], Sequence[int]]
"""How many -> that many 64-bit words; a longer request begins with the words of a shorter one."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The neighbourhoods' parameters, the same for all rounds of a session.

    Attributes:
        parties: Size n of the roster.
        degree: Neighbours of each party; n - 1 for the complete graph.
        share_threshold: Shares that reconstruct a secret, t_share.
        dropouts: Largest number of dropped parties a party accepts in one round.
        chosen: Whether privacy holds where the coordinator chooses who drops out, after it has seen the graph.
    """

    parties: int
    degree: int
    share_threshold: int
    dropouts: int
    chosen: bool

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree == self.parties - 1

    def neighbours(self, ring: Sequence[int], party: int) -> tuple[int, ...]:
        """Returns the sorted neighbours of one party.

        Args:
            ring: Permutation of the indices; ignored by the complete graph.
            party: Index of the party.
        """
        n = self.parties
        if self.complete:
            return tuple(j for j in range(n) if j != party)
        place, reach = ring.index(party), self.degree // 2
        return tuple(sorted(ring[(place + s) % n] for s in range(-reach, reach + 1) if s))

    def holders(self, ring: Sequence[int], members: Collection[int]) -> NDArray[np.int64]:
        """Returns, for each party, how many of the members are neighbours of it or the party itself.

        Args:
            ring: Permutation of the indices; ignored by the complete graph.
            members: Indices, each once.

        Returns:
            int64[n]
        """
        n = self.parties
        if self.complete:
            return np.full(n, len(members), np.int64)
        places, inside = np.array(ring), np.zeros(n, np.int64)
        inside[list(members)] = 1
        reach, width = self.degree // 2, self.degree + 1
        on_ring = inside[places]
        around = np.concatenate([on_ring[n - reach :], on_ring, on_ring[:reach]])
        sums = np.concatenate([[0], np.cumsum(around)])
        found = np.empty(n, np.int64)
        found[places] = sums[width:] - sums[:-width]
        return found


def quorum(parties: int, colluders: int) -> int:
    """Returns t_sig = floor((n + T) / 2) + 1: two sets of so many parties share an honest one."""
    return (parties + colluders) // 2 + 1


def complete_graph(parties: int, share_threshold: int, dropouts: int | None = None) -> Graph:
    """Returns the complete graph.

    Args:
        parties: n.
        share_threshold: Shares that reconstruct a secret.
        dropouts: Most parties that may drop out of one round; None for any number.
    """
    return Graph(parties, parties - 1, share_threshold, parties if dropouts is None else dropouts, chosen=True)


@lru_cache(maxsize=64)
def sparse_graph(parties: int, colluders: int, dropouts: int, *, chosen: bool, exposures: int = 1) -> Graph:
    """Returns the Harary graph of the smallest degree k, and its smallest threshold t, that meet section 10.

    (i) honest survivors stay connected and (ii) nobody has t colluding neighbours, each but for 2^-41 over all
    `exposures`; (iii) everybody keeps t surviving neighbours but for 2^-20.

    Args:
        parties: n.
        colluders: T, how many parties may collude with the coordinator.
        dropouts: D, how many parties may drop out of one round.
        chosen: Whether the coordinator may choose who drops out.
        exposures: Rounds of a session times permitted set-up attempts.

    Raises:
        PlanError: No degree below n - 1 is enough.
    """
    for degree in range(2, parties - 1, 2):
        # Privacy before liveness: the threshold follows from the degree, and only then may (iii) ask for more.
        if _separates(parties, colluders, dropouts, degree, chosen=chosen, exposures=exposures):
            continue
        threshold = _threshold(parties, colluders, degree, exposures)
        if not _starves(parties, dropouts, degree, threshold):
            return Graph(parties, degree, threshold, dropouts, chosen)
    raise PlanError(
        f"no sparse graph among {parties} parties is safe against {colluders} colluders and {dropouts} dropouts; "
        "use the complete graph or allow fewer dropouts"
    )


def check_sparse(graph: Graph, colluders: int, exposures: int) -> None:
    """Checks that a proposed graph hides as much as one that `sparse_graph` computes.

    Args:
        graph: What is proposed.
        colluders: T, how many parties may collude with the coordinator.
        exposures: Rounds of a session times permitted set-up attempts.

    Raises:
        ProtocolError: Its degree or its threshold is too small.
    """
    n, dropouts = graph.parties, graph.dropouts
    if _separates(n, colluders, dropouts, graph.degree, chosen=graph.chosen, exposures=exposures):
        kind = "chosen" if graph.chosen else "random"
        raise ProtocolError(
            f"Config refused: degree {graph.degree} is too small for {n} parties, {colluders} colluders and {dropouts} "
            f"{kind} dropouts"
        )
    least = _threshold(n, colluders, graph.degree, exposures)
    if graph.share_threshold < least:
        raise ProtocolError(f"Config refused: t_share is {graph.share_threshold}, this party requires at least {least}")


def permutation(size: int, words: DrawWords) -> tuple[int, ...]:
    """Returns a permutation of range(size), uniform if the words are (Fisher-Yates with rejection).

    Args:
        size: Number of indices.
        words: Source of 64-bit words.
    """
    source = _stream(words, size)
    order = list(range(size))
    for last in range(size - 1, 0, -1):
        chosen = _below(last + 1, source)
        order[last], order[chosen] = order[chosen], order[last]
    return tuple(order)


def _stream(words: DrawWords, first: int) -> Iterator[int]:
    used, count = 0, first
    while True:
        yield from (int(word) for word in words(count)[used:])
        used, count = count, 2 * count


def _below(bound: int, source: Iterator[int]) -> int:
    # Words above the last full multiple are thrown away: taking them mod the bound would favour small numbers.
    limit = (1 << 64) // bound * bound
    return next(word for word in source if word < limit) % bound


def tail(population: int, marked: int, drawn: int, at_least: int) -> Fraction:
    """Returns the chance that `drawn` of `population` hold at least `at_least` of the `marked` ones.

    Args:
        population: How many there are.
        marked: How many of them are marked.
        drawn: How many are drawn, each at most once.
        at_least: How many marked ones are asked about.
    """
    return Fraction(sum(_counts(population, marked, drawn, at_least)), comb(population, drawn))


def _counts(population: int, marked: int, drawn: int, at_least: int) -> Iterator[int]:
    """Number of draws with x marked ones, for x from the largest possible down to `at_least`."""
    x = min(marked, drawn)
    lowest = max(at_least, 0, drawn - (population - marked))
    if x < lowest:
        return
    # The first term in full, each further one from it, in integers: floats would lose what 2^-41 is about.
    count = comb(marked, x) * comb(population - marked, drawn - x)
    yield count
    while x > lowest:
        count = count * x * (population - marked - drawn + x) // ((marked - x + 1) * (drawn - x + 1))
        x -= 1
        yield count


def _separates(parties: int, colluders: int, dropouts: int, degree: int, *, chosen: bool, exposures: int) -> bool:
    """(i): two runs of k/2 successive places are all bad, too likely."""
    # Whoever chooses the dropouts puts them beside its colluders; chance spreads both over the ring.
    if chosen:
        bad = sum(_counts(parties, colluders, degree, degree - dropouts))
    else:
        bad = comb(min(colluders + dropouts, parties), degree)
    pairs_of_runs = parties * (parties - degree - 1)
    return bad * pairs_of_runs * exposures << PRIVACY_BITS >= 2 * comb(parties, degree)


def _threshold(parties: int, colluders: int, degree: int, exposures: int) -> int:
    """(ii): the smallest t that no party's colluding neighbours reach."""
    allowed, reached = comb(parties - 1, degree), 0
    most = min(colluders, degree)
    for place, count in enumerate(_counts(parties - 1, colluders, degree, 0)):
        reached += count
        if reached * parties * exposures << PRIVACY_BITS >= allowed:
            return most - place + 1
    return 1


def _starves(parties: int, dropouts: int, degree: int, threshold: int) -> bool:
    """(iii): some party keeps fewer than t neighbours, too likely."""
    if threshold > degree:
        return True
    short = sum(_counts(parties - 1, dropouts, degree, degree - threshold + 1))
    return short * parties << LIVENESS_BITS >= comb(parties - 1, degree)
