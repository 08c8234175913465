# SPDX-License-Identifier: Apache-2.0
"""Who keeps a round waiting is told while it lasts: once, and not of whoever is always as slow."""

from fedray.party.records import Progress
from fedray.rounds.awaited import Awaited


def seen(awaited: Awaited, *steps: tuple[float, int, tuple[str, ...]], away: frozenset[str] = frozenset()) -> list[str]:
    told = (awaited.look(Progress(done, away=away, awaited=names), now) for now, done, names in steps)
    return [text for text in told if text]


def test_after_a_few_seconds_once_and_when_it_goes_on():
    told = seen(
        Awaited(60),
        *[(0.25 * step, 3, ("alice",)) for step in range(41)],
        *[(10.5 + 0.25 * step, 4, ()) for step in range(40)],
    )
    assert told == [
        "round 4 of the segment has waited for alice for 5 s; the others' messages are there. After 60 s whoever is "
        "missing counts as late",
        "round 4 of the segment goes on after 10 s",
    ]


def test_a_round_that_was_given_up_does_not_go_on():
    awaited = Awaited(60)
    assert len(seen(awaited, *[(float(second), 3, ("alice",)) for second in range(40)])) == 1
    assert awaited.look(Progress(3, error="a sum needs at least 3 parties here"), 40.0) is None


def test_nothing_where_all_compute_or_somebody_is_known_to_be_away():
    assert seen(Awaited(60), *[(float(step), 0, ()) for step in range(100)]) == []
    assert seen(Awaited(60), *[(float(s), 0, ("bob",)) for s in range(100)], away=frozenset({"bob"})) == []


def test_a_party_that_is_as_slow_in_every_round_is_told_once():
    steps = [
        (20.0 * number + second, number, ("bob",) if second else ()) for number in range(9) for second in range(12)
    ]
    told = seen(Awaited(60), *steps)
    assert len(told) == 2
    assert "waited for bob" in told[0]
