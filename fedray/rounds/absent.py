# SPDX-License-Identifier: Apache-2.0
"""Who was missing from sums, as the parties saw it. Pure: the server is asked for the reasons, and for no more."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fedray.party.records import Missing, SumSet
from fedray.types import PartyName, Round

UNSAID = "its input is not in the sum, and the server did not say why"
"""Why a party is away of whom the server says nothing."""


def absent(sets: Sequence[SumSet], everybody: Collection[PartyName], said: Sequence[Missing]) -> tuple[Missing, ...]:
    """Returns who was missing from rounds, by the sets that parties report, and by the server's word only why.

    Args:
        sets: Whose inputs the rounds summed.
        everybody: Whose inputs a full sum has.
        said: What the server says. Who was missing from a round of which there is no sum, and no smaller set that goes
            on, it alone can tell.
    """
    words = {(one.number, one.party): one for one in said}
    reasons: dict[PartyName, str] = {}
    found: list[Missing] = []
    for one in sets:
        for number in range(one.first, one.first + one.count):
            lost = [] if one.opened else [word.party for word in said if word.number == number and word.abandoned]
            for party in sorted((set(everybody) - set(one.members)) | set(lost)):
                word = words.get((number, party))
                # Of whom the others go on without the server says nothing further.
                reasons[party] = word.reason if word is not None else reasons.get(party, UNSAID)
                abandoned = not one.opened and (not lost or party in lost)
                found.append(Missing(number, party, reasons[party], abandoned))
    return tuple(found)


def unexplained(sets: Sequence[SumSet], there: Collection[PartyName], said: Sequence[Missing]) -> tuple[Round, ...]:
    """Returns the rounds of which there is no sum though nobody is named as missing who took part in the one before.

    Args:
        sets: Whose inputs the rounds summed.
        there: Who was there when the first of them began.
        said: What the server says.
    """
    found: list[Round] = []
    before = frozenset(there)
    for one in sets:
        members = frozenset(one.members)
        for number in range(one.first, one.first + one.count):
            if one.opened:
                before = members
                continue
            named = {word.party for word in said if word.number == number and word.abandoned}
            # Who is not in the set that goes on is missing as well. Whoever was away before is no reason.
            rest = (before & members) - named
            found += [number] if rest == before else []
            before = rest
    return tuple(found)
