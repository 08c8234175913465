# SPDX-License-Identifier: Apache-2.0
"""Worlds of parties and a referee, which end with their test."""

import pytest


@pytest.fixture
def world():
    """Returns `World`; see there."""
    from pure.referee_kit import World

    made = []

    def make(parties=4, part="masking", **settings):
        made.append(World(parties, part, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()
