# SPDX-License-Identifier: Apache-2.0
"""Each party opens its own file, and says by name what is wrong with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedray as sf
from fedray.data import files
from fedray.data.ndarray import load
from fedray.device import PYU
from fedray.errors import DataError, DeviceMismatch, PartyError, PlanError
from fedray.runtime.lifetime import init, shutdown


@pytest.fixture(autouse=True, params=["default", "strict"])
def egress(request: pytest.FixtureRequest) -> Iterator[str]:
    init(["alice", "bob"], address="inline", seed=1, egress=request.param)
    yield request.param
    shutdown()


@pytest.fixture
def alice() -> PYU:
    return PYU("alice")


@pytest.fixture
def bob() -> PYU:
    return PYU("bob")


def test_every_kind_of_source(tmp_path: Path, alice: PYU, bob: PYU) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    np.savez(tmp_path / "b.npz", x=np.ones((3, 3)), y=np.ones(3))
    (tmp_path / "c.csv").write_text("p,q,r\n1,2,3\n")
    sources = [
        str(tmp_path / "a.npy"),
        tmp_path / "b.npz",
        tmp_path / "c.csv",
        np.ones((4, 3)),
        [[1.0, 2.0, 3.0]],
        lambda: np.ones((5, 3)),
    ]
    rows = [2, 3, 1, 4, 1, 5]
    for source, count in zip(sources, rows, strict=True):
        key = "x" if source is sources[1] else None
        loaded = load({alice: source, bob: bob(np.ones)((7, 3))}, key=key)
        assert loaded.partition_shape() == {alice: (count, 3), bob: (7, 3)}
        assert loaded.dtype == np.float64


def test_functions_and_files_are_opened_in_the_party(
    tmp_path: Path, alice: PYU, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    original = files._numbers

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return original(*arguments)

    monkeypatch.setattr(files, "_numbers", watched)
    np.save(tmp_path / "a.npy", np.ones(2))
    load({alice: tmp_path / "a.npy"})
    load({alice: lambda: np.ones(2)})
    assert threads == ["alice-command"] * 2


def test_a_broken_file_names_party_and_path(tmp_path: Path, alice: PYU) -> None:
    (tmp_path / "gone.npy").touch()
    with pytest.raises(DataError, match=r"party 'alice': .*gone.npy"):
        load({alice: tmp_path / "gone.npy"})


def test_dtype_converts_every_source(tmp_path: Path, alice: PYU, bob: PYU) -> None:
    np.save(tmp_path / "a.npy", np.ones(2, np.int16))
    loaded = load({alice: tmp_path / "a.npy", bob: bob(np.ones)(3)}, dtype=np.float32)
    assert loaded.dtype == np.float32
    assert load({alice: np.ones(2), bob: lambda: [1, 2]}, dtype="int8").dtype == np.int8


def test_the_advice_for_mixed_types_loses_nothing(alice: PYU, bob: PYU) -> None:
    parts = {alice: np.array([1, 2]), bob: np.array([0.37, 2.5])}
    with pytest.raises(DataError, match=r"found float64; convert with load\(\.\.\., dtype='float64'\)"):
        load(parts)
    x = load(parts, dtype="float64")
    assert x.dtype == np.float64
    assert x.sum() == 1 + 2 + 0.37 + 2.5
    assert np.isclose(x.std(axis=0), np.std([1, 2, 0.37, 2.5]), rtol=1e-13)


def test_a_type_that_would_change_numbers_is_refused(tmp_path: Path, alice: PYU, bob: PYU) -> None:
    np.save(tmp_path / "b.npy", np.array([[1.0, 0.37], [2.0, 3.0]]))
    for source in (tmp_path / "b.npy", lambda: np.array([[1.0, 0.37], [2.0, 3.0]])):
        with pytest.raises(DataError, match=r"party 'bob'.*: column 1: a cast from float64 to int64") as caught:
            load({alice: np.ones((2, 2)), bob: source}, dtype="int64")
        assert "0.37" not in str(caught.value)
        loaded = load({alice: np.ones((2, 2)), bob: source}, dtype="int64", casting="unsafe")
        assert loaded.sum(axis=0).tolist() == [5, 5]


@pytest.mark.parametrize(
    ("at_bob", "match"),
    [
        (np.ones((2, 4)), r"party 'bob': expected rows of shape \(3,\) as at 'alice', found \(4,\)"),
        (np.ones((2, 3), np.float32), "party 'bob': expected dtype float64 as at 'alice', found float32"),
        (np.ones((0, 3)), r"party 'bob': expected at least one row, found an array of shape \(0, 3\)"),
        (np.array([["a"]]), "party 'bob': expected numbers or booleans, found <U1"),
        (np.float64(1), "party 'bob': expected an array with at least one axis"),
        ("/nowhere/rows.npy", "party 'bob': /nowhere/rows.npy: no such file where bob's process runs"),
        ("/nowhere/rows.xlsx", "party 'bob': /nowhere/rows.xlsx: expected a file that ends in"),
        (lambda: "text", "party 'bob': expected numbers or booleans"),
    ],
)
def test_what_is_wrong_at_one_party(alice: PYU, bob: PYU, at_bob: object, match: str) -> None:
    with pytest.raises(DataError, match=match):
        load({alice: np.ones((2, 3)), bob: at_bob})  # type: ignore[dict-item]


def test_an_error_in_a_function_is_the_partys(alice: PYU) -> None:
    with pytest.raises(PartyError, match="alice"):
        load({alice: lambda: 1 / 0})


def test_an_object_of_another_party(alice: PYU, bob: PYU) -> None:
    with pytest.raises(DeviceMismatch, match=r"alice's source is held by bob; move it with x\.to\(alice\)"):
        load({alice: bob(np.ones)(3)})


def test_wrong_arguments(alice: PYU) -> None:
    for sources in ({}, [alice], {"alice": np.ones(3)}):
        with pytest.raises(PlanError, match="load: expected"):
            load(sources)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="delimiter"):
        load({alice: np.ones(3)}, delimiter="")


def test_no_cell_leaves_with_an_error(tmp_path: Path, alice: PYU) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,SECRET\n")
    with pytest.raises(DataError, match=r"party 'alice': .*row 1 of the data, column 2") as caught:
        load({alice: tmp_path / "a.csv"})
    assert "SECRET" not in str(caught.value)


def test_loading_moves_shapes_only(tmp_path: Path, alice: PYU, bob: PYU) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    load({alice: tmp_path / "a.npy", bob: lambda: np.ones((3, 3))})
    pages = sf.ledger().pages
    for page in (pages["alice"], pages["bob"]):
        assert [entry.kind for entry in page.entries] == ["hello", "hello", "shape", "ledger"]
