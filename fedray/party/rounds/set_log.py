# SPDX-License-Identifier: Apache-2.0
"""SetLog: whose inputs the rounds of a segment summed, as one party has seen it. What it reports of them to the driver.

Knows numbers and names. A round that was repeated counts once, under the number that it has in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedray.party.records import SumSet
from fedray.types import PartyName, Round


class SetLog:
    """The sets of one segment."""

    def __init__(self) -> None:
        self._sets: list[SumSet] = []

    def note(self, number: Round, members: Sequence[PartyName], *, opened: bool) -> None:
        """Notes what came of a round, the next one in order.

        Args:
            number: The round.
            members: Whose inputs its sum has; of one that was abandoned, who goes on.
            opened: Whether there is a sum.
        """
        one = SumSet(number, 1, tuple(members), opened)
        last = self._sets[-1] if self._sets else None
        if last is not None and one == replace(last, first=last.first + last.count, count=1):
            self._sets[-1] = replace(last, count=last.count + 1)
        else:
            self._sets.append(one)

    @property
    def sets(self) -> tuple[SumSet, ...]:
        """All that was noted."""
        return tuple(self._sets)
