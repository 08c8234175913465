# SPDX-License-Identifier: Apache-2.0
"""Messages and answers between parties as bytes and back. Only data is read: no bytes can make this run code.

Knows the kinds of values that parties send each other. Does not know who sends them, nor how the bytes travel.

A value is written as several parts. The first is JSON in UTF-8 and says what the value is made of; each further part
holds the memory of one array or byte string.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError
from fedray.party import records
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scheme import View
from fedray.types import Failure

WirePart: TypeAlias = bytes | memoryview
"""Bytes of one part; the memory of an array is not copied."""

MOST_PARTS = 1 << 10
"""Most parts of one value. No message of the protocols comes near it; it keeps a stranger's list of sizes short."""

# By name from this table only. A pickle would name any class of any module, and running its code is how pickles are
# abused.
_RECORDS: dict[str, Any] = {
    record.__name__: record
    for record in (
        Failure,
        OpenedSum,
        View,
        records.Answer,
        records.AreYouThere,
        records.DealtShares,
        records.GivenShares,
        records.KeyMessage,
        records.ModelMessage,
        records.ModelRequest,
        records.PastRound,
        records.RoundFailure,
        records.RoundMessage,
        records.RoundOutcome,
        records.ShareMessage,
        records.SharesFailure,
        records.SignatureMessage,
        records.SumsRequest,
    )
}
"""What may travel between parties besides plain values. Where a record has a field that is none, it is refused."""

# Both made once: every message and every answer is written twice, by its sender and by its reader.
_NAMES = {record: tuple(field.name for field in fields(record)) for record in _RECORDS.values()}
_TEXT = json.JSONEncoder(separators=(",", ":"))
_PLAIN = frozenset((type(None), bool, int, float, str))

_NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
_MOST_AXES = 64  # NumPy's own limit
_LONGEST = 1 << 40
_DTYPES = {np.dtype(name).str: np.dtype(name) for name in _NUMBERS.split()}  # NumPy would read a dtype as an expression
_NAMES_OF = {dtype: name for name, dtype in _DTYPES.items()}
_TIMES = re.compile(r"<[mM]8(\[\d{0,9}[a-zA-Z]{1,2}\])?")
_TEXTS = re.compile(r"<U[1-9]\d{0,5}|\|S[1-9]\d{0,5}")


MOST_TEXT = 1 << 20
"""Most bytes of the first part. What it says takes some thirty times as much memory, and the time to read it."""


class _Held(list[Any]):
    """What the parts behind the first one are the memory of.

    Args:
        packed: As in `write`.
    """

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.packed = packed


def write(value: Any, *, packed: bool = True) -> list[WirePart]:
    """Returns the parts of a value; arrays are not copied where their memory is contiguous.

    Args:
        value: None, a truth value, a number, text, bytes, an array of numbers, times or texts, a list, tuple or dict of
            such values, or a record of the table above.
        packed: Whether sums are packed. Between processes of one machine that takes longer than it saves.

    Raises:
        EncodingError: It is, or holds, something else, or too many arrays.
    """
    held = _Held(packed)
    text = _text(value, held)
    return [text, *map(_memory, held)]


def read(parts: Sequence[WirePart], *, packed: bool = True) -> Any:
    """Returns the value that `write` made the parts of; its arrays are read-only views of them.

    Args:
        parts: The parts.
        packed: As in `write`: what was written in the other way is refused.

    Raises:
        EncodingError: They are not exactly the parts that `write` makes of a value.
    """
    try:
        text = bytes(parts[0][: MOST_TEXT + 1])
        if len(text) > MOST_TEXT:
            raise EncodingError(f"a message between parties says more than {MOST_TEXT} bytes beside its arrays")
        value = _Reading(parts[1:]).value(json.loads(text.decode()))
        # Written again and compared, so that every value has one form only. A message that could be written in two
        # ways could carry something past its reader.
        held = _Held(packed)
        again = _text(value, held)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, MemoryError) as error:
        raise EncodingError(f"a message between parties cannot be read: {error or 'no memory'}") from None
    if again != text or 1 + len(held) != len(parts):
        raise EncodingError("a message between parties cannot be read: it is written in another way than ours")
    return value


def _text(value: Any, held: _Held) -> bytes:
    """Returns the first part of a value, and adds to `held` what the others are the memory of.

    Raises:
        EncodingError: As `write`.
    """
    try:
        text = _TEXT.encode(_form(value, held)).encode()
    except EncodingError:
        raise
    except (ValueError, RecursionError) as error:  # of a number with thousands of digits, of a list in itself
        raise EncodingError(f"a message between parties cannot be written: {error}") from None
    if len(text) > MOST_TEXT:
        raise EncodingError(f"a message between parties says at most {MOST_TEXT} bytes beside its arrays")
    if len(held) >= MOST_PARTS:
        raise EncodingError(f"a message between parties has at most {MOST_PARTS} parts, found {1 + len(held)}")
    return text


