# SPDX-License-Identifier: Apache-2.0
"""Worlds of parties and their server, and processes that know nothing of this one."""

import pytest


@pytest.fixture
def world():
    """Returns `World`; see there."""
    from pure.barrier_kit import World

    return lambda parties=4, scheme="masking", **settings: World(parties, scheme, **settings)


@pytest.fixture(scope="session")
def forks():
    """Returns `Forks`; see there."""
    from pure.forks_kit import Forks

    other = Forks()
    yield other
    other.close()


@pytest.fixture
def elsewhere(forks):
    """Returns `Elsewhere`; see there."""
    from pure.elsewhere_kit import Elsewhere

    return Elsewhere(forks)
