# SPDX-License-Identifier: Apache-2.0
"""Many rounds leave every process as large as it was: no vector stays behind."""

import numpy as np
import pytest
from inline.federated import world

import fedray as sf

FEATURES, WIDTH = 25_000, 4
VECTOR = 4 * FEATURES * WIDTH / 1e6
"""Megabytes of the model's vector, float32."""


def wide():
    """Many parameters; nested so that it travels with its code."""

    def builder():
        from fedray.ml.nn.numpy import LinearRegression

        return LinearRegression(25_000, 4)

    return builder


def inside():
    """Returns what runs inside a party: (its megabytes, a broken variant of the server that keeps every answer)."""

    def megabytes():
        import ctypes
        import gc

        import psutil

        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed, but is kept for later, is no leak
        return psutil.Process().memory_info().rss / 1e6

    def leak():
        from fedray.party.rounds.server_rounds import ServerRounds

        advanced, kept = ServerRounds._advanced, []
        ServerRounds._advanced = lambda self, current: kept.append(advanced(self, current)) or kept[-1]

    return megabytes, leak


MEGABYTES, LEAK = inside()


def sizes(fed):
    """Returns the megabytes of each process: parties, server, driver.

    The least of some readings: what the last calls held is freed a moment after they are answered.
    """
    readings = [[*sf.reveal([d(MEGABYTES)() for d in (*fed.devices, fed.server)]), MEGABYTES()] for _ in range(4)]
    return np.min(readings, axis=0)


def growth(fed, model, rounds):
    """Returns by how much each process grows over so many rounds, in vectors a round."""
    before = sizes(fed)
    model.fit(fed.x, fed.y, batch_size=1, epochs=rounds // 10, verbose=0)
    return (sizes(fed) - before) / VECTOR / rounds


@pytest.mark.parametrize("rounds", [80, pytest.param(400, marks=pytest.mark.slow)])
def test_memory_is_flat_over_many_rounds(start, cluster, rounds):
    rows = np.eye(20, FEATURES, dtype=np.float32)
    fed = world(start, rows=(10, 10), address=cluster, x=rows, y=np.ones((20, WIDTH), np.float32))
    model = fed.model(wide(), backend="numpy")
    model.fit(fed.x, fed.y, batch_size=1, verbose=0)
    assert max(growth(fed, model, rounds)) < 0.2
    sf.wait(fed.server(LEAK)())
    assert growth(fed, model, 40)[2] > 0.75
