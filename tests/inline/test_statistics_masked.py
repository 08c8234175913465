# SPDX-License-Identifier: Apache-2.0
"""Statistics through the aggregators that users have: masked sums give what plain ones give, and nothing raw leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from inline.dropouts import PATCHED, at, happening, sleeping
from inline.turned_clock import turn_clock

import fedray as sf
from fedray.data.ndarray import FedNdarray, load
from fedray.device import PYU
from fedray.errors import PlanError
from fedray.runtime.lifetime import init, shutdown
from fedray.security.aggregation import PlainAggregator, SecureAggregator

RNG = np.random.default_rng(8)
ROWS = {"alice": RNG.normal(5e5, 2e5, (9, 3)), "bob": RNG.normal(0, 1e-4, (4, 3)), "carol": RNG.normal(0, 1, (5, 3))}
WHOLE = np.concatenate(list(ROWS.values()))


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    init(["alice", "bob", "carol", "dora"], address="inline", seed=1, egress="strict")
    yield
    shutdown()


@pytest.fixture
def x() -> FedNdarray:
    return load({PYU(party): rows for party, rows in ROWS.items()})


@pytest.fixture
def secure() -> SecureAggregator:
    return SecureAggregator(PYU("dora"), [PYU(party) for party in ROWS])


def test_masked_statistics_are_exact(x: FedNdarray, secure: SecureAggregator) -> None:
    assert np.allclose(x.mean(axis=0, aggregator=secure), WHOLE.mean(axis=0), rtol=1e-14)
    assert np.allclose(x.std(axis=0, aggregator=secure), WHOLE.std(axis=0), rtol=1e-14)
    assert np.allclose(x.sum(aggregator=secure), WHOLE.sum(), rtol=1e-14)
    assert (x > 1).sum(axis=0, aggregator=secure).tolist() == (WHOLE > 1).sum(axis=0).tolist()
    assert x.mean(aggregator=secure).shape == ()


def test_masked_and_plain_agree_to_the_last_bit(x: FedNdarray, secure: SecureAggregator) -> None:
    masked = x.std(axis=0, aggregator=secure), x.mean(axis=0, aggregator=secure)
    shutdown()
    init(["alice", "bob", "carol", "dora"], address="inline", seed=2)
    again = load({PYU(party): rows for party, rows in ROWS.items()})
    plain = PlainAggregator(PYU("dora"), [PYU(party) for party in ROWS])
    assert np.array_equal(masked[0], again.std(axis=0, aggregator=plain))
    assert np.array_equal(masked[1], again.mean(axis=0, aggregator=plain))


def test_nothing_raw_leaves(x: FedNdarray, secure: SecureAggregator) -> None:
    x.std(axis=0, aggregator=secure)
    for party in ROWS:
        page = sf.ledger().pages[party]
        assert {entry.kind for entry in page.entries} == {"hello", "shape", "masked", "aggregate", "ledger"}
        assert {entry.to for entry in page.entries if entry.kind == "masked"} == {"dora"}


def test_the_default_is_masked(x: FedNdarray) -> None:
    assert np.allclose(x.mean(axis=0), WHOLE.mean(axis=0), rtol=1e-14)
    assert {entry.kind for entry in sf.ledger().pages["dora"].entries} >= {"aggregate"}


def test_participants_must_hold_the_array(x: FedNdarray) -> None:
    pair = SecureAggregator(PYU("dora"), [PYU("alice"), PYU("bob")])
    with pytest.raises(PlanError, match="carol"):
        x.mean(aggregator=pair)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["mean", "std", "sum"])
def test_a_late_party_counts_in_no_part_of_a_statistic(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutdown()
    init(["alice", "bob", "carol", "dora", "server"], address="inline", seed=1)
    for cls, method in PATCHED:
        monkeypatch.setattr(cls, method, getattr(cls, method))
    parts = {PYU(party): np.array([10.0, 10.0, 11.0 + place]) for place, party in enumerate(["alice", "bob", "carol"])}
    x = load({**parts, PYU("dora"): np.full(5, 1000.0)})
    gate = tmp_path / "open"
    turn_clock(monkeypatch, "dora", gate)
    secure = SecureAggregator(PYU("server"), list(x.partitions), round_timeout=60)
    at(PYU("dora"), happening("dora", "before its input leaves", 0, sleeping(str(gate))))
    found = getattr(x, name)(aggregator=secure)
    assert np.isclose(found, getattr(np.concatenate(list(parts.values())), name)(), rtol=1e-14)
    assert f"{name}: dora missing, 9 of 14 rows are there" in caplog.text
    gate.touch()
    caplog.clear()
    whole = np.concatenate([*parts.values(), np.full(5, 1000.0)])
    assert np.isclose(getattr(x, name)(aggregator=secure), getattr(whole, name)(), rtol=1e-14)
    assert not caplog.messages
