# SPDX-License-Identifier: Apache-2.0
"""Who waits is counted, the asker aside, and one can wait until they do no more."""

import threading

from fedray.runtime.waits import Waits


def test_others_are_waited_for_and_oneself_is_not() -> None:
    waits, inside, leave = Waits(), threading.Event(), threading.Event()

    def other() -> None:
        with waits.one(), waits.one():
            inside.set()
            leave.wait(30)

    with waits.one():
        assert not waits.others()
        waits.drain(30)
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(30)
        assert waits.others()
        waits.drain(0.01)
        assert waits.others()
        leave.set()
        waits.drain(30)
        assert not waits.others()
        thread.join()
