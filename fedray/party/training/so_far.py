# SPDX-License-Identifier: Apache-2.0
"""SoFar: a party's own loss over the rows of an epoch so far, which the driver may ask for while rounds go on.

Decides how often it is told: two answers tell, by subtraction, the loss over the rows between them. Knows no clock, and
not who asks.
"""

from __future__ import annotations

from collections.abc import Callable

from fedray.metrics import Mean
from fedray.party.context import Reply
from fedray.party.door.egress import Kind

SHARE = 10
"""Of an epoch's steps at least one in so many lies between two answers, however often the driver asks."""
LEAST_ROWS = 100
"""So many of the party's rows lie between two answers, too: a loss over few rows says something of each of them."""


class SoFar:
    """What one party tells of its loss within an epoch.

    Args:
        tells: Whether it tells anything.
    """

    def __init__(self, tells: bool) -> None:
        self._tells = tells
        self._untold: Mean | None = None
        self.begin(0)

    def begin(self, rows: int) -> None:
        """Begins an epoch.

        Args:
            rows: How many rows this party has in it, each once and alike; 0 where that is not so. With weights, or
                drawn anew for every step, a hundred of them may be one in truth: then it tells nothing.
        """
        self._asked, self._untold = False, None
        self._step, self._rows = 0, 0  # as of the last look: its step, and the rows since
        self._left = rows

    def note(self, done: int, steps: int, rows: int, read: Callable[[], Mean | None]) -> None:
        """Looks at the loss after a round that was opened, where somebody has asked and enough has come since.

        Args:
            done: Steps of the epoch that are over.
            steps: Steps of the epoch.
            rows: Rows that this party had in the round.
            read: Returns the loss over its rows of the epoch so far.
        """
        self._rows += rows
        self._left -= rows
        enough = (done - self._step) * SHARE >= steps and self._rows >= LEAST_ROWS
        # Whoever has not asked costs nobody anything. At the epoch's end all of it is reported: that is an answer, too.
        if self._asked and enough and self._left >= LEAST_ROWS:
            self._step, self._rows, self._untold = done, 0, read()

    def answer(self) -> Reply | None:
        """Returns the loss as of the last look, once; None where there was none since.

        It is asked for in another thread than the one that trains, and hands over what that one has left here.
        """
        self._asked = self._tells
        told, self._untold = self._untold, None
        return None if told is None else Reply(Kind.METRICS, (told.total, told.count))
