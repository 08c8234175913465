# SPDX-License-Identifier: Apache-2.0
"""Statistics equal NumPy's on all rows, through an aggregator that adds one array of integers per party."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fedray as sf
from fedray.data import statistics
from fedray.data.extremes import Extremes
from fedray.data.ndarray import FedNdarray, load
from fedray.device import PYU, PYUObject
from fedray.errors import DataError, PlanError
from fedray.runtime.lifetime import init, shutdown
from fedray.runtime.session import current

RNG = np.random.default_rng(5)
ALICE = RNG.normal(3, 2, (30, 4, 2))
BOB = RNG.normal(-1, 5, (7, 4, 2))
WHOLE = np.concatenate([ALICE, BOB])
AXES = [None, 0, -3, (0, 1), (0, 2), (0, 1, 2), (2, 0)]


class Open:
    """An aggregator without protection, which keeps what it was given."""

    def __init__(self) -> None:
        self.terms: list[list[np.ndarray]] = []

    def sum(self, data: Sequence[PYUObject]) -> Any:
        self.terms.append([np.asarray(sf.reveal(one)) for one in data])
        assert all(term.dtype == np.int64 for term in self.terms[-1])
        return np.sum(self.terms[-1], axis=0)


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    init(["alice", "bob", "carol"], address="inline", seed=1)
    yield
    shutdown()


def spread(alice: np.ndarray = ALICE, bob: np.ndarray = BOB) -> FedNdarray:
    return load({PYU("alice"): alice, PYU("bob"): bob})


@pytest.mark.parametrize("axis", AXES)
def test_mean_sum_std(axis: int | tuple[int, ...] | None) -> None:
    x = spread()
    assert np.allclose(x.mean(axis, aggregator=Open()), WHOLE.mean(axis), rtol=1e-12)
    assert np.allclose(x.sum(axis, aggregator=Open()), WHOLE.sum(axis), rtol=1e-12)
    assert np.allclose(x.std(axis, aggregator=Open()), WHOLE.std(axis), rtol=1e-12)
    assert np.allclose(x.std(axis, ddof=1, aggregator=Open()), WHOLE.std(axis, ddof=1), rtol=1e-12)


@pytest.mark.parametrize("axis", AXES)
def test_min_max(axis: int | tuple[int, ...] | None) -> None:
    assert np.array_equal(spread().min(axis), WHOLE.min(axis))
    assert np.array_equal(spread().max(axis), WHOLE.max(axis))


def test_everything_reduced_is_a_number() -> None:
    x = spread()
    for found in (x.mean(aggregator=Open()), x.sum(aggregator=Open()), x.std(aggregator=Open()), x.min(), x.max()):
        assert isinstance(found, np.float64)


def test_one_sum_each_and_no_more() -> None:
    """Between two sums a party might be lost, and the second would be of others than the first."""
    for name in ("mean", "sum", "std"):
        aggregator = Open()
        getattr(spread(), name)(axis=0, aggregator=aggregator)
        assert len(aggregator.terms) == 1


@pytest.mark.parametrize(("centre", "width"), [(1e6, 1e-3), (-1e9, 1.0), (1e20, 1e10), (3.0, 1e-9)])
def test_a_spread_that_is_small_beside_the_mean_keeps_its_digits(centre: float, width: float) -> None:
    x = spread(centre + width * ALICE, centre + width * BOB)
    pooled = centre + width * WHOLE
    exact = np.sqrt(np.mean((pooled - pooled.mean(0)).astype(np.longdouble) ** 2, axis=0))
    assert np.allclose(x.std(0, aggregator=Open()), exact.astype(np.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6, 1e20])
def test_magnitude_does_not_matter(scale: float) -> None:
    x = spread(ALICE * scale, BOB * scale)
    assert np.allclose(x.mean(0, aggregator=Open()), WHOLE.mean(0) * scale, rtol=1e-9, atol=0)
    assert np.allclose(x.std(0, aggregator=Open()), WHOLE.std(0) * scale, rtol=1e-9, atol=0)
    assert np.allclose(x.sum(aggregator=Open()), WHOLE.sum() * scale, rtol=1e-9, atol=0)


def test_arguments_that_cannot_be() -> None:
    x = spread()
    with pytest.raises(PlanError, match=r"std: expected ddof to be a whole number, found 1\.5"):
        x.std(ddof=1.5, aggregator=Open())  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="mean: aggregator: expected a SecureAggregator or the like, found 'plain'"):
        x.mean(aggregator="plain")  # type: ignore[arg-type]
    assert x.quantile(np.float32(0.5), aggregator=Open()) == x.quantile(0.5, aggregator=Open())
    with pytest.raises(DataError, match=r"multiply: the number is beyond what int8 holds; .*astype\('int64'\)"):
        (x.astype("int8", casting="unsafe") * 200).mean(aggregator=Open())


@pytest.mark.parametrize("scale", [1e-42, 1e-200])
def test_numbers_too_small_to_be_summed_are_refused_and_not_zero(scale: float) -> None:
    """Silently, mean and deviation would be 0; the remedy that the error names gives them."""
    x = spread(ALICE * scale, BOB * scale)
    for found in (x.mean, x.sum, x.std, x.var):
        with pytest.raises(DataError, match=r"digits.*, or count as 0; .*\(?x\.astype\('float64'\) \* 2\.0\*\*100"):
            found(0, aggregator=Open())
    wide = x * 2.0**100
    if scale == 1e-42:
        assert np.allclose(wide.std(0, aggregator=Open()) / 2.0**100, WHOLE.std(0) * scale, rtol=1e-9, atol=0)
    assert not spread(ALICE * 0, BOB * 0).std(aggregator=Open())
    # Nothing beside others' larger ones, nor where larger ones cancel out.
    assert np.allclose(spread(ALICE * 1e-30, BOB).std(aggregator=Open()), np.append(ALICE * 0, BOB).std(), rtol=1e-12)
    cancelling = np.zeros_like(BOB)
    cancelling[:3] = [[[1.0]], [[-1.0]], [[1e-300]]]
    assert spread(cancelling, cancelling).sum(aggregator=Open()) == 0


def test_an_aggregator_that_rounds_integers_is_refused() -> None:
    class Rounding(Open):
        def sum(self, data: Sequence[PYUObject]) -> Any:
            return super().sum(data).astype(np.float64)

    with pytest.raises(PlanError, match="exact sums of int64 arrays, found float64"):
        spread().mean(aggregator=Rounding())


def test_an_aggregator_that_counts_a_party_twice_is_refused() -> None:
    class Doubling(Open):
        def sum(self, data: Sequence[PYUObject]) -> Any:
            return super().sum([*data, data[0]])

    with pytest.raises(PlanError, match="one array of each party"):
        spread().mean(aggregator=Doubling())


class Without(Open):
    """An aggregator from whose sums parties are missing."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names

    def sum(self, data: Sequence[PYUObject]) -> Any:
        return super().sum([one for one in data if one.device.name not in self.names])


