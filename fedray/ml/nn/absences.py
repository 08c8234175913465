# SPDX-License-Identifier: Apache-2.0
"""Who is away in one `fit`, from when to when, and what is told of it. Pure: knows rounds, numbers and names.

Whose inputs a round summed the parties report, and whoever is not among them is away. The server says why. A party that
a new session began without is away as well, and `stretch` counts its rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedray.errors import FedRayError
from fedray.ml.nn.history import Dropout
from fedray.party.records import Missing
from fedray.rounds.absent import absent, unexplained
from fedray.rounds.supervision import SegmentOutcome
from fedray.types import PartyName, Round


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rounds of one session that followed each other.

    Attributes:
        first: Number of the first.
        missing: Every absence, one for each round and party, in order of the rounds.
        there: Who went through them to the end.
        anew: Because of whom the parties' optimizers began anew; None where they did not.
        lost: Rounds without a sum though nobody is named as missing from them.
        failed: Parties that went no further though the server does not say so, and what they raised.
    """

    first: Round
    missing: tuple[Missing, ...]
    there: frozenset[PartyName]
    anew: tuple[PartyName, ...] | None = None
    lost: tuple[Round, ...] = ()
    failed: Mapping[PartyName, FedRayError] = field(default_factory=dict)


def stretch(
    rounds: range,
    noted: Sequence[Missing],
    left_out: Mapping[PartyName, str],
    there: Collection[PartyName],
    anew: Iterable[tuple[PartyName, ...] | None] = (),
    lost: Iterable[Round] = (),
    failed: Mapping[PartyName, FedRayError] | None = None,
) -> Stretch:
    """Returns a stretch with all absences, those in its session and those of whom that began without.

    Args:
        rounds: Numbers of the rounds that are over.
        noted: Absences in the session, as `absent` returns them.
        left_out: Parties that were not to take part in it, and why.
        there: Who went through it to the end.
        anew: What these say of beginning anew.
        lost: Rounds of the session without a sum though nobody is named as missing from them.
        failed: As in `Stretch`.
    """
    # A round of metrics alone, behind the others, is told only where somebody was lost in it.
    found = {(one.number, one.party): one for one in noted if one.number < rounds.stop or one.abandoned}
    for party, reason in left_out.items():
        for number in rounds:
            found.setdefault((number, party), Missing(number, party, reason, abandoned=False))
    said = [parties for parties in anew if parties is not None]
    because = tuple(dict.fromkeys(party for parties in said for party in parties)) if said else None
    unsummed = tuple(number for number in lost if number in rounds)
    absences = tuple(found[key] for key in sorted(found))
    return Stretch(rounds.start, absences, frozenset(there), because, unsummed, failed or {})


def of_outcome(
    rounds: range,
    outcome: SegmentOutcome,
    members: Sequence[PartyName],
    expected: Collection[PartyName],
    left_out: Mapping[PartyName, str],
) -> Stretch:
    """Returns the stretch that came of a segment.

    Args:
        rounds: Numbers of the rounds that are over.
        outcome: What came of them; the parties have reported the same sets.
        members: Whose inputs a full sum of the session has.
        expected: Who was there when the first of them began.
        left_out: As in `stretch`.
    """
    sets = next(iter(outcome.reports.values())).sets
    noted, lost = absent(sets, members, outcome.missing), unexplained(sets, expected, outcome.missing)
    anew = [report.anew for report in outcome.reports.values()]
    return stretch(rounds, noted, left_out, outcome.reports, anew, lost, outcome.failed)


def notices(rounds: Stretch, when: str) -> list[str]:
    """Returns what is to be told of a stretch besides who was missing.

    Args:
        rounds: The stretch.
        when: In which part of the run, e.g. `"epoch 1"`.
    """
    told = [
        f"{when}: party {party!r} went no further, and the server does not say so: {error}"
        for party, error in rounds.failed.items()
    ]
    if rounds.lost:
        which = f"round{'s' * (len(rounds.lost) > 1)} {', '.join(map(str, rounds.lost))}"
        told.append(
            f"{when}: {which} came to no sum, and the server named nobody as missing who took part in the round "
            "before; the rows that were in line taught the model nothing"
        )
    return told


class Absences:
    """Who is away in one `fit`, and what is to be told of it.

    Args:
        dropouts: The history's records, which grow here.

    Attributes:
        away: Party that is away -> place of its record.
    """

    def __init__(self, dropouts: list[Dropout]) -> None:
        self._dropouts = dropouts
        self.away: dict[PartyName, int] = {}

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
            goes_on = one.party in self.away and last.get(one.party, rounds.first - 1) == one.number - 1
            last[one.party] = one.number
            if goes_on:
                place = self.away[one.party]
                self._dropouts[place] = replace(self._dropouts[place], rounds=self._dropouts[place].rounds + 1)
            else:
                self.away[one.party] = len(self._dropouts)
                self._dropouts.append(Dropout(epoch, one.number, one.party, one.reason, one.abandoned))
                news.append(f"epoch {epoch + 1}: {one.party} dropped out of round {one.number} ({one.reason})")
        for party in sorted(self.away.keys() & rounds.there):
            del self.away[party]
            news.append(f"epoch {epoch + 1}: {party} takes part again")
        return news
