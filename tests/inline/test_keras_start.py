# SPDX-License-Identifier: Apache-2.0
"""TensorFlow as it starts in a party, or as it is found there."""

from fedray.backends.keras import start


def test_that_tensorflow_keeps_its_threads_is_said_once(eager_context, caplog):
    for _ in range(3):  # as three parties in one process
        start.frameworks(threads=7)
    assert ["keeps its number of threads, not 7" in text for text in caplog.messages] == [True]
