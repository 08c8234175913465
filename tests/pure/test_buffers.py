# SPDX-License-Identifier: Apache-2.0
"""Memory of long vectors is used again, but never while somebody still looks at it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedray.protocol.crypto import buffers
from fedray.protocol.crypto.buffers import LEAST_BYTES, BufferPool

COUNT = LEAST_BYTES + 8


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.ctypes.data)


def test_memory_that_nobody_uses_is_taken_again():
    memory = BufferPool()
    first = memory.take(COUNT)
    first.flags.writeable = False  # as a message's is, once it is on its way
    place = address(first)
    del first
    again = memory.take(COUNT)
    assert address(again) == place
    assert again.flags.writeable


VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda a: a,
    "a part": lambda a: a[5:9],
    "another dtype": lambda a: a.view("<u8")[1:],
    "a part of a part": lambda a: a[8:].view("<u4")[1:].reshape(-1, 1)[::2],
    "a memory view": lambda a: a.data,
    "in a tuple": lambda a: ("sum", a),
}


@pytest.mark.parametrize("look", VIEWS.values(), ids=VIEWS)
def test_memory_that_somebody_looks_at_is_left_alone(look):
    memory = BufferPool()
    held = look(memory.take(COUNT))
    for _ in range(2):
        other = memory.take(COUNT)
        other[:] = 1
        assert not np.shares_memory(np.asarray(held[1] if isinstance(held, tuple) else held), other)


def test_other_lengths_and_short_memory_are_fresh():
    memory = BufferPool()
    assert [len(memory.take(count)) for count in (COUNT, COUNT + 8, 100, 0)] == [COUNT, COUNT + 8, 100, 0]
    first, second = memory.take(100), memory.take(100)
    assert not np.shares_memory(first, second)


def test_memory_that_does_not_count_who_looks_is_found(monkeypatch):
    monkeypatch.setattr(buffers.sys, "getrefcount", lambda _: 2)
    with pytest.raises(AssertionError):
        test_memory_that_somebody_looks_at_is_left_alone(VIEWS["another dtype"])
