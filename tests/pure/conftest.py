# SPDX-License-Identifier: Apache-2.0
"""Worlds of parties and a barrier, which end with their test."""

import pytest


@pytest.fixture
def world():
    """Returns `World`; see there."""
    from pure.barrier_kit import World

    made = []

    def make(parties=4, scheme="masking", **settings):
        made.append(World(parties, scheme, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()