def _form(value: Any, held: _Held) -> Any:
    # The type itself: a subclass, such as an enum or a named tuple, would come back as something else.
    cls = type(value)
    if cls in _PLAIN:
        return value
    if cls is tuple or cls is list:
        return {cls.__name__: [_form(item, held) for item in value]}
    if cls is bytes:
        held.append(value)
        return {"bytes": len(held) - 1}
    if cls is np.ndarray or issubclass(cls, np.generic):
        dtype, kind = value.dtype, _kind(value)
        if kind:
            held.append(value)
            return {kind: len(held) - 1, "dtype": _NAMES_OF.get(dtype) or dtype.str, "shape": value.shape}
    if cls is dict:
        return {"dict": [[_form(key, held), _form(item, held)] for key, item in value.items()]}
    name = cls.__name__
    if issubclass(cls, OpenedSum):
        told = value.packed() if held.packed else (value.words, value.members, value.check)
        return {"record": name, "fields": [_form(part, held) for part in told]}
    if _RECORDS.get(name) is not cls:
        raise EncodingError(f"a message between parties holds no {name}")
    return {"record": name, "fields": [_form(getattr(value, field), held) for field in _NAMES[cls]]}


def _kind(value: Any) -> str:
    """Returns as what an array or a scalar of NumPy's is written; nothing where it is none that is."""
    cls, dtype = type(value), value.dtype
    numbers = dtype in _NAMES_OF or _TIMES.fullmatch(dtype.str)
    if cls is np.ndarray and (numbers or _TEXTS.fullmatch(dtype.str)):
        # The order of a matrix's numbers decides in which order they are added up, and so about the last bit.
        return "array" if value.ndim < 2 or value.flags.c_contiguous or not value.flags.f_contiguous else "columns"
    # np.float64(1) and an array of shape () are not the same to the code that gets them.
    return "scalar" if cls is dtype.type and numbers else ""


def _memory(held: Any) -> WirePart:
    """Returns the bytes of what `_form` has put aside."""
    if type(held) is bytes:
        return held
    if not held.flags.c_contiguous:
        held = held.T if held.flags.f_contiguous else np.ascontiguousarray(held)
    return memoryview(held.reshape(-1).view(np.uint8))


class _Reading:
    """Makes a value of a form and the parts that it names.

    Each part is named once, in order, as `write` does: a form that named one again and again would take memory for it
    each time.

    Args:
        parts: All but the first.
    """

    def __init__(self, parts: Sequence[WirePart]) -> None:
        self._parts = parts
        self._places = itertools.count()

    def value(self, form: Any) -> Any:
        """Returns the value of a form.

        Raises:
            EncodingError: It is none.
        """
        if type(form) in _PLAIN:
            return form
        # By its first name. That all else is as `write` has it, in kind and number, `read` finds out.
        match next(iter(form), None):
            case "tuple":
                return tuple(self._values(form["tuple"]))
            case "list":
                return self._values(form["list"])
            case "array":
                return _array(self._part(form["array"]), _dtype(form["dtype"]), form["shape"])
            case "bytes":
                return bytes(self._part(form["bytes"]))
            case "record":
                name, fields = form["record"], self._values(form["fields"])
                return _sum(*fields) if name == "OpenedSum" else _RECORDS[name](*fields)
            case "dict":
                return {self.value(key): self.value(item) for key, item in form["dict"]}
            case "columns":
                return _array(self._part(form["columns"]), _dtype(form["dtype"]), form["shape"][::-1]).T
            case "scalar":
                return _array(self._part(form["scalar"]), _dtype(form["dtype"]), form["shape"])[()]
        raise EncodingError(f"found {type(form).__name__}")

    def _values(self, forms: list[Any]) -> list[Any]:
        return [self.value(form) for form in forms]

    def _part(self, place: int) -> WirePart:
        expected = next(self._places)
        if place != expected:
            raise EncodingError(f"expected part {expected}, found another one")
        return self._parts[place]


def _sum(words: Any, *told: Any) -> OpenedSum:
    """Returns a sum, packed or as it is, by how much is told of it."""
    if len(told) > 2:
        return OpenedSum.unpacked(words, *told)
    if not isinstance(words, np.ndarray) or words.ndim != 1 or words.dtype.str not in ("<u4", "<u8"):
        raise EncodingError("a sum is of words of 32 or 64 bits")
    return OpenedSum(words, *told)


def _dtype(name: str) -> np.dtype[Any]:
    if name not in _DTYPES and (_TIMES.fullmatch(name) or _TEXTS.fullmatch(name)):
        return np.dtype(name)
    return _DTYPES[name]


def _array(part: WirePart, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    # Before anything is computed with them: lengths of thousands of digits would be multiplied for minutes.
    if len(shape) > _MOST_AXES or not all(type(length) is int and 0 <= length <= _LONGEST for length in shape):
        raise EncodingError(f"an array has at most {_MOST_AXES} axes, and at most {_LONGEST} numbers along each")
    # NumPy would read as many items as there are bytes for.
    if math.prod(shape) * dtype.itemsize != len(part):
        raise EncodingError(f"{len(part)} bytes are not an array of {dtype} of shape {shape}")
    array = np.frombuffer(part, dtype).reshape(shape)
    # As on the other ways that messages take: what runs on one transport must not fail on another.
    array.flags.writeable = False
    return array
