# SPDX-License-Identifier: Apache-2.0
"""Absences: from every round that somebody missed to one record for each time that a party dropped out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fedray.ml.nn.history import Dropout
from fedray.party.orders import Missing
from fedray.types import PartyName, Round


class Absences:
    """Who is away in one `fit`, and what is to be told of it.

    Args:
        dropouts: The history's records, which grow here.
    """

    def __init__(self, dropouts: list[Dropout]) -> None:
        self._dropouts = dropouts
        self._away: dict[PartyName, int] = {}
        """Party that is away -> place of its record."""

    def take(self, epoch: int, missing: Sequence[Missing], there: Collection[PartyName]) -> list[str]:
        """Records the absences of one segment, and returns what is new: who dropped out, and who is back.

        Args:
            epoch: Epoch, counted from 0.
            missing: Every absence, in order of the rounds.
            there: Who went through the segment to its end.
        """
        news: list[str] = []
        last: dict[PartyName, Round] = {}
        for one in missing:
            goes_on = one.party in self._away and last.get(one.party, one.number - 1) == one.number - 1
            last[one.party] = one.number
            if goes_on:
                place = self._away[one.party]
                self._dropouts[place] = replace(self._dropouts[place], rounds=self._dropouts[place].rounds + 1)
            else:
                self._away[one.party] = len(self._dropouts)
                self._dropouts.append(Dropout(epoch, one.number, one.party, one.reason, one.abandoned))
                news.append(f"epoch {epoch + 1}: {one.party} dropped out of round {one.number} ({one.reason})")
        for party in sorted(self._away.keys() & set(there)):
            del self._away[party]
            news.append(f"epoch {epoch + 1}: {party} takes part again")
        return news
