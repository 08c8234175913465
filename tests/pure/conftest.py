# SPDX-License-Identifier: Apache-2.0
"""Worlds of parties and their server."""

import pytest


@pytest.fixture
def world():
    """Returns `World`; see there."""
    from pure.barrier_kit import World

    return lambda parties=4, scheme="masking", **settings: World(parties, scheme, **settings)
