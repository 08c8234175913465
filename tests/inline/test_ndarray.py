# SPDX-License-Identifier: Apache-2.0
"""A FedNdarray behaves as the NumPy array of all parties' rows would."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fedray as sf
from fedray.data.ndarray import FedNdarray, load
from fedray.device import PYU
from fedray.errors import DataError, DeviceMismatch, PartyError, PlanError
from fedray.runtime.lifetime import init, shutdown

ALICE = np.arange(12, dtype=np.float64).reshape(3, 4)
BOB = np.arange(20, dtype=np.float64).reshape(5, 4) + 12
WHOLE = np.concatenate([ALICE, BOB])


@pytest.fixture(autouse=True, scope="module")
def session() -> Iterator[None]:
    init(["alice", "bob", "carol"], address="inline", seed=1)
    yield
    shutdown()


@pytest.fixture
def alice() -> PYU:
    return PYU("alice")


@pytest.fixture
def bob() -> PYU:
    return PYU("bob")


@pytest.fixture
def x(alice: PYU, bob: PYU) -> FedNdarray:
    return load({alice: ALICE, bob: BOB})


def rows_of(array: FedNdarray) -> np.ndarray:
    """All rows in partition order, which a test may reveal."""
    return np.concatenate([sf.reveal(part) for part in array.partitions.values()])


def test_shapes_and_sizes(x: FedNdarray, alice: PYU, bob: PYU) -> None:
    assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((8, 4), np.float64, 2, 32, 8)
    assert x.partition_shape() == {alice: (3, 4), bob: (5, 4)}
    assert x.partition_size() == {alice: 12, bob: 20}
    assert repr(x) == "FedNdarray(shape=(8, 4), dtype=float64, rows={alice: 3, bob: 5})"


def test_images_have_a_shape(alice: PYU, bob: PYU) -> None:
    images = load({alice: np.zeros((2, 28, 28, 1), np.float32), bob: np.zeros((3, 28, 28, 1), np.float32)})
    assert images.shape == (5, 28, 28, 1)
    assert images[1:4, 3:5].shape == (3, 2, 28, 1)


@pytest.mark.parametrize(
    "key",
    [
        slice(2, 5),
        slice(None, None, 3),
        slice(-4, -1),
        slice(None, None, -1),
        slice(6, 0, -2),
        slice(0, 2),
        slice(5, 5),
        (slice(1, 6), 2),
        (slice(None), slice(None, None, -1)),
        (..., None),
        (slice(3), ..., 0),
        (slice(1, 7, 2), None, slice(2)),
    ],
)
def test_slices_are_those_of_the_whole(x: FedNdarray, key: Any) -> None:
    taken = x[key]
    assert isinstance(taken, FedNdarray)
    assert np.array_equal(rows_of(taken), WHOLE[key])
    assert set(taken.partitions) == set(x.partitions)


def test_a_party_outside_the_slice_keeps_an_empty_part(x: FedNdarray, bob: PYU) -> None:
    assert x[:2].partition_shape()[bob] == (0, 4)
    assert x[:2].shape == (2, 4)


@pytest.mark.parametrize("row", [0, 2, 3, 7, -1, -8, np.int64(5)])
def test_one_row_is_an_object_of_its_holder(x: FedNdarray, row: int) -> None:
    found = x[row]
    assert found.device.name == ("alice" if row % 8 < 3 else "bob")
    assert np.array_equal(sf.reveal(found), WHOLE[row])


def test_wrong_indices(x: FedNdarray) -> None:
    with pytest.raises(PlanError, match="row 8: expected -8 <= row < 8"):
        x[8]
    with pytest.raises(PlanError, match="list"):
        x[[0, 1]]
    with pytest.raises(DataError, match=r"an array of shape .*out of bounds"):
        x[:, 9].shape  # noqa: B018
    with pytest.raises(TypeError, match="not iterable"):
        iter(x)


OPERATORS: list[Callable[[Any, Any], Any]] = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
]


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("other", [2, 2.5, np.float32(2), np.array([1.0, 2.0, 3.0, 4.0]), np.ones((1, 4))])
def test_operators_with_the_same_for_every_row(x: FedNdarray, op: Callable[[Any, Any], Any], other: Any) -> None:
    y = x + 1
    whole = WHOLE + 1
    for got, expected in ((op(y, other), op(whole, other)), (op(other, y), op(other, whole))):
        assert isinstance(got, FedNdarray)
        assert got.dtype == expected.dtype
        assert np.array_equal(rows_of(got), expected)


@pytest.mark.parametrize("op", OPERATORS)
def test_operators_row_by_row(x: FedNdarray, op: Callable[[Any, Any], Any]) -> None:
    y = x % 3 + 1
    assert np.array_equal(rows_of(op(x, y)), op(WHOLE, WHOLE % 3 + 1))
    assert np.array_equal(rows_of(op(x, y[:, :1])), op(WHOLE, (WHOLE % 3 + 1)[:, :1]))


@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor])
def test_masks_combine(x: FedNdarray, op: Callable[[Any, Any], Any]) -> None:
    got = op(x > 3, x < 20)
    assert got.dtype == bool
    assert np.array_equal(rows_of(got), op(WHOLE > 3, WHOLE < 20))
    assert np.array_equal(rows_of(op(True, x > 3)), op(True, WHOLE > 3))


@pytest.mark.parametrize("op", [operator.neg, operator.pos, operator.abs])
def test_one_operand(x: FedNdarray, op: Callable[[Any], Any]) -> None:
    assert np.array_equal(rows_of(op(x - 5)), op(WHOLE - 5))
    assert np.array_equal(rows_of(~(x > 3)), ~(WHOLE > 3))


def test_python_numbers_do_not_widen(alice: PYU, bob: PYU) -> None:
    x = load({alice: np.ones(2, np.float32), bob: np.ones(3, np.float32)})
    assert (x * 2.0 + 1).dtype == np.float32
    assert (x > 0).astype("int8").dtype == np.int8
    assert x.astype(np.float64).dtype == np.float64


def test_no_conversion_changes_a_number_unless_asked(alice: PYU, bob: PYU) -> None:
    x = load({alice: np.array([1.0, 2.0]), bob: np.array([0.5, 3.0])})
    with pytest.raises(DataError, match="party 'bob': a cast from float64 to int32 would change numbers"):
        x.astype("int32").shape  # noqa: B018
    assert rows_of(x.astype("int32", casting="unsafe")).tolist() == [1, 2, 0, 3]
    assert rows_of((x * 2).astype("int32")).tolist() == [2, 4, 1, 6]
    with pytest.raises(PlanError, match="casting='safe'"):
        x.astype("int32", casting="safe")  # type: ignore[arg-type]


def test_numpy_on_the_left_does_not_take_the_array_apart(x: FedNdarray) -> None:
    assert isinstance(np.float64(2) * x, FedNdarray)
    assert isinstance(np.ones(4) + x, FedNdarray)
    with pytest.raises(DeviceMismatch, match=r"sf\.reveal"):
        np.asarray(x)
    assert isinstance(np.exp(x), FedNdarray)


def test_truth_of_many_rows_is_refused(x: FedNdarray) -> None:
    with pytest.raises(PlanError, match="truth"):
        bool(x == x)


def test_unknown_operands(x: FedNdarray) -> None:
    with pytest.raises(TypeError):
        x + "1"  # type: ignore[operator]
    assert (x == None) is False  # noqa: E711
    # Python would say that it differs, and a label compared with text would be of one kind in silence.
    for other in ("text", [1, 2], (1, 2)):
        with pytest.raises(PlanError, match=r"== and !=: expected a number or an array, found (str|list|tuple)"):
            x == other  # noqa: B015
        with pytest.raises(PlanError, match="== and !="):
            x != other  # noqa: B015


def test_rows_must_match(x: FedNdarray, alice: PYU, bob: PYU) -> None:
    with pytest.raises(DataError, match=r"party 'bob': add: expected the same rows .*\(5, 4\) and \(4, 4\)"):
        (x + load({alice: ALICE, bob: BOB[1:]})).shape  # noqa: B018
    with pytest.raises(DataError, match="same parties in the same order"):
        x + load({bob: BOB, alice: ALICE})
    with pytest.raises(DataError, match=r"add: .*same number of axes"):
        (x + x[:, 0]).shape  # noqa: B018
    with pytest.raises(DataError, match="same for every row"):
        (x + WHOLE).shape  # noqa: B018
    with pytest.raises(DataError, match=r"negative does not work on .*bool"):
        (-(x > 3)).shape  # noqa: B018


def test_construction_is_checked(alice: PYU, bob: PYU) -> None:
    at_bob = bob(np.ones)(3)
    with pytest.raises(PlanError, match="at least one"):
        FedNdarray({})
    with pytest.raises(PlanError, match="PYU -> ndarray"):
        FedNdarray({alice: np.ones(3)})  # type: ignore[dict-item]
    with pytest.raises(PlanError, match="str -> PYUObject"):
        FedNdarray({"bob": at_bob})  # type: ignore[dict-item]
    with pytest.raises(DeviceMismatch, match=r"alice's partition is held by bob; move it with x\.to\(alice\)"):
        FedNdarray({alice: at_bob})


def test_parts_must_be_arrays_with_rows(alice: PYU, bob: PYU) -> None:
    good = alice(np.ones)(3)
    with pytest.raises(DataError, match="party 'bob': expected an array, found list"):
        FedNdarray({alice: good, bob: bob(list)((1, 2))}).shape  # noqa: B018
    with pytest.raises(DataError, match="party 'bob': expected an array with at least one axis"):
        FedNdarray({alice: good, bob: bob(np.ones)(())}).shape  # noqa: B018


def test_partitions_that_do_not_fit_say_so_when_asked(alice: PYU, bob: PYU) -> None:
    x = FedNdarray({alice: alice(np.ones)((2, 3)), bob: bob(np.ones)((2, 4))})
    assert x.partition_shape() == {alice: (2, 3), bob: (2, 4)}
    with pytest.raises(DataError, match="party 'bob': expected rows of shape"):
        x.shape  # noqa: B018
    mixed = FedNdarray({alice: alice(np.ones)(2), bob: bob(np.ones)(2, dtype="float32")})
    with pytest.raises(DataError, match="party 'bob': expected dtype float64 as at 'alice', found float32"):
        mixed.dtype  # noqa: B018
    assert mixed.astype("float32").dtype == np.float32


def test_repr_never_raises(x: FedNdarray, alice: PYU, bob: PYU) -> None:
    mixed = FedNdarray({alice: alice(np.ones)(2), bob: bob(np.ones)(2, dtype="float32")})
    assert repr(mixed).startswith("FedNdarray(parties=[alice, bob], DataError: party 'bob': expected dtype")
    assert "DataError" in repr(x + x[:, 0])
    assert "\n" not in repr(FedNdarray({alice: alice(np.ones)("three")}))


def test_a_whole_array_is_no_argument_of_one_party(x: FedNdarray, alice: PYU) -> None:
    with pytest.raises(PlanError, match=r"alice\(fn\)\(x\.partitions\[alice\]\)"):
        alice(np.mean)(x)


def test_a_failed_part_tells_whose_it_is(alice: PYU, bob: PYU) -> None:
    def fails() -> None:
        raise ValueError("no")

    x = FedNdarray({alice: alice(np.ones)(3), bob: bob(fails)()})
    with pytest.raises(PartyError, match="bob"):
        x.shape  # noqa: B018
