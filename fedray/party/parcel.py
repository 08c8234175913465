# SPDX-License-Identifier: Apache-2.0
"""Parcel: a Python value as bytes, and how large a value is. Knows nothing of who sends it or whether it may go.

Large arrays stay outside the pickle, so that a transport moves them without a further copy.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import PlanError, type_of
from fedray.party.code_source import Pickler
from fedray.protocol.opened import OpenedSum
from fedray.types import Value

_FRAME_BYTES = 8  # about what a pickle adds to each part of a value


@dataclass(frozen=True, slots=True)
class Parcel:
    """A pickled value.

    Attributes:
        head: The pickle without its large buffers.
        buffers: The buffers, uint8[k] each, in the pickle's order.
    """

    head: bytes
    buffers: tuple[NDArray[np.uint8], ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return len(self.head) + sum(b.nbytes for b in self.buffers)

    def open(self) -> Value:
        """Returns a fresh, writable copy of the value."""
        # Bytearrays, since arrays over them can be written to; the transport's own memory is read-only.
        return pickle.loads(self.head, buffers=[bytearray(b) for b in self.buffers])


def pack(value: Value) -> Parcel:
    """Pickles a value; functions and classes that the receiver cannot import travel with their code.

    The parcel's buffers are views of the value's memory until it has travelled.

    Raises:
        PlanError: The value, or something inside it, cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    pickler = Pickler(stream, buffers)
    try:
        pickler.dump(value)
    except PlanError:
        raise
    except Exception as error:
        why = "; ".join(filter(None, [str(error), pickler.culprit()]))
        raise PlanError(f"a value cannot be pickled, found {type_of(value)}: {why}") from error
    return Parcel(stream.getvalue(), tuple(np.frombuffer(b.raw(), dtype=np.uint8) for b in buffers))


@dataclass(frozen=True, slots=True)
class Size:
    """What a value looks like from outside.

    Attributes:
        shape: Shape of the array, or of the largest array right inside a tuple, list or record; else None.
        dtype: Its dtype as a string, else the name of the value's type.
        nbytes: Bytes of an array; of a tuple or record those of its parts and a few for each; else those of its pickle.
    """

    shape: tuple[int, ...] | None
    dtype: str
    nbytes: int


def measure(value: Value, seen: Glance | None = None) -> Size:
    """Returns the size of a value as it would travel.

    Args:
        value: The value.
        seen: What `glance` has returned of it, where it was looked at before.

    Raises:
        PlanError: It cannot be pickled.
    """
    seen = seen or glance(value)
    return Size(seen.shape, seen.dtype, _weigh(value) if seen.nbytes is None else seen.nbytes)


@dataclass(frozen=True, slots=True)
class Glance:
    """What can be said of a value without writing it down.

    Attributes:
        shape: As in `Size`.
        dtype: As in `Size`.
        nbytes: As in `Size`; None where the value would have to be taken apart, which for a user's own class runs the
            user's code.
    """

    shape: tuple[int, ...] | None
    dtype: str
    nbytes: int | None = None


def glance(value: Value) -> Glance:
    """Returns what a value looks like, without looking into it."""
    if isinstance(value, Parcel):
        return Glance(None, "parcel", value.nbytes)
    # An array of objects holds pointers only; how many bytes would travel, its pickle alone can tell.
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return Glance(tuple(int(n) for n in value.shape), dtype_of(value), int(value.nbytes))
    if isinstance(value, bytes | bytearray | memoryview):
        return Glance((len(value),), "bytes", len(value))
    parts = value if isinstance(value, tuple | list) else _fields(value)
    arrays = [part for part in parts if isinstance(part, np.ndarray | bytes)]
    if not arrays:
        return Glance(None, type(value).__name__)
    largest = glance(max(arrays, key=lambda part: len(part) if isinstance(part, bytes) else part.nbytes))
    return Glance(largest.shape, largest.dtype)


def dtype_of(array: Any) -> str:
    """Returns the dtype of an array as a string, without the names of its fields where it has any.

    They are the names of columns of a party's file, and this goes into errors and the ledger.
    """
    dtype = array.dtype
    return f"record of {len(dtype.names)} fields" if getattr(dtype, "names", None) else str(dtype)


def _fields(value: Value) -> Collection[Any]:
    if not is_dataclass(value) or isinstance(value, type):
        return ()
    return [getattr(value, field.name) for field in fields(value)]


def _weigh(value: Value) -> int:
    """Returns about how many bytes a value takes. Messages are not pickled just to find out."""
    if isinstance(value, OpenedSum):  # as it travels between nodes; to one of this machine it goes as it is
        return 2 * _FRAME_BYTES + value.nbytes + _weigh((value.members, value.check))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _FRAME_BYTES + int(value.nbytes)
    if isinstance(value, bytes | str):
        return _FRAME_BYTES + len(value)
    if value is None or isinstance(value, int | float | complex | Enum):
        return _FRAME_BYTES
    parts = value if type(value) is tuple else _fields(value)
    # An empty tuple, too: most answers hold one, and pickling it took longer than all the rest.
    if parts or type(value) is tuple:
        return _FRAME_BYTES + sum(map(_weigh, parts))
    return pack(value).nbytes
