# SPDX-License-Identifier: Apache-2.0
"""Training over lines between nodes: bit by bit what it is inside one process, however often the link is cut."""

import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from inline.far_parties import talk_over_tls
from inline.federated import weights_of, world
from pure.far_kit import Relay

import fedray as sf
from fedray.runtime.far import redial
from fedray.runtime.far.calling import Address
from fedray.security.aggregation import SecureAggregator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lines need Linux")


def trained(start, **settings) -> list[np.ndarray]:
    """Returns the weights after some rounds of three parties."""
    found = world(start, rows=(12, 12, 12), backend="numpy")
    aggregator = SecureAggregator(found.server, found.devices, **settings)
    model = found.model(aggregator=aggregator)
    history = model.fit(found.x, found.y, epochs=2, batch_size=4, verbose=0)
    assert history.dropouts == []
    weights = weights_of(model)
    sf.shutdown()
    return weights


@pytest.mark.parametrize("settings", [{}, pytest.param({"on_dropout": "recover"}, marks=pytest.mark.slow)])
def test_a_run_whose_link_is_cut_again_and_again_ends_with_the_same_weights(start, monkeypatch, settings):
    monkeypatch.setattr(redial, "REFUSED_SECONDS", 60.0)  # however busy the machine is
    expected = trained(start, **settings)
    relays: list[Relay] = []

    def cuts() -> Iterator[int | None]:
        # Past the handshake most of the time, which takes 1.2 kB.
        draw = random.Random(1)
        for _ in range(12):
            yield draw.randrange(900, 4000)

    def by_way_of(party: str, address: Address) -> Address:
        if party != "server":
            return address
        relays.append(Relay(address, cuts()))
        return relays[-1].address

    talk_over_tls(monkeypatch, by_way_of)
    found = trained(start, **settings)
    assert relays[0].connections > 6
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for relay in relays:
        relay.close()
