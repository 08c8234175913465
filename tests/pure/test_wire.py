# SPDX-License-Identifier: Apache-2.0
"""Values between parties as bytes and back: the same value, and never anything but a value."""

import json
import pickle
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from fedray.errors import EncodingError
from fedray.party import records
from fedray.party.parcel import measure
from fedray.party.records import Answer, Progress, RoundMessage, RoundOutcome
from fedray.protocol.opened import OpenedSum
from fedray.protocol.packing import pack
from fedray.protocol.scheme import View
from fedray.runtime.wire import _RECORDS, WirePart, _Reading, read, write
from fedray.types import Failure

ARRAYS = nps.arrays(
    st.sampled_from([*"?bBhHiIlLefdFD", "U3", "S2", "M8[ns]", "m8[25s]"]).map(np.dtype),
    nps.array_shapes(min_dims=0, min_side=0, max_side=4),
)
KEYS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), ARRAYS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner)),
    max_leaves=12,
)

SUM = OpenedSum(np.arange(5, dtype="<u8"), ("alice", "Ärger"), 2**60)
ANSWER = Answer(
    "opened",
    SUM,
    b"\0broadcast",
    View(3, ("alice", "Ärger")),
    2**40,
    (records.PastRound(2**40 - 2, None), records.PastRound(2**40 - 1, SUM)),
    True,
    "why",
)
FAILURE = Failure("PartyError", "no 3", "bob", "train", "ValueError", "Traceback …")


