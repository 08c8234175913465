# SPDX-License-Identifier: Apache-2.0
"""Awaited: who keeps a round waiting, told while it lasts. Pure: what the server says and the time come in."""

from __future__ import annotations

from fedray.party.records import Progress
from fedray.types import PartyName

PATIENCE_SECONDS = 5.0
"""So long a round may wait for somebody without a word; longer where it has waited longer before, as for a slow one."""


class Awaited:
    """What is told of waiting, over all segments of a session.

    Args:
        timeout: Seconds after which the server goes on without whoever is missing.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._state: tuple[int, tuple[PartyName, ...]] = (0, ())
        self._since = 0.0
        self._usual = PATIENCE_SECONDS / 2
        self._told = False

    def look(self, progress: Progress, now: float) -> str | None:
        """Returns what the user is to be told, if anything.

        Args:
            progress: What the server says.
            now: When, in seconds of any clock.
        """
        awaited = tuple(party for party in progress.awaited if party not in progress.away)
        state, waited = (progress.done, awaited), now - self._since
        if state != self._state:
            before, told = self._state, self._told
            self._state, self._since, self._told = state, now, False
            self._usual = max(self._usual, waited if before[1] else 0.0)
            goes_on = told and not progress.error
            return f"round {before[0] + 1} of the segment goes on after {waited:.0f} s" if goes_on else None
        # Twice what is usual: of a party that is slower than the others in every round, nothing new is to be told.
        if not awaited or self._told or waited < 2 * self._usual:
            return None
        self._told = True
        return (
            f"round {progress.done + 1} of the segment has waited for {', '.join(awaited)} for {waited:.0f} s; the "
            f"others' messages are there. After {self._timeout:g} s whoever is missing counts as late"
        )
