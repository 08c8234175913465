# SPDX-License-Identifier: Apache-2.0
"""Files and data frames are joined by the names of their columns, and an array keeps the names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedray as sf
from fedray.data.ndarray import FedNdarray, load
from fedray.data.split import train_test_split
from fedray.device import PYU
from fedray.errors import DataError, PlanError
from fedray.runtime.lifetime import init, shutdown

ROWS = np.random.default_rng(2).normal(size=(9, 3)).round(3) * [1, 10, 100] + [0, 50, 1000]
FRAME = pd.DataFrame(ROWS, columns=["age", "height", "income"])
ALICE, BOB = FRAME[:4], FRAME[4:][["income", "age", "height"]]
POOLED = FRAME.mean().to_numpy()


@pytest.fixture(autouse=True, params=["default", "strict"])
def egress(request: pytest.FixtureRequest) -> Iterator[str]:
    init(["alice", "bob", "server"], address="inline", seed=1, egress=request.param)
    yield request.param
    shutdown()


@pytest.fixture
def alice() -> PYU:
    return PYU("alice")


@pytest.fixture
def bob() -> PYU:
    return PYU("bob")


def as_file(frame: pd.DataFrame, party: PYU, folder: Path) -> Any:
    frame.to_csv(folder / f"{party.name}.csv", index=False)
    return folder / f"{party.name}.csv"


SOURCES: dict[str, Callable[[pd.DataFrame, PYU, Path], Any]] = {
    "file": as_file,
    "function": lambda frame, *_: lambda: frame,
    "object": lambda frame, party, _: party(lambda f: f)(frame),
    "frame at the driver": lambda frame, *_: frame,
}


@pytest.mark.parametrize("source", SOURCES)
def test_columns_in_another_order_are_put_in_order(
    source: str, tmp_path: Path, alice: PYU, bob: PYU, caplog: pytest.LogCaptureFixture
) -> None:
    make = SOURCES[source]
    x = load({alice: make(ALICE, alice, tmp_path), bob: make(BOB, bob, tmp_path)})
    assert x.columns == ("age", "height", "income")
    assert caplog.messages == ["load: columns of bob are put in the order of alice's"]
    assert np.allclose(x.mean(axis=0), POOLED, rtol=1e-13)
    assert np.allclose(x.std(axis=0), FRAME.std(ddof=0).to_numpy(), rtol=1e-13)
    caplog.clear()
    assert load({alice: make(ALICE, alice, tmp_path), bob: make(FRAME, bob, tmp_path)}).columns == x.columns
    assert not caplog.messages


@pytest.mark.parametrize("option", [{"key": "a"}, {"header": True}, {"delimiter": ";"}], ids=str)
def test_options_of_files_that_are_not_there_are_refused(option: dict[str, Any], alice: PYU, bob: PYU) -> None:
    with pytest.raises(PlanError, match=f"load: {next(iter(option))}: says how .* and no source is one"):
        load({alice: np.ones(2), bob: "b.npy"}, **option)


def test_columns_that_are_numbered_in_another_order_are_put_in_order(alice: PYU, bob: PYU) -> None:
    """pandas numbers columns without names; whoever picks some of them, in some order, has the numbers as names."""
    plain = pd.DataFrame([[1.0, 2.0, 3.0]])
    x = load({alice: plain, bob: plain[[2, 0, 1]] * 10})
    assert x.mean(axis=0).tolist() == [5.5, 11.0, 16.5]
    assert load({alice: plain[[2, 0, 1]], bob: np.array([[10.0, 20.0, 30.0]])}).mean(axis=0).tolist() == [16.5, 5.5, 11]
    assert load({alice: plain, bob: plain}).columns is None
    with pytest.raises(DataError, match="party 'bob': expected the columns of 'alice', found missing '0', extra '2'"):
        load({alice: plain[[0, 1]], bob: plain[[1, 2]]})


@pytest.mark.parametrize("source", SOURCES)
def test_other_names_are_refused(source: str, tmp_path: Path, alice: PYU, bob: PYU) -> None:
    make = SOURCES[source]
    frames = {
        r"missing 'age', extra 'Age' \(is 'Age' meant for 'age'\?\)": FRAME.rename(columns={"age": "Age"}),
        "missing 'age', 'height', 'income', extra 'x', 'y', 'z'": FRAME.set_axis(["x", "y", "z"], axis=1),
        "missing 'income'": FRAME[["age", "height"]],
        "extra 'id'": FRAME.assign(id=1.0),
    }
    for match, frame in frames.items():
        with pytest.raises(DataError, match=f"party 'bob': expected the columns of 'alice', found {match}"):
            load({alice: make(ALICE, alice, tmp_path), bob: make(frame, bob, tmp_path)})


@pytest.mark.parametrize("source", SOURCES)
def test_columns_are_chosen_by_name_or_position(source: str, tmp_path: Path, alice: PYU, bob: PYU) -> None:
    make = SOURCES[source]
    sources = {alice: make(ALICE, alice, tmp_path), bob: make(BOB.assign(name="text"), bob, tmp_path)}
    two = load(sources, columns=["income", "age"])
    assert two.columns == ("income", "age")
    assert np.allclose(two.mean(axis=0), POOLED[[2, 0]], rtol=1e-13)
    one = load(sources, columns="height")
    assert (one.columns, one.shape) == (None, (9,))
    assert np.isclose(one.mean(), POOLED[1])
    by_position = load(sources, columns=[0, 1])
    assert by_position.columns is None
    assert np.isclose(by_position.mean(axis=0)[0], np.concatenate([ALICE["age"], BOB["income"]]).mean())
    with pytest.raises(DataError, match=r"party '(alice|bob)'.*column 'weight': expected exactly one of that name"):
        load(sources, columns=["weight"])
    with pytest.raises(DataError, match=r"party '(alice|bob)'"):
        load(sources, columns=[7])


def test_arrays_beside_a_file_are_joined_by_position(
    tmp_path: Path, alice: PYU, bob: PYU, caplog: pytest.LogCaptureFixture
) -> None:
    x = load({alice: as_file(ALICE, alice, tmp_path), bob: np.ones((2, 3))})
    assert x.columns is None
    assert caplog.messages == ["load: columns of bob have no names and are joined by position"]
    assert load({alice: pd.DataFrame(ROWS), bob: np.ones((2, 3))}).columns is None
    assert len(caplog.messages) == 1


def test_an_array_keeps_its_names(alice: PYU, bob: PYU) -> None:
    x = load({alice: ALICE, bob: BOB})
    names = ("age", "height", "income")
    same = [x[2:6], x[::-1], x[...], x + 1, x * np.ones(3), -x, x > 0, x - x, x.astype("float32"), x[:, :]]
    assert [array.columns for array in same] == [names] * len(same)
    assert [part.columns for part in train_test_split(x, test_size=3)] == [names] * 2
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    assert scaled.columns == names
    assert np.allclose(scaled.std(axis=0), 1)
    assert x[:, 1:].columns == ("height", "income")
    changed = [x[:, 0], x[..., None], x[:, 1:, None], x[:, :1] * np.ones(3)]
    assert [array.columns for array in changed] == [None] * len(changed)
    assert FedNdarray(x.partitions).columns is None


def test_columns_of_two_orders_are_not_computed_with(alice: PYU, bob: PYU) -> None:
    x = load({alice: ALICE, bob: BOB})
    y = load({alice: ALICE, bob: BOB}, columns=["income", "height", "age"])
    with pytest.raises(DataError, match="subtract: expected the same columns in the same order"):
        x - y


def test_errors_name_the_column(alice: PYU, bob: PYU) -> None:
    with pytest.raises(DataError, match="party 'alice': column 'age', 'height', 'income': a cast"):
        load({alice: lambda: ALICE, bob: lambda: BOB.round()}, dtype="int64")
    with pytest.raises(DataError, match="column 'age', 'height', 'income': a cast"):
        load({alice: ALICE, bob: BOB}).astype("int64").shape  # noqa: B018


def test_names_leave_as_shape_in_one_answer(tmp_path: Path, alice: PYU, bob: PYU) -> None:
    load({alice: as_file(ALICE, alice, tmp_path), bob: as_file(BOB, bob, tmp_path)})
    pages = sf.ledger().pages
    for page in (pages["alice"], pages["bob"]):
        assert [entry.kind for entry in page.entries] == ["hello", "hello", "shape", "ledger"]
