# SPDX-License-Identifier: Apache-2.0
"""What is done beside something else is done in order, waited for by whoever asks, and fails aloud."""

import threading

import pytest

from fedray.party.kept.beside import Beside


def test_one_piece_after_another_and_each_is_waited_for():
    beside, may_go, done = Beside("test"), threading.Event(), []
    beside.rest()
    beside.start(lambda: done.append(may_go.wait(60)))
    assert not done
    may_go.set()
    beside.start(lambda: done.append("second"))
    assert done[0] is True
    beside.rest()
    assert done == [True, "second"]


def test_whoever_waits_learns_of_a_failure_once():
    beside = Beside("test")

    def fails():
        raise OSError("full")

    beside.start(fails)
    with pytest.raises(OSError, match="full"):
        beside.start(lambda: pytest.fail("it was not waited for"))
    beside.rest()


def test_two_may_wait_for_the_same():
    beside, may_go, done = Beside("test"), threading.Event(), []
    beside.start(lambda: done.append(may_go.wait(60)))
    others = [threading.Thread(target=beside.rest) for _ in range(3)]
    for one in others:
        one.start()
    may_go.set()
    for one in others:
        one.join(60)
    assert done == [True]