def same(a: Any, b: Any) -> bool:
    """Returns whether two values are equal in type, dtype, shape and content; NaN equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a) if field.compare)
    return a == b or (a != a and b != b)


def carried(value: Any) -> Any:
    """Returns a value after it has gone through bytes."""
    return read([bytes(part) for part in write(value)])


@given(VALUES)
def test_a_value_arrives_as_it_was(value: Any) -> None:
    assert same(carried(value), value)


WORDS = np.arange(6, dtype="<u8").reshape(2, 3)
RECORDS = (
    ANSWER,
    Answer("abandoned"),
    FAILURE,
    RoundOutcome(ANSWER, b"proof"),
    SUM,
    records.PastRound(3, SUM),
    View(0, ()),
    RoundMessage(1, 2, WORDS),
    RoundMessage(1, 2, b"signature", True, 3),
    records.SumsRequest(1, 2),
    records.KeyMessage(1, 0, b"keys"),
    records.ModelMessage(WORDS.astype("<f4")),
    records.ModelMessage(WORDS.astype("<f4"), (12, -3), (WORDS,), (("m", WORDS.astype("<f8")), ("t", 1.5))),
    records.ModelRequest("alice"),
    records.ShareMessage(3, WORDS.view("u1"), True),
    records.SignatureMessage(3, b"signature"),
    records.RoundFailure(1, 3, "why", True),
    records.DealtShares("value 1", b"form", [b"seed", WORDS]),
    records.GivenShares("value 1/bob", b"form", WORDS),
    records.SharesFailure("value 1", FAILURE),
    records.AreYouThere(),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_arrives_as_it_was(record: Any) -> None:
    assert same(carried(("alice", 1, record)), ("alice", 1, record))


def test_every_record_of_the_table_is_tried() -> None:
    assert set(_RECORDS) == {type(record).__name__ for record in RECORDS}


@pytest.mark.parametrize("scalar", [np.float64(1.5), np.uint64(2**63), np.bool_(True), np.datetime64(5, "s")])
def test_a_scalar_stays_one(scalar: np.generic) -> None:
    assert same(carried(scalar), scalar)


def test_memory_is_neither_copied_nor_writable() -> None:
    words = np.arange(1000, dtype="<u8")
    parts = write(RoundMessage(0, 1, words))
    assert np.shares_memory(np.frombuffer(parts[1], np.uint8), words)
    arrived = read(parts).body
    assert np.shares_memory(arrived, words)
    assert not arrived.flags.writeable


def test_a_sum_travels_packed_and_is_packed_once() -> None:
    words = np.arange(-500, 500, dtype="<i8").view("<u8")
    opened = OpenedSum(words, ("alice",))
    parts = write(opened)
    assert len(parts[1]) == 8 + 2 * 1000
    assert opened.packed()[0] is opened.packed()[0]
    arrived = read([bytes(part) for part in parts])
    assert np.array_equal(arrived.words, words)
    assert not arrived.words.flags.writeable
    arrived.drop_packed()
    assert write(arrived)[1].tobytes() == parts[1].tobytes()
    with pytest.raises(EncodingError, match="packed words: 999 words of 64 bits do not match 2008 bytes"):
        read([bytes(parts[0]).replace(b"1000,64", b"999,64"), *parts[1:]])


def test_a_sum_travels_as_it_is_on_one_machine() -> None:
    opened = OpenedSum(np.arange(1000, dtype="<u8"), ("alice",), 5)
    parts = write(opened, packed=False)
    arrived = read(parts, packed=False)
    assert np.shares_memory(arrived.words, opened.words)
    assert (arrived.words.dtype, arrived.members, arrived.check) == ("<u8", ("alice",), 5)
    assert not arrived.words.flags.writeable
    for wrong, packed in ((parts, True), (write(opened), False)):  # one form only, on either way
        with pytest.raises(EncodingError, match="written in another way"):
            read(wrong, packed=packed)
    for words in (np.zeros(3), np.zeros((2, 2), "<u8"), np.uint64(1), None, 7):
        with pytest.raises(EncodingError, match="words of 32 or 64 bits"):
            read(write(OpenedSum(words, ()), packed=False), packed=False)


def test_a_sum_is_pickled_as_it_is() -> None:
    opened = OpenedSum(np.arange(1000, dtype="<u8"), ("alice",), 5)
    buffers: list[pickle.PickleBuffer] = []
    again = pickle.loads(pickle.dumps(opened, protocol=5, buffer_callback=buffers.append), buffers=buffers)
    assert (again.members, again.check) == (opened.members, opened.check)
    assert np.shares_memory(again.words, opened.words)
    # The ledger counts what goes between nodes, and nothing is packed for that.
    assert 0 <= measure(opened).nbytes - opened.packed()[0].nbytes < 100


def test_a_sum_is_packed_once_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    packings, opened = [], OpenedSum(np.arange(1000, dtype="<u8"), ("alice",), 5)
    monkeypatch.setattr("fedray.protocol.opened.pack", lambda words: packings.append(time.sleep(0.05)) or pack(words))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: opened.packed()[0], range(4)))
    assert len(packings) == 1
    assert all(data is found[0] for data in found)


def test_an_array_with_gaps_is_written_whole() -> None:
    assert carried(np.arange(12).reshape(3, 4)[:, ::2]).tolist() == [[0, 2], [4, 6], [8, 10]]


def test_the_order_of_a_matrix_s_numbers_stays() -> None:
    matrix = np.arange(12.0).reshape(3, 4)
    for value in (matrix, matrix.T, np.array([matrix, matrix]).T):
        arrived = carried(value)
        assert same(arrived, value)
        assert arrived.strides == value.strides
        assert not arrived.flags.writeable


class Named(np.ndarray):
    """An array of a class of its own."""


class Counted(dict[str, int]):
    """A dict of a class of its own."""


class Text(bytes):
    """Bytes of a class of their own."""


class Number(np.float64):
    """A scalar of a class of its own."""


itself: list[Any] = []
itself.append(itself)

OTHERS: dict[str, Any] = {
    "an array of another class": np.zeros(2).view(Named),
    "a masked array": np.ma.masked_array([1, 2], [True, False]),
    "a dict of another class": Counted(a=1),
    "bytes of another class": Text(b"x"),
    "a scalar of another class": Number(1),
    "text of NumPy's": np.str_("x"),
    "set": {1},
    "complex": 1j,
    "object": object(),
    "function": len,
    "class": Answer,
    "another record": Progress(1),
    "objects": np.array([None]),
    "numbers the wrong way round": np.zeros(2, ">f4"),
    "fields": np.zeros(2, [("a", "i4")]),
    "deep inside": ("fine", [{"not": {"fine"}}]),
    "in a record": replace(ANSWER, opened=object()),
}


@pytest.mark.parametrize("value", OTHERS.values(), ids=OTHERS)
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(EncodingError, match="holds no"):
        write(value)


@pytest.mark.parametrize("value", [itself, 10**5000], ids=["a list in itself", "thousands of digits"])
def test_what_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(EncodingError, match="cannot be written"):
        write(value)


def text(form: Any, *buffers: WirePart) -> list[WirePart]:
    """Returns the parts of a message whose first part says what it likes."""
    return [json.dumps(form).encode(), *buffers]


WRONG: dict[str, Sequence[WirePart]] = {
    "nothing": [],
    "no JSON": [b"{"],
    "no UTF-8": [b'"\xff"'],
    "a bare list": text([1]),
    "a bare record": text({"a": 1}),
    "another record": text({"record": "Popen", "fields": ["true"]}),
    "a function of a module": text({"record": "os.system", "fields": ["true"]}),
    "too few fields": text({"record": "View", "fields": [1]}),
    "too many fields": text({"record": "View", "fields": [1, [], 2]}),
    "a buffer that is not there": text({"bytes": 1}, b"x"),
    "a buffer before the first": text({"bytes": -1}, b"x"),
    "a buffer that is no number": text({"bytes": "0"}, b"x"),
    "objects": text({"array": 0, "dtype": "|O", "shape": [1]}, bytes(8)),
    "a dtype of fields": text({"array": 0, "dtype": "i4,i4", "shape": [1]}, bytes(8)),
    "no dtype": text({"array": 0, "dtype": "numbers", "shape": [1]}, bytes(8)),
    "no items": text({"array": 0, "dtype": "<V0", "shape": [1]}, b""),
    "too short": text({"array": 0, "dtype": "<f8", "shape": [2]}, bytes(8)),
    "a negative shape": text({"array": 0, "dtype": "<f8", "shape": [-1, -1]}, bytes(8)),
    "a shape of text": text({"array": 0, "dtype": "<f8", "shape": ["1"]}, bytes(8)),
    "a scalar with a shape": text({"scalar": 0, "dtype": "<f8", "shape": [1]}, bytes(8)),
    "texts without a length": text({"array": 0, "dtype": "<U0", "shape": [1]}, b""),
    "texts of any length": text({"array": 0, "dtype": "<U9999999", "shape": [0]}, b""),
    "dates of no unit": text({"array": 0, "dtype": "<M8[xx]", "shape": [1]}, bytes(8)),
    "columns that are rows": text({"columns": 0, "dtype": "<f8", "shape": [1]}, bytes(8)),
    "a list for a key": text({"dict": [[{"list": []}, 1]]}),
    "a key twice": text({"dict": [["a", 1], ["a", 1]]}),
    "a key without a value": text({"dict": [["a"]]}),
    "spaces": [b'{"tuple": []}'],
    "a name too many": [b'{"tuple":[],"list":[]}'],
    "a name twice": [b'{"tuple":[1],"tuple":[]}'],
    "another name of a dtype": text({"array": 0, "dtype": "float64", "shape": [1]}, bytes(8)),
    "a buffer that nothing stands for": [b"null", b""],
    "very deep": [b'{"list":[' * 100_000 + b"]}" * 100_000],
    "a number without end": [b"1" * 10_000],
}


@pytest.mark.parametrize("parts", WRONG.values(), ids=WRONG)
def test_what_no_value_was_written_as_is_refused(parts: Sequence[bytes]) -> None:
    with pytest.raises(EncodingError, match="cannot be read"):
        read(parts)


class Trap:
    """Runs code when it is unpickled."""

    sprung = False

    def __reduce__(self) -> tuple[Callable[..., None], tuple[()]]:
        return _spring, ()


def _spring() -> None:
    Trap.sprung = True


def spring(reader: Callable[[Sequence[bytes]], Any]) -> bool:
    """Returns whether a reader runs code that it receives."""
    Trap.sprung = False
    for parts in ([pickle.dumps(Trap())], text({"bytes": 0}, pickle.dumps(Trap()))):
        try:
            reader(parts)
        except EncodingError:
            continue
    return Trap.sprung


def test_a_pickle_is_never_opened() -> None:
    assert not spring(read)


def test_a_reader_that_opens_pickles_is_found() -> None:
    assert spring(lambda parts: pickle.loads(parts[0]) if parts[0][:1] == b"\x80" else read(parts))


PART = memoryview(bytes(1 << 20))  # of which a copy is one
BOMBS = {
    "one part a hundred times": text({"list": [{"bytes": 0}] * 100}, PART),
    "one sum a hundred times": text(
        {"list": [{"record": "OpenedSum", "fields": [{"bytes": 0}, 1 << 20, 8, {"tuple": []}, 0]}] * 100}, PART
    ),
    "lengths of thousands of digits": text({"array": 0, "dtype": "|u1", "shape": [10**4000] * 1000}, PART),
}


def most_memory(parts: Sequence[WirePart]) -> int:
    """Returns the bytes that a refusal takes."""
    tracemalloc.start()
    try:
        with pytest.raises(EncodingError):
            read(parts)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("parts", BOMBS.values(), ids=BOMBS)
def test_a_message_takes_no_memory_for_what_it_says_again(parts: Sequence[WirePart]) -> None:
    assert most_memory(parts) < 24 * len(PART)


def test_a_reader_that_takes_parts_as_often_as_they_are_named_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Reading, "_part", lambda reading, place: reading._parts[place])
    assert most_memory(BOMBS["one part a hundred times"]) > 90 * len(PART)
