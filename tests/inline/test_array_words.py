# SPDX-License-Identifier: Apache-2.0
"""What users of NumPy and pandas type: computed inside the parties as NumPy would on all rows, or refused by name."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fedray as sf
from fedray.data.ndarray import FedNdarray, load
from fedray.device import PYU
from fedray.errors import DataError, PlanError
from fedray.runtime.lifetime import init, shutdown

ALICE = np.arange(12, dtype=np.float64).reshape(3, 4)
BOB = np.arange(20, dtype=np.float64).reshape(5, 4) + 12
BOB[2, 1] = np.nan
WHOLE = np.concatenate([ALICE, BOB])


@pytest.fixture(autouse=True, scope="module")
def session() -> Iterator[None]:
    init(["alice", "bob", "carol"], address="inline", seed=1)
    yield
    shutdown()


@pytest.fixture
def x() -> FedNdarray:
    return load({PYU("alice"): ALICE, PYU("bob"): BOB})


def rows_of(array: Any) -> np.ndarray:
    assert isinstance(array, FedNdarray), "what is computed stays at the parties"
    return np.concatenate(list(sf.reveal(array).values()))


def left() -> Counter[str]:
    """How often each kind left a party so far, but for reading this record, and for news of sums.

    A test before may have summed: the server answers the driver's last question for news a quarter of a second later.
    """
    kinds = [str(entry.kind) for page in sf.ledger().pages.values() for entry in page.entries]
    return Counter(kind for kind in kinds if kind not in ("ledger", "aggregate"))


ROWWISE: dict[str, Callable[[Any], Any]] = {
    "log1p": np.log1p,
    "maximum": lambda x: np.maximum(x, 5.0),
    "subtract, from NumPy's array": lambda x: np.subtract(np.arange(4.0), x),
    "two arrays": lambda x: np.hypot(x, x + 1),
    "isnan": np.isnan,
    "where": lambda x: np.where(np.isnan(x), 0.0, x),
    "where with an array for every row": lambda x: np.where(x > 9, x, np.arange(4.0)),
    "nan_to_num": lambda x: np.nan_to_num(x, nan=-1.0),
    "clip": lambda x: np.clip(x, 2, 9),
    "round": lambda x: np.round(x / 3, 1),
    "concatenate": lambda x: np.concatenate([x, x[:, :1] + 1], axis=1),
    "column_stack": lambda x: np.column_stack([x[:, 0], x[:, 1]]),
    "reshape": lambda x: x.reshape(-1, 2, 2),
    "reshape by a tuple": lambda x: np.reshape(x, (8, 2, -1)),
    "transpose": lambda x: x.reshape(-1, 2, 2, 1).transpose(0, 3, 2, 1),
    "swapaxes": lambda x: np.swapaxes(x.reshape(-1, 4, 1), -1, 1),
}


@pytest.mark.parametrize("fn", [pytest.param(fn, id=name) for name, fn in ROWWISE.items()])
def test_functions_do_at_the_parties_what_numpy_does_with_all_rows(x: FedNdarray, fn: Callable[[Any], Any]) -> None:
    expected = fn(WHOLE)
    found = fn(x)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(rows_of(found), expected, equal_nan=expected.dtype.kind == "f")


def test_words_of_pandas_and_methods(x: FedNdarray) -> None:
    filled = x.fillna(np.arange(4.0))
    assert np.array_equal(rows_of(filled), np.where(np.isnan(WHOLE), np.arange(4.0), WHOLE))
    assert np.array_equal(rows_of(filled.clip(1, 7).round()), np.clip(np.where(np.isnan(WHOLE), 1, WHOLE), 1, 7))


def test_nothing_leaves_a_party_but_shapes(x: FedNdarray) -> None:
    before = left()
    for fn in ROWWISE.values():
        fn(x).shape  # noqa: B018 (asks for it)
    x.map(np.log1p).head(2).shape  # noqa: B018
    assert set(left() - before) == {"shape"}


def test_map_runs_inside_each_party_and_keeps_its_rows(x: FedNdarray) -> None:
    assert np.array_equal(rows_of(x.map(lambda rows: rows[:, ::2])), WHOLE[:, ::2], equal_nan=True)
    named = x.map(lambda rows: rows[:, :2], columns=["age", "income"])
    assert named.columns == ("age", "income")
    assert x.map(np.log1p).columns is None
    with pytest.raises(DataError, match=r"expected 1 columns, as there are names, found shape"):
        x.map(np.log1p, columns=["age"]).shape  # noqa: B018
    with pytest.raises(DataError, match=r"party 'alice': expected 1 columns, as there are names, found .*\(3, 4\)"):
        FedNdarray(x.partitions, ["age"]).shape  # noqa: B018
    with pytest.raises(DataError, match=r"party '\w+': map\(<lambda>\): expected a row for each of its [35] rows"):
        x.map(lambda rows: rows[1:]).shape  # noqa: B018
    with pytest.raises(PlanError, match="map: expected a function"):
        x.map(3)  # type: ignore[arg-type]


def test_head_is_the_first_rows_of_each_party_and_stays_there(x: FedNdarray) -> None:
    assert x.head(4).partition_shape() == {PYU("alice"): (3, 4), PYU("bob"): (4, 4)}
    assert np.array_equal(rows_of(x.head(2)), np.concatenate([ALICE[:2], BOB[:2]]))
    table = FedNdarray(x.partitions, ["a", "b", "c", "d"])
    assert table.head().columns == table.columns
    for n in (0, -1, 2.5, True):
        with pytest.raises(PlanError, match="head: expected a number of rows"):
            x.head(n)  # type: ignore[arg-type]


def test_statistics_by_the_names_of_numpy(x: FedNdarray) -> None:
    known, rows = x.fillna(3.0), np.where(np.isnan(WHOLE), 3.0, WHOLE)
    assert np.mean(known) == known.mean() == pytest.approx(rows.mean())
    assert np.allclose(np.sum(known, axis=0), rows.sum(axis=0))
    assert np.allclose(known.var(axis=0, ddof=1), rows.var(axis=0, ddof=1), rtol=1e-14)
    assert np.allclose(np.std(known, axis=0) ** 2, np.var(known, axis=0), rtol=1e-14)
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((8, 4), 2, 32)


def test_names_of_columns_stay_where_the_columns_do(x: FedNdarray) -> None:
    table = FedNdarray(x.partitions, ["a", "b", "c", "d"])
    assert np.log1p(table).columns == np.where(table > 1, table, 0).columns == table.columns
    assert np.concatenate([table[:, :1], table[:, 2:]], axis=1).columns == ("a", "c", "d")
    assert table.reshape(-1, 2, 2).columns is None
    other = FedNdarray(x.partitions, ["b", "a", "c", "d"])
    with pytest.raises(DataError, match="same columns in the same order"):
        np.where(table > 1, table, other)


def test_reveal_brings_every_partys_rows_and_wait_moves_none(x: FedNdarray) -> None:
    before = left()
    sf.wait({"x": x + 1})
    assert left() - before == {}
    found = sf.reveal([x, 5])
    assert found[1] == 5
    assert list(found[0]) == [PYU("alice"), PYU("bob")]
    assert np.array_equal(found[0][PYU("bob")], BOB, equal_nan=True)
    assert left() - before == {"raw": 2}


def test_rows_are_never_stretched_over_columns(x: FedNdarray) -> None:
    square = load({PYU("alice"): ALICE[:3, :3], PYU("bob"): BOB[:3, :3]})
    with pytest.raises(DataError, match=r"party '\w+': where: .*found shapes \(3,\), \(3, 3\).*y\[\.\.\., None\]"):
        np.where(square[:, 0] > 1, square, 0.0).shape  # noqa: B018
    with pytest.raises(DataError, match=r"party '\w+': where: expected numbers or arrays that are the same for every"):
        np.where(square > 1, square, np.zeros((3, 3))).shape  # noqa: B018
    carol = load({PYU("alice"): ALICE, PYU("carol"): BOB})
    with pytest.raises(DataError, match="same parties in the same order"):
        np.where(x > 1, x, carol)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "reduce": (np.add.reduce, r"np\.add\.reduce: .*x\.mean\(axis=0\)"),
    "matmul": (lambda x: np.matmul(x, np.ones((4, 2))), r"x\.map\(lambda rows: np\.matmul"),
    "out": (lambda x: np.add(x, 1, out=np.zeros(4)), "np.add: out: not with a FedNdarray"),
    "median": (np.median, r"x\.quantile\(0\.5\)"),
    "nanmean": (np.nanmean, r"np\.isnan\(x\)"),
    "unknown": (np.cumsum, r"np\.cumsum: not over rows.*x\.map\(np\.cumsum\)"),
    "rows joined": (lambda x: np.concatenate([x, x]), r"expected axis=1"),
    "rows turned": (lambda x: np.transpose(x), "rows, axis 0, to stay in front"),
    "rows cut": (lambda x: x.reshape(16, 2), "expected -1 or 8, the number of rows"),
    "rows that do not fill": (lambda x: x.reshape(-1, 3), r"a row of shape \(4,\) has 4 numbers"),
    "two open sizes": (lambda x: x.reshape(-1, -1, -1), "which do not fill"),
    "axis twice": (lambda x: x.transpose(0, 0), "each once"),
    "no such axis": (lambda x: x.swapaxes(1, 7), "two of 2 axes"),
}


@pytest.mark.parametrize(("fn", "says"), [pytest.param(*one, id=name) for name, one in REFUSED.items()])
def test_what_cannot_be_says_what_can(x: FedNdarray, fn: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        fn(x)


def test_words_that_are_not_there_say_what_to_say(x: FedNdarray) -> None:
    for name, says in {"T": "transpose", "values": "sf.reveal", "iloc": r"x\[10:20\]", "dropna": "load"}.items():
        with pytest.raises(AttributeError, match=f"a FedNdarray has no '{name}': .*{says}"):
            getattr(x, name)
        assert not hasattr(x, name)
    with pytest.raises(AttributeError, match="no 'colums'"):
        x.colums  # type: ignore[attr-defined]  # noqa: B018


def test_columns_are_taken_by_position_and_a_name_says_which(x: FedNdarray) -> None:
    named = x.map(lambda rows: rows, columns=["age", "bp", "days", "ill"])
    for key in ("bp", ["bp"], (slice(None), "bp"), (0, "bp"), (slice(None), ["bp"])):
        with pytest.raises(PlanError, match=r"index 'bp': .*x\[:, 1\] is 'bp'; load\(\.\.\., columns=\[\.\.\.\]\)"):
            named[key]
    with pytest.raises(PlanError, match="index 'blood': there is no such column; its columns are 'age', 'bp'"):
        named["blood"]
    with pytest.raises(PlanError, match="index 'bp': there is no such column; its columns have no names"):
        x["bp"]
    with pytest.raises(AttributeError, match=r"no 'bp': columns are taken by position, as x\[:, 1\]"):
        named.bp  # noqa: B018


def test_warnings_name_the_user_s_line_or_the_party_and_not_ours(x: FedNdarray) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        sf.reveal(x / np.array([1.0, 0.0, 2.0, 3.0]))
        sf.reveal(np.log(x - 100))
        sf.reveal(np.where(x > 0, x, 1.0) * 1e308 * 10)
    assert all("fedray" not in warning.filename for warning in found)
    (own,) = [str(warning.message) for warning in found if warning.filename == __file__]
    assert own.startswith("division by zero in column 1: ")
    told = {(warning.filename, str(warning.message).partition(" enc")[0]) for warning in found}
    for party in ("party 'alice'", "party 'bob'"):
        assert {(party, "np.divide: divide by zero"), (party, "np.log: invalid value")} <= told
        assert (party, "np.multiply: overflow") in told
