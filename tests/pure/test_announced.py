# SPDX-License-Identifier: Apache-2.0
"""What the server believes of repeats that came to nothing elsewhere: the compute parties' word, within what can be."""

from __future__ import annotations

import pytest
from pure.masking_kit import manifest_of

from fedray.errors import ProtocolError
from fedray.party.records import Expect
from fedray.party.rounds.announced import Announced
from fedray.protocol.scales import MOST_REPEATS


def announced() -> Announced:
    return Announced(Expect(number=7, count=3, manifest=manifest_of(2)))


def test_repeats_that_were_void_move_the_numbers_on() -> None:
    found = announced()
    found.take_void("p", 2, elsewhere=True)
    found.take_void("q", 1, elsewhere=True)
    assert (found.void, found.planned(11), found.end(4, repeats=False)) == (2, 9, 12)


@pytest.mark.parametrize(("void", "elsewhere"), [(1, False), (10**9, False), (3 * MOST_REPEATS + 1, True), (-1, True)])
def test_a_count_that_cannot_be_is_refused(void: int, elsewhere: bool) -> None:
    """Numbers that run a billion ahead of the plan would have every party prepare keys for all of them."""
    found = announced()
    with pytest.raises(ProtocolError, match=f"dave says that {void} repeats came to nothing; there can be at most"):
        found.take_void("dave", void, elsewhere=elsewhere)
    assert found.void == 0
