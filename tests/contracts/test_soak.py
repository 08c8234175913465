# SPDX-License-Identifier: Apache-2.0
"""Many calls leave a party's memory as it was. A session of its own: others leave services in the parties' tables."""

import gc
import time
from itertools import pairwise

import numpy as np
import pytest

import fedray as sf
from fedray.party.context import Reply
from fedray.party.door.egress import Kind
from fedray.runtime.session import current


@pytest.fixture(scope="module")
def shared(address):
    sf.init(["alice", "bob"], address)
    yield current()
    sf.shutdown()


@pytest.fixture
def memory(shared):
    """Returns a function that tells (objects in alice's table, megabytes of her process)."""

    class Memory:
        def __init__(self, context):
            self.table = context._table

        def read(self):
            import os

            import psutil

            return Reply(Kind.METRICS, (len(self.table), psutil.Process(os.getpid()).memory_info().rss / 1e6))

    key = shared.serve("alice", Memory)
    yield lambda: shared.get([shared.ask("alice", key, "read")], 30)[0]
    shared.release("alice", key)


def settled(memory, objects):
    """Waits until the table has shrunk to a size; returns the last reading."""
    gc.collect()
    deadline = time.monotonic() + 20
    while (reading := memory())[0] > objects and time.monotonic() < deadline:
        time.sleep(0.1)
    return reading


def work(alice, bob, counter, calls, rows):
    for i in range(calls):
        x = alice(np.full)(rows, i)
        y, z = alice(lambda a: (a + 1, a[:10]), num_returns=2)(x)
        there = y.to(bob)
        if i % 50 == 49:
            assert sf.reveal([z, there])[1][0] == i + 1
            assert sf.reveal(counter.add(x)) == i + 1


@pytest.mark.parametrize(
    ("calls", "rows"), [(50, 100_000), pytest.param(500, 10_000, marks=pytest.mark.slow)], ids=["50", "500"]
)
def test_calls_leave_memory_flat(shared, memory, calls, rows):
    class Counter:
        def __init__(self):
            self.last = 0

        def add(self, array):
            return int(array[0]) + 1

    alice, bob = sf.PYU("alice"), sf.PYU("bob")
    counter = sf.proxy(Counter)(device=alice)
    objects, _ = settled(memory, 2)
    assert objects == 2  # the service that reads, and the counter
    work(alice, bob, counter, calls // 2, rows)  # allocators and caches fill
    readings = [settled(memory, 2)]
    for _ in range(3):
        work(alice, bob, counter, calls, rows)
        readings.append(settled(memory, 2))
    assert [objects for objects, _ in readings] == [2] * 4
    if type(shared.transport).__name__ != "InlineTransport":  # there, one process is everything
        # What a call keeps grows with every turn, by 40 for one value each. On a busy machine one turn may grow by half
        # of that, of values that are on their way while memory is read.
        assert min(after - before for (_, before), (_, after) in pairwise(readings)) < 20


def test_failed_calls_leave_nothing_either(shared, memory):
    alice = sf.PYU("alice")
    objects, _ = settled(memory, 1)
    for _ in range(20):
        held = alice(lambda a: a)(alice(lambda: np.zeros(10)[10])())
        del held
    assert settled(memory, objects)[0] == objects


def test_a_cycle_of_handles_is_released_by_the_collector(shared, memory):
    alice = sf.PYU("alice")
    objects, _ = settled(memory, 1)
    ring = [alice(abs)(-1)]
    ring.append(ring)
    sf.wait(ring[0])
    assert memory()[0] == objects + 1
    del ring
    assert settled(memory, objects)[0] == objects
