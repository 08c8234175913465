# SPDX-License-Identifier: Apache-2.0
"""Who is away in one `fit`, from when to when, and what is told of it. Pure: knows rounds, numbers and names.

The server notes whom it missed from a round. It does not note whom it no longer expects: a party that is not in a
smaller view, or that a new session began without. Those are away as well, and `stretch` counts their rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedray.ml.nn.history import Dropout
from fedray.party.records import Missing
from fedray.types import PartyName, Round


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rounds of one session that followed each other.

    Attributes:
        first: Number of the first.
        missing: Every absence, one for each round and party, in order of the rounds.
        there: Who went through them to the end.
        anew: Because of whom the parties' optimizers began anew; None where they did not.
    """

    first: Round
    missing: tuple[Missing, ...]
    there: frozenset[PartyName]
    anew: tuple[PartyName, ...] | None = None


def stretch(
    rounds: range,
    noted: Sequence[Missing],
    left_out: Mapping[PartyName, str],
    there: Collection[PartyName],
    anew: Iterable[tuple[PartyName, ...] | None] = (),
) -> Stretch:
    """Returns a stretch with all absences, those that the server noted and those that it had no reason to note.

    Args:
        rounds: Numbers of the rounds that are over.
        noted: Absences that the server noted.
        left_out: Parties that were not to take part in it, and why.
        there: Who went through it to the end.
        anew: What these say of beginning anew.
    """
    found = {(one.number, one.party): one for one in noted}
    for party, reason in left_out.items():
        for number in rounds:
            found.setdefault((number, party), Missing(number, party, reason, abandoned=False))
    for one in noted:
        # After an abandoned round the view is smaller, until the session ends.
        for number in range(one.number + 1, rounds.stop) if one.abandoned else ():
            found.setdefault((number, one.party), replace(one, number=number, abandoned=False))
    said = [parties for parties in anew if parties is not None]
    because = tuple(dict.fromkeys(party for parties in said for party in parties)) if said else None
    return Stretch(rounds.start, tuple(found[key] for key in sorted(found)), frozenset(there), because)


class Absences:
    """Who is away in one `fit`, and what is to be told of it.

    Args:
        dropouts: The history's records, which grow here.
    """

    def __init__(self, dropouts: list[Dropout]) -> None:
        self._dropouts = dropouts
        self._away: dict[PartyName, int] = {}
        """Party that is away -> place of its record."""

    def take(self, epoch: int, rounds: Stretch) -> list[str]:
        """Records the absences of one stretch, and returns what is new: who dropped out, and who is back.

        Args:
            epoch: Epoch, counted from 0.
            rounds: The stretch; it goes on where the one before ended, perhaps in another session.
        """
        news: list[str] = []
        last: dict[PartyName, Round] = {}
        for one in rounds.missing:
            # One record per absence: rounds that follow each other belong together, and a gap between them means that
            # the party was back.
            goes_on = one.party in self._away and last.get(one.party, rounds.first - 1) == one.number - 1
            last[one.party] = one.number
            if goes_on:
                place = self._away[one.party]
                self._dropouts[place] = replace(self._dropouts[place], rounds=self._dropouts[place].rounds + 1)
            else:
                self._away[one.party] = len(self._dropouts)
                self._dropouts.append(Dropout(epoch, one.number, one.party, one.reason, one.abandoned))
                news.append(f"epoch {epoch + 1}: {one.party} dropped out of round {one.number} ({one.reason})")
        for party in sorted(self._away.keys() & rounds.there):
            del self._away[party]
            news.append(f"epoch {epoch + 1}: {party} takes part again")
        return news
