# SPDX-License-Identifier: Apache-2.0
"""Graphs, quorums, and the degrees that keep honest survivors connected."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from math import comb

import pytest

from fedray.errors import PlanError
from fedray.protocol.crypto.graph import Graph, complete_graph, permutation, quorum, sparse_graph, tail

# Smallest (k, t) per roster: share of colluders, share of dropouts, against random and against chosen dropouts.
SHARES = [(5, 5), (10, 5), (10, 10), (20, 5), (33, 10)]
TABLE = {
    50: [((6, 3), (6, 3)), ((8, 6), (8, 6)), ((12, 6), (12, 6)), ((14, 11), (14, 11)), ((22, 17), (22, 17))],
    100: [((12, 6), (12, 6)), ((16, 11), (16, 11)), ((22, 11), (22, 11)), ((26, 20), (26, 20)), ((42, 32), (44, 33))],
    200: [((20, 11), (22, 11)), ((26, 17), (30, 18)), ((34, 19), (42, 20)), ((38, 28), (40, 28)), ((66, 47), (70, 49))],
    500: [
        ((28, 16), (46, 19)),
        ((32, 21), (54, 27)),
        ((42, 24), (86, 33)),
        ((48, 34), (70, 42)),
        ((90, 64), (138, 85)),
    ],
    1000: [
        ((30, 17), (78, 25)),
        ((38, 24), (90, 37)),
        ((48, 27), (150, 47)),
        ((52, 37), (112, 59)),
        ((102, 72), (236, 132)),
    ],
    5000: [
        ((32, 19), (310, 54)),
        ((42, 27), (342, 86)),
        ((52, 30), (636, 128)),
        ((58, 41), (410, 151)),
        ((124, 87), (932, 420)),
    ],
}
QUORUMS = [
    (2, 0, 2, 0),
    (3, 0, 2, 1),
    (3, 1, 3, 0),
    (4, 1, 3, 1),
    (5, 1, 4, 1),
    (7, 2, 5, 2),
    (10, 3, 7, 3),
    (20, 6, 14, 6),
    (50, 16, 34, 16),
    (100, 33, 67, 33),
]


def share_of(parties: int, percent: int) -> int:
    return parties // 3 if percent == 33 else parties * percent // 100


@pytest.mark.parametrize("parties", TABLE)
def test_the_table_of_degrees_and_thresholds(parties: int) -> None:
    for (colluding, dropping), pair in zip(SHARES, TABLE[parties], strict=True):
        for chosen, expected in zip((False, True), pair, strict=True):
            graph = sparse_graph(parties, share_of(parties, colluding), share_of(parties, dropping), chosen=chosen)
            assert (graph.degree, graph.share_threshold) == expected, (colluding, dropping, chosen)


@pytest.mark.parametrize(("parties", "colluders", "signatures", "dropouts"), QUORUMS)
def test_the_table_of_quorums(parties: int, colluders: int, signatures: int, dropouts: int) -> None:
    assert quorum(parties, colluders) == signatures
    assert parties - signatures == dropouts


@pytest.mark.parametrize("parties", range(2, 9))
def test_two_quorums_share_an_honest_party(parties: int) -> None:
    for colluders in range(parties):
        honest = parties - colluders
        # Colluders sign both statements; each honest party signs one of them.
        larger = max(min(mine, honest - mine) + colluders for mine in range(honest + 1))
        assert larger < quorum(parties, colluders)


def test_more_exposures_ask_for_more() -> None:
    once, often = sparse_graph(500, 50, 25, chosen=True), sparse_graph(500, 50, 25, chosen=True, exposures=1 << 20)
    assert often.degree > once.degree
    with pytest.raises(PlanError, match="no sparse graph among 6 parties"):
        sparse_graph(6, 2, 2, chosen=True)


@pytest.mark.parametrize(("parties", "degree"), [(7, 2), (8, 4), (11, 6), (40, 10)])
def test_neighbourhoods_are_mutual_and_of_one_size(parties: int, degree: int) -> None:
    ring = random.Random(parties).sample(range(parties), parties)
    graph = Graph(parties, degree, 2, 1, chosen=False)
    found = [graph.neighbours(ring, i) for i in range(parties)]
    for party, around in enumerate(found):
        assert len(set(around)) == degree
        assert party not in around
        assert all(party in found[other] for other in around)
        assert list(around) == sorted(around)


@pytest.mark.parametrize("graph", [Graph(9, 4, 2, 1, chosen=False), Graph(7, 6, 4, 1, chosen=True)])
def test_holders_are_the_members_around_a_party_and_itself(graph: Graph) -> None:
    n = graph.parties
    ring = random.Random(n).sample(range(n), n)
    for size in range(n + 1):
        members = set(random.Random(size).sample(range(n), size))
        expected = [len(members & {*graph.neighbours(ring, i), i}) for i in range(n)]
        assert graph.holders(ring, members).tolist() == expected


def test_everybody_is_a_neighbour_in_the_complete_graph() -> None:
    assert [complete_graph(4, 3).neighbours((), i) for i in range(4)] == [(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)]


def keystream(seed: bytes, count: int) -> Sequence[int]:
    return [int.from_bytes(hashlib.sha256(seed + place.to_bytes(4, "big")).digest()[:8]) for place in range(count)]


def test_every_permutation_is_as_likely_as_the_other() -> None:
    drawn = Counter(
        permutation(4, lambda count, s=seed: keystream(s.to_bytes(4, "big"), count)) for seed in range(4800)
    )
    expected = 4800 / 24
    assert len(drawn) == 24
    assert sum((seen - expected) ** 2 / expected for seen in drawn.values()) < 55  # chi-square, 23 degrees, 2e-4


def test_words_above_the_last_multiple_are_rejected_and_the_stream_goes_on() -> None:
    top = (1 << 64) - 1  # 2^64 is no multiple of 3: the last word would favour index 0
    stream = [top, top, top, top, 1, 0, 5, 5]
    asked: list[int] = []

    def words(count: int) -> Sequence[int]:
        asked.append(count)
        return (stream + [0] * count)[:count]

    assert permutation(3, words) == (2, 0, 1)
    assert asked == [3, 6]


def split_apart(graph: Graph, bad: frozenset[int]) -> bool:
    """Whether the parties outside `bad` fall into several components, parties sitting on the ring in order."""
    around = [graph.neighbours(range(graph.parties), i) for i in range(graph.parties)]
    good = set(range(graph.parties)) - bad
    reached, frontier = set(), [min(good)]
    while frontier:
        party = frontier.pop()
        if party not in reached:
            reached.add(party)
            frontier.extend(j for j in around[party] if j in good)
    return reached != good


@pytest.mark.parametrize(("parties", "degree", "bad"), [(8, 2, 3), (10, 4, 4), (12, 4, 6), (12, 6, 7)])
def test_the_bound_on_separation_covers_all_random_placements(parties: int, degree: int, bad: int) -> None:
    graph = Graph(parties, degree, 1, bad, chosen=False)
    found = sum(split_apart(graph, frozenset(places)) for places in combinations(range(parties), bad))
    bound = tail(parties, bad, degree, degree) * Fraction(parties * (parties - degree - 1), 2)
    assert 0 < Fraction(found, comb(parties, bad)) <= bound


@pytest.mark.parametrize(("parties", "degree", "colluders", "dropouts"), [(8, 2, 2, 1), (9, 4, 3, 2), (10, 4, 3, 1)])
def test_the_bound_on_separation_covers_chosen_dropouts(
    parties: int, degree: int, colluders: int, dropouts: int
) -> None:
    graph = Graph(parties, degree, 1, dropouts, chosen=True)
    found = 0
    for places in combinations(range(parties), colluders):
        rest = [i for i in range(parties) if i not in places]
        found += any(split_apart(graph, frozenset(places + more)) for more in combinations(rest, dropouts))
    bound = tail(parties, colluders, degree, degree - dropouts) * Fraction(parties * (parties - degree - 1), 2)
    assert 0 < Fraction(found, comb(parties, colluders)) <= bound


def test_the_bounds_on_neighbours_cover_all_placements() -> None:
    parties, degree, colluders, threshold = 10, 4, 4, 3
    graph = Graph(parties, degree, threshold, 0, chosen=True)
    around = [graph.neighbours(range(parties), i) for i in range(parties)]
    found = 0
    for places in combinations(range(parties), colluders):
        found += any(len(set(around[i]) & set(places)) >= threshold for i in range(parties) if i not in places)
    bound = parties * tail(parties - 1, colluders, degree, threshold)
    assert 0 < Fraction(found, comb(parties, colluders)) <= bound


@pytest.mark.parametrize(("population", "marked", "drawn"), [(10, 4, 5), (6, 6, 3), (7, 0, 2), (9, 5, 9)])
def test_tails_are_those_of_the_hypergeometric_law(population: int, marked: int, drawn: int) -> None:
    draws = [sum(i < marked for i in places) for places in combinations(range(population), drawn)]
    for least in range(drawn + 2):
        assert tail(population, marked, drawn, least) == Fraction(sum(x >= least for x in draws), len(draws))
