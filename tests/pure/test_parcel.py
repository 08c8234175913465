# SPDX-License-Identifier: Apache-2.0
"""Values as parcels, their sizes, and slots inside arguments."""

import pickle
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

from fedray.errors import PartyTimeout, PlanError
from fedray.party.failures import Failed
from fedray.party.parcel import Parcel, Size, measure, pack
from fedray.party.table import ObjectTable, Slot, replace
from fedray.runtime.gather import gather
from fedray.types import Failure


def test_a_parcel_holds_a_copy_once_it_has_travelled():
    array = np.arange(5)
    travelled = pickle.loads(pickle.dumps(pack({"a": [array, "text"]}), protocol=5))
    array += 1
    first, second = travelled.open(), travelled.open()
    first["a"][0] += 100
    assert second["a"][0].tolist() == [0, 1, 2, 3, 4]
    assert second["a"][1] == "text"


def test_large_arrays_stay_outside_the_pickle():
    parcel = pack([np.zeros(100_000), np.asfortranarray(np.ones((300, 200)))])
    assert len(parcel.head) < 1000
    assert [b.nbytes for b in parcel.buffers] == [800_000, 480_000]
    assert parcel.nbytes == len(parcel.head) + 1_280_000
    assert parcel.open()[1].flags.f_contiguous


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (np.zeros((3, 4), np.float32), Size((3, 4), "float32", 48)),
        (np.zeros(()), Size((), "float64", 8)),
        (b"abc", Size((3,), "bytes", 3)),
        (bytearray(b"abcd"), Size((4,), "bytes", 4)),
        (Parcel(b"12", ()), Size(None, "parcel", 2)),
    ],
)
def test_sizes(value, size):
    assert measure(value) == size


def test_sizes_of_other_values_are_their_pickles():
    found = measure({"a": np.zeros(1000)})
    assert (found.shape, found.dtype) == (None, "dict")
    assert 8000 < found.nbytes < 8500
    assert measure(np.array(["a", None], dtype=object)).dtype == "ndarray"
    assert measure(3.5).dtype == "float"


def test_a_record_or_tuple_looks_like_the_largest_array_in_it():
    found = measure(("sum", 3, np.zeros((4, 2), np.uint8), b"1", None))
    assert (found.shape, found.dtype) == ((4, 2), "uint8")
    assert 8 < found.nbytes < 400
    found = measure(Parcel(b"12345", (np.zeros(3, np.uint8),)))
    assert (found.dtype, found.nbytes) == ("parcel", 8)
    found = measure(Size((1,), "x", 3))
    assert (found.shape, found.dtype) == (None, "Size")


def test_an_empty_part_is_weighed_and_not_pickled():
    assert measure((np.zeros(2), ())).nbytes == measure((np.zeros(2), None)).nbytes == 40


def test_functions_travel_with_their_code():
    offset = 3
    assert pack(lambda v: v + offset).open()(4) == 7


def test_slots_are_filled_wherever_they_stand():
    Pair = namedtuple("Pair", "left right")
    table = ObjectTable("alice")
    table.put("k", [1])
    filled = table.fill(([Slot("k")], {"a": (Slot("k"), 2)}, Pair(Slot("k"), 3), "k"))
    assert filled == ([[1]], {"a": ([1], 2)}, Pair([1], 3), "k")
    assert filled[0][0] is table.get("k")
    untouched = OrderedDict(a=Slot("k"))
    assert replace(untouched, Slot, str) is untouched


def test_the_table():
    table = ObjectTable("alice")
    table.put("k", 1)
    table.put("f", Failure("PartyError", "no", "alice"))
    assert (table.get("k"), len(table)) == (1, 2)
    with pytest.raises(Failed):
        table.get("f")
    with pytest.raises(Failed):
        table.fill([Slot("f")])
    with pytest.raises(PlanError, match="party 'alice' holds no object 'x'"):
        table.await_get("x", 0.01)
    table.drop(["k", "x"])
    with pytest.raises(PlanError):
        table.get("k")
    assert len(table) == 1


def test_gather_returns_in_order_and_takes_what_is_done():
    refs = ["a", "b", "c"]
    assert gather(refs, None, lambda pending, _: pending[-1:], str.upper) == ["A", "B", "C"]
    assert gather([], None, lambda pending, _: pending, str.upper) == []


def test_gather_gives_up_and_says_on_whom():
    with pytest.raises(PartyTimeout, match=r"within 0 seconds: a, b"):
        gather(["b", "a"], 0, lambda _pending, _seconds: [], str.upper)
