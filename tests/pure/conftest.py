# SPDX-License-Identifier: Apache-2.0
"""Worlds of parties and their server, and a process that knows nothing of this one."""

import pytest


@pytest.fixture
def world():
    """Returns `World`; see there."""
    from pure.barrier_kit import World

    return lambda parties=4, scheme="masking", **settings: World(parties, scheme, **settings)


@pytest.fixture(scope="module")
def elsewhere():
    """Returns `Elsewhere`; see there."""
    from pure.elsewhere_kit import Elsewhere

    other = Elsewhere()
    yield other
    other.close()
