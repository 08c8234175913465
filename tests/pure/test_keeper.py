# SPDX-License-Identifier: Apache-2.0
"""The thread that starts a cluster outlives the one that asked for it."""

import threading

import pytest

from fedray.runtime.keeper import Keeper


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_the_thread_that_did_the_work_stays_until_it_is_released():
    keeper, by = Keeper(), []
    in_a_thread(lambda: keeper.run(lambda: by.append(threading.current_thread())))
    assert by[0].is_alive()
    keeper.release()
    by[0].join(10)
    assert not by[0].is_alive()


def test_the_main_thread_does_it_by_itself():
    by = []
    Keeper().run(lambda: by.append(threading.current_thread()))
    assert by == [threading.main_thread()]


def test_what_is_raised_comes_to_whoever_asked_and_the_thread_ends():
    def fail():
        by.append(threading.current_thread())
        raise ValueError("mine")

    def ask():
        with pytest.raises(ValueError, match="mine"):
            Keeper().run(fail)
        by[0].join(10)
        by.append(by[0].is_alive())

    by = []
    in_a_thread(ask)
    assert by[1:] == [False]
