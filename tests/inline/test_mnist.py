# SPDX-License-Identifier: Apache-2.0
"""MNIST is bundled whole, and every party holds its own rows of it and no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest

import fedray as sf
from fedray.data.ndarray import FedNdarray
from fedray.device import PYU
from fedray.errors import DataError, PlanError
from fedray.runtime.lifetime import init, shutdown
from fedray.utils.simulation.datasets import dataset, load_mnist


@pytest.fixture(scope="module")
def archive() -> dict[str, np.ndarray]:
    with np.load(dataset("mnist"), allow_pickle=True) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    init(["alice", "bob", "carol"], address="inline", seed=1)
    yield
    shutdown()


@pytest.fixture
def unpacked(archive: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hands every party the arrays of the file, unpacked once: that takes most of what a test does."""
    monkeypatch.setattr(np, "load", lambda *_, **__: nullcontext(archive))


def at(array: FedNdarray, party: str) -> np.ndarray:
    return np.asarray(sf.reveal(array.partitions[PYU(party)]))


def test_the_file_is_the_whole_of_mnist(archive: dict[str, np.ndarray]) -> None:
    assert {name: array.shape for name, array in archive.items()} == {
        "x_train": (60000, 28, 28),
        "y_train": (60000,),
        "x_test": (10000, 28, 28),
        "y_test": (10000,),
    }
    assert np.bincount(archive["y_train"]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_even_parts_in_file_order(archive: dict[str, np.ndarray]) -> None:
    (x_train, y_train), (x_test, y_test) = load_mnist([PYU("alice"), PYU("bob")])
    assert (x_train.shape, y_train.shape) == ((60000, 28, 28), (60000,))
    assert (x_test.shape, y_test.shape) == ((10000, 28, 28), (10000,))
    assert (x_train.dtype, y_train.dtype) == (np.float32, np.int64)
    assert np.array_equal(at(x_train, "bob"), archive["x_train"][30000:].astype(np.float32) / 255)
    assert np.array_equal(at(y_train, "alice"), archive["y_train"][:30000])
    assert np.array_equal(at(x_test, "alice"), archive["x_test"][:5000].astype(np.float32) / 255)
    assert np.array_equal(at(y_test, "bob"), archive["y_test"][5000:])
    assert at(x_train, "alice").max() == 1.0


def test_forms_of_images_and_labels(archive: dict[str, np.ndarray], unpacked: None) -> None:
    parts = {PYU("alice"): (0, 600), PYU("bob"): (600, 1200)}
    (x, y), _ = load_mnist(parts, normalized_x=False, categorical_y=True)
    assert (x.dtype, y.dtype, y.shape) == (np.uint8, np.float32, (1200, 10))
    assert np.array_equal(at(x, "bob"), archive["x_train"][600:1200])
    assert np.array_equal(at(y, "alice").argmax(1), archive["y_train"][:600])
    assert np.array_equal(at(y, "alice").sum(1), np.ones(600))
    (x, y), (x_test, _) = load_mnist(parts, is_torch=True)
    assert (x.shape, x.dtype, y.dtype, x_test.shape) == ((1200, 1, 28, 28), np.float32, np.int64, (200, 1, 28, 28))


def rows(array: FedNdarray) -> list[int]:
    return [shape[0] for shape in array.partition_shape().values()]


@pytest.mark.parametrize(
    ("shares", "train", "test"),
    [
        ((0.2, 0.5), [12000, 30000], [2000, 5000]),
        pytest.param((0.5, 0.5), [30000, 30000], [5000, 5000], marks=pytest.mark.slow),
        (((0.0, 0.1), (0.1, 0.3)), [6000, 12000], [1000, 2000]),
        (((0, 6700), (30000, 60000)), [6700, 30000], [1117, 5000]),
        (((0, 600), (0, 1.0)), [600, 60000], [100, 10000]),
    ],
)
def test_uneven_parts(shares: tuple[object, object], train: list[int], test: list[int], unpacked: None) -> None:
    parts = dict(zip((PYU("alice"), PYU("bob")), shares, strict=True))
    (x_train, _), (x_test, _) = load_mnist(parts)  # type: ignore[arg-type]
    assert (rows(x_train), rows(x_test)) == (train, test)


def test_three_parties(unpacked: None) -> None:
    (x_train, _), (_, y_test) = load_mnist([PYU("carol"), PYU("alice"), PYU("bob")])
    assert (rows(x_train), rows(y_test)) == ([20000] * 3, [3334, 3333, 3333])
    assert [party.name for party in x_train.partitions] == ["carol", "alice", "bob"]


def test_no_row_travels_and_a_party_keeps_only_its_own(unpacked: None) -> None:
    (x_train, _), _ = load_mnist({PYU("alice"): 0.01, PYU("bob"): 0.01})
    alice = PYU("alice")
    (raw, _), _ = load_mnist({alice: 0.01, PYU("bob"): 0.01}, normalized_x=False)
    for array, width in ((x_train, 4), (raw, 1)):
        held = alice(lambda a: (a if a.base is None else a.base).nbytes)(array.partitions[alice])
        assert sf.reveal(held) == 600 * 28 * 28 * width
    assert {entry.kind for entry in sf.ledger().pages["bob"].entries} <= {"hello", "ledger"}


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([], "at least one PYU"),
        (["alice", "bob"], "at least one PYU"),
        ("alice", "at least one PYU"),
        (None, "at least one PYU"),
    ],
)
def test_parts_of_another_kind(parts: object, match: str) -> None:
    with pytest.raises(PlanError, match=match):
        load_mnist(parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("share", "match"),
    [
        (0.6, "sum of at most 1"),
        (-0.1, "above 0"),
        ((5, 5), "start < end"),
        ((0, 60001), "start < end"),
        ((1, 2, 3), r"\(start, end\) for each"),
        ("half", r"\(start, end\) for each"),
    ],
)
def test_impossible_shares(share: object, match: str) -> None:
    with pytest.raises(PlanError, match=match):
        load_mnist({PYU("alice"): share, PYU("bob"): share})  # type: ignore[dict-item]


def test_mixed_shares_and_repeated_parties() -> None:
    with pytest.raises(PlanError, match="for each"):
        load_mnist({PYU("alice"): 0.5, PYU("bob"): (0, 5)})  # type: ignore[dict-item]
    with pytest.raises(PlanError, match="twice"):
        load_mnist([PYU("alice"), PYU("alice")])


def test_a_share_without_rows_names_the_party() -> None:
    with pytest.raises(
        DataError, match=r"party 'bob': expected at least one row of each set, found 2 .* 0 for the test"
    ):
        load_mnist({PYU("alice"): (0, 100), PYU("bob"): (100, 102)})


def test_unknown_data_set() -> None:
    with pytest.raises(PlanError, match=r"dataset 'cifar': expected one of \['mnist'\]"):
        dataset("cifar")
