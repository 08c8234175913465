# SPDX-License-Identifier: Apache-2.0
"""Splits keep rows together across arrays, use no row twice, and follow the seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import fedray as sf
from fedray.data.ndarray import FedNdarray, load
from fedray.data.split import train_test_split
from fedray.device import PYU
from fedray.errors import DataError, PlanError
from fedray.runtime.lifetime import init, shutdown


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    init(["alice", "bob"], address="inline", seed=1)
    yield
    shutdown()


def numbered(alice: int = 40, bob: int = 8) -> tuple[FedNdarray, FedNdarray]:
    """x and y whose rows carry their own number."""
    y = load({PYU("alice"): np.arange(alice), PYU("bob"): np.arange(bob) + 1000})
    return y[:, None] * np.ones((1, 3)), y


def at(array: FedNdarray, party: str) -> np.ndarray:
    return np.asarray(sf.reveal(array.partitions[PYU(party)]))


def test_rows_stay_together_and_none_is_lost() -> None:
    x, y = numbered()
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=3)
    assert (x_train.shape, x_test.shape, y_train.shape, y_test.shape) == ((36, 3), (12, 3), (36,), (12,))
    for party, rows in (("alice", 40), ("bob", 8)):
        assert np.array_equal(at(x_train, party)[:, 0], at(y_train, party))
        assert np.array_equal(at(x_test, party)[:, 2], at(y_test, party))
        both = [*at(y_train, party), *at(y_test, party)]
        assert sorted(both) == sorted(at(y, party))
        assert len(both) == rows
        assert both[: rows // 2] != sorted(both[: rows // 2])


def test_every_party_gives_its_share() -> None:
    _, y = numbered()
    _, test = train_test_split(y, test_size=12, random_state=0)
    assert [shape[0] for shape in test.partition_shape().values()] == [10, 2]


def test_the_seed_decides_and_the_session_has_one() -> None:
    _, y = numbered()

    def drawn(state: int | None) -> list[int]:
        return at(train_test_split(y, random_state=state)[1], "alice").tolist()

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)
    assert drawn(None) == drawn(1)  # the session's seed
    assert drawn(0) != drawn(None)  # 0 is a seed


def test_without_shuffling_the_last_rows_of_each_party() -> None:
    _, y = numbered(4, 4)
    _, test = train_test_split(y, test_size=2, shuffle=False)
    assert (at(test, "alice").tolist(), at(test, "bob").tolist()) == ([3], [1003])


def test_sizes_may_leave_rows_over() -> None:
    _, y = numbered()
    train, test = train_test_split(y, train_size=0.5, test_size=6, random_state=0)
    assert (len(train), len(test)) == (24, 6)
    assert not {*at(train, "alice")} & {*at(test, "alice")}


def test_a_tiny_party_goes_along() -> None:
    _, y = numbered(1000, 1)
    train, test = train_test_split(y, test_size=0.1, random_state=0)
    assert (len(train), len(test)) == (900, 101)
    assert len(at(train, "bob")) + len(at(test, "bob")) == 1


def test_arrays_that_do_not_belong_together() -> None:
    x, y = numbered()
    with pytest.raises(DataError, match="party 'bob': array 2 has 7 rows, expected 8"):
        train_test_split(x, y[:-1])
    with pytest.raises(DataError, match=r"array 2: expected the parties \['alice', 'bob'\]"):
        train_test_split(x, load({PYU("alice"): np.ones(40)}))


def test_wrong_arguments() -> None:
    _, y = numbered()
    with pytest.raises(PlanError, match="at least one FedNdarray"):
        train_test_split()
    with pytest.raises(PlanError, match="argument 2: expected a FedNdarray, found ndarray"):
        train_test_split(y, np.ones(48))  # type: ignore[arg-type]
    for test_size in (0, 48, 1.5, -0.5, True):
        with pytest.raises(PlanError, match="test_size"):
            train_test_split(y, test_size=test_size)
    for state in (1.5, "a", True):
        with pytest.raises(PlanError, match="random_state"):
            train_test_split(y, random_state=state)  # type: ignore[arg-type]
