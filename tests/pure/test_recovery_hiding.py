# SPDX-License-Identifier: Apache-2.0
"""What a coalition sees of a round of recovery: the sum of the honest survivors, and nothing else."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from pure.recovery_hiding_kit import (
    Symbols,
    World,
    coalitions,
    reduced,
    share_threshold,
    symbolic,
    the_sum,
)


@pytest.fixture
def symbols(monkeypatch: pytest.MonkeyPatch) -> Symbols:
    return symbolic(monkeypatch)


def marked(*setting: int) -> object:
    """Returns a parameter set; five parties take longer than all the others together."""
    return pytest.param(*setting, marks=[pytest.mark.slow] * (setting[0] > 4))


SETTINGS = [
    marked(parties, colluders, t_share)
    for parties, colluders in [(2, 0), (3, 0), (3, 1), (4, 1), (4, 2), (5, 1), (5, 2), (5, 3)]
    for t_share in range(colluders + 1, parties + 1)
]


@pytest.mark.parametrize(("parties", "colluders", "t_share"), SETTINGS)
def test_every_coalition_sees_the_sum_of_the_honest_survivors_and_nothing_else(
    symbols: Symbols, parties: int, colluders: int, t_share: int
) -> None:
    world = World(symbols, parties, colluders, share_threshold(t_share))
    thresholds, opened = world.thresholds, 0
    for size in range(parties + 1):
        for members in combinations(world.everybody, size):
            symbols.place.clear()
            seen = world.send()
            released = world.collect(seen, world.survivors(seen, members), world.everybody, ())
            assert released == (size >= max(thresholds.least_members, parties - thresholds.graph.dropouts, t_share))
            opened += released
            for coalition in coalitions(parties, colluders):
                expected = [the_sum(seen, members, coalition)] if released else []
                assert world.leaks([seen], coalition) == expected, (members, coalition)
    assert opened >= 1


@pytest.mark.parametrize(
    ("parties", "colluders"), [marked(*one) for one in [(3, 1), (4, 1), (4, 2), (5, 1), (5, 2), (5, 3)]]
)
def test_no_pair_of_survivor_sets_opens_twice(symbols: Symbols, parties: int, colluders: int) -> None:
    world = World(symbols, parties, colluders)
    coalition = tuple(range(colluders))
    honest = [i for i in world.everybody if i not in coalition]
    # All sets without one party, up to renaming honest parties or colluders; the full one; one that is too small.
    without = [set(world.everybody) - {i} for i in (0, honest[0], honest[-1])]
    sets = [tuple(sorted(m)) for m in (*without, world.everybody, honest[:2])]
    for first, second in combinations(sets, 2):
        for sides in product((0, 1), repeat=len(honest)):
            symbols.place.clear()
            seen = world.send()
            asked = [[i for i, side in zip(honest, sides, strict=True) if side == which] for which in (0, 1)]
            released = [
                members
                for members, parties_asked in zip((first, second), asked, strict=True)
                if world.collect(seen, world.survivors(seen, members), parties_asked, coalition)
            ]
            assert len(released) <= 1
            leaks = world.leaks([seen], coalition)
            assert leaks in ([], *([the_sum(seen, members, coalition)] for members in released))


def test_rounds_do_not_help_each_other(symbols: Symbols) -> None:
    world = World(symbols, 4, 1)
    first, second = world.send(), None
    assert world.collect(first, world.survivors(first, (1, 2, 3)), (1, 2, 3), ())
    second = world.send()
    assert world.collect(second, world.survivors(second, (0, 1, 2)), (0, 1, 2), ())
    for coalition in coalitions(4, 1):
        expected = [the_sum(first, (1, 2, 3), coalition), the_sum(second, (0, 1, 2), coalition)]
        assert world.leaks([first, second], coalition) == expected


def test_reduction_finds_what_twice_a_symbol_hides() -> None:
    # 2^63 * (2a + x) = 2^63 x: the lowest bit of x shows.
    assert reduced([[2, 1]], 1) == [[0, 1 << 63]]
    assert reduced([[1, 1]], 1) == []
    assert reduced([[1, 1], [1, 2]], 1) == [[0, 1]]
