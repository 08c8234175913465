# SPDX-License-Identifier: Apache-2.0
"""Membership: which parties of one model are there, which were lost, and whose model is the current one.

Knows who is left and how many a sum needs. Knows no model, no order and no protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from fedray.errors import PartyLost
from fedray.rounds.sum_session import SumSession
from fedray.rounds.supervision import REMEDY
from fedray.types import PartyName

T = TypeVar("T")


class Membership:
    """The parties of one model.

    Args:
        parties: All of them, in roster order.
        leads: Whom to ask for the model, in this order, while nobody has trained.
        sums: The handle on their rounds, which knows who is still at a segment.
    """

    def __init__(self, parties: Sequence[PartyName], leads: Sequence[PartyName], sums: SumSession) -> None:
        self._parties, self._leads, self._sums = tuple(parties), list(leads), sums
        self._dead: frozenset[PartyName] = frozenset()
        self._least = min(len(self._parties), 3)

    @property
    def left(self) -> list[PartyName]:
        """Everybody whose process is there, in roster order."""
        return [party for party in self._parties if party not in self._dead]

    def lose(self, parties: Iterable[PartyName]) -> None:
        """Says of parties that their processes have ended."""
        self._dead |= frozenset(parties)

    def lead(self, parties: Iterable[PartyName]) -> None:
        """Says who holds the current model."""
        self._leads = list(parties)

    def first(self, ask: Callable[[PartyName], T]) -> T:
        """Returns the answer of a party that holds the current model; there may be several, and one is enough.

        Raises:
            PartyLost: None is left.
        """
        while True:
            party, *others = self._leads
            try:
                return ask(party)
            except PartyLost as error:
                if error.party != party or not others:
                    raise
                self.lose([party])
                self._leads = others

    def there(self) -> list[PartyName]:
        """Returns everybody who is there and free, in roster order; waits for others where that is not enough.

        Raises:
            PartyLost: Too few parties are left.
            PartyTimeout: Too few are free.
        """
        left = self.left
        if len(left) < self._least:
            gone = sorted(self._dead)
            raise PartyLost(
                f"{', '.join(map(repr, gone))} lost: a sum of the {len(left)} that are left would show each of them "
                f"the other's contribution. {REMEDY}",
                party=gone[0],
            )
        busy = self._sums.busy()
        if len(left) - len(busy) < self._least:
            self._sums.await_busy()
            busy = self._sums.busy()
        return [party for party in left if party not in busy]

    def as_before(self, there: Sequence[PartyName]) -> Sequence[PartyName]:
        """Returns those who took part last, where they are enough: on one model parties allow no other sum."""
        before = [party for party in self._sums.parties if party in there]
        return before if len(before) >= self._least else there


def with_remedy(error: PartyLost) -> PartyLost:
    """Returns the loss of a party whose rows would be needed, with what to do about it."""
    return PartyLost(
        f"{str(error).rstrip('.')}, and its rows are gone with it. Save the model with save(path), start again with "
        "sf.shutdown() and sf.init(...), and go on from there with load(path)",
        party=error.party,
    )