THREE = {"alice": ALICE, "bob": BOB, "carol": BOB[:5] * 3}


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("missing", THREE)
@pytest.mark.parametrize("name", ["mean", "sum", "std"])
def test_without_a_party_it_is_that_of_the_others(
    axis: int | tuple[int, ...] | None, missing: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = load({PYU(party): rows for party, rows in THREE.items()})
    there = np.concatenate([rows for party, rows in THREE.items() if party != missing])
    found = getattr(x, name)(axis, aggregator=Without(missing))
    assert np.allclose(found, getattr(there, name)(axis), rtol=1e-12)
    assert caplog.messages == [
        f"{name}: {missing} missing, {len(there)} of 42 rows are there, and the result is theirs"
    ]


def test_too_few_that_are_there() -> None:
    x = load({PYU(party): rows for party, rows in THREE.items()})
    for name in ("mean", "sum", "std"):
        with pytest.raises(DataError, match=f"{name}: .*found bob, carol missing, 30 of 42 rows are there"):
            getattr(x, name)(aggregator=Without("bob", "carol"))
    small = load({PYU("alice"): np.arange(9.0), PYU("bob"): np.ones(1), PYU("carol"): np.ones(1)})
    with pytest.raises(DataError, match="std: expected more than ddof=2 elements, found 2"):
        small.std(ddof=2, aggregator=Without("alice"))


def test_a_column_that_is_constant_has_no_spread() -> None:
    x = spread(np.full((30, 2), 0.1), np.full((7, 2), 0.1))
    assert np.allclose(x.mean(0, aggregator=Open()), 0.1, rtol=1e-15)
    assert np.all(x.std(0, aggregator=Open()) < 1e-16)


def test_not_a_number_names_the_party() -> None:
    holes = BOB.copy()
    holes[0, 0, 0] = np.nan
    for name in ("mean", "sum", "std"):
        with pytest.raises(DataError, match="party 'bob': the sum over its rows"):
            getattr(spread(bob=holes), name)(axis=0, aggregator=Open())


def test_standardising_needs_no_row_to_move() -> None:
    x = spread()
    scaled = (x - x.mean(axis=0, aggregator=Open())) / x.std(axis=0, aggregator=Open())
    assert np.allclose(scaled.mean(axis=0, aggregator=Open()), 0, atol=1e-12)
    assert np.allclose(scaled.std(axis=0, aggregator=Open()), 1)


def test_integers_sum_exactly_and_do_not_overflow() -> None:
    x = spread(np.full((300, 2), 200, np.uint8), np.full((5, 2), 255, np.uint8))
    total = x.sum(axis=0, aggregator=Open())
    assert total.dtype == np.int64
    assert total.tolist() == [61_275, 61_275]
    assert (x > 200).sum(aggregator=Open()) == 10
    assert np.isclose(x.std(aggregator=Open()), np.concatenate([np.full(600, 200.0), np.full(10, 255.0)]).std())


def test_accuracy_is_the_mean_of_a_comparison() -> None:
    x = spread(np.array([1, 2, 3, 4]), np.array([5, 6]))
    y = spread(np.array([1, 0, 3, 4]), np.array([5, 0]))
    assert np.isclose((x == y).mean(aggregator=Open()), 4 / 6)


def test_a_party_without_rows_weighs_nothing() -> None:
    three = load({PYU("alice"): ALICE, PYU("bob"): BOB, PYU("carol"): BOB + 1})
    x = three[:-7]
    assert np.allclose(x.mean(0, aggregator=Open()), WHOLE.mean(0))
    assert np.allclose(x.std(0, aggregator=Open()), WHOLE.std(0))
    assert np.array_equal(x.max(0), WHOLE.max(0))


@pytest.mark.parametrize("name", ["mean", "sum", "std"])
def test_a_sum_of_one_party_is_refused(name: str) -> None:
    alone = load({PYU("alice"): ALICE})
    only_alice_has_rows = spread()[:10]
    for x in (alone, only_alice_has_rows):
        with pytest.raises(DataError, match=rf"{name}: .*at alice only.* alice\(np\.{name}\)"):
            getattr(x, name)(aggregator=Open())
    with pytest.raises(DataError, match=f"{name}: expected rows at two parties or more, found no rows at all"):
        getattr(spread()[:0], name)(aggregator=Open())


@pytest.mark.parametrize("name", ["mean", "sum", "std", "min", "max"])
def test_axes_without_the_rows_are_refused(name: str) -> None:
    with pytest.raises(PlanError, match=r"alice\(np"):
        getattr(spread(), name)(axis=1)


def test_impossible_statistics() -> None:
    with pytest.raises(DataError, match="ddof"):
        spread().std(ddof=296, aggregator=Open())
    with pytest.raises(DataError, match="at least one element"):
        spread()[:0].min()
    with pytest.raises(DataError, match="at least one element"):
        spread()[:, :0].mean(aggregator=Open())


def test_an_extreme_of_one_row_is_refused_by_its_party() -> None:
    with pytest.raises(DataError, match="party 'bob': min over 1 row"):
        spread(bob=BOB[:1]).min(axis=0)


def test_the_party_itself_refuses_axes_that_would_show_rows() -> None:
    session, x = current(), spread()
    key = session.serve("bob", Extremes)
    for axes in ((), (1,)):
        with pytest.raises(PlanError, match="axis"):
            session.get([session.ask("bob", key, "find", x.partitions[PYU("bob")].slot(), "min", axes)])


def test_extremes_leave_as_raw_values() -> None:
    assert spread().max() == WHOLE.max()
    pages = sf.ledger().pages
    for party in ("alice", "bob"):
        assert [entry.kind for entry in pages[party].entries] == ["hello", "hello", "shape", "raw", "ledger"]
        assert pages[party].entries[3].to == "driver"


def test_the_default_aggregator_is_handed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_default_maker", None)
    with pytest.raises(PlanError, match="pass aggregator="):
        spread().mean()
    made: list[tuple[str, list[str]]] = []

    def make(server: PYU, parties: Sequence[PYU]) -> Open:
        made.append((server.name, [party.name for party in parties]))
        return Open()

    statistics.use_by_default(make)
    assert np.isclose(spread().mean(), WHOLE.mean())
    assert np.isclose(
        load({PYU("carol"): ALICE, PYU("alice"): BOB, PYU("bob"): BOB}).mean(), np.mean(np.concatenate([WHOLE, BOB]))
    )
    assert made == [("carol", ["alice", "bob"]), ("carol", ["carol", "alice", "bob"])]
    spread().std()
    assert len(made) == 2
