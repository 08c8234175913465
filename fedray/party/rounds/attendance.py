# SPDX-License-Identifier: Apache-2.0
"""Attendance: who of a session's parties is gone, late or was missing from a round, and why, and who did wrong.

Knows no protocol and no clock; whoever notices an absence says what it was.
"""

from __future__ import annotations

from collections.abc import Collection

from fedray.party.records import Missing
from fedray.protocol.scheme import Fault
from fedray.types import PartyName, Round

MOST_FAULTS = 64
"""So many faults are kept: whoever sends wrong messages without end fills no memory."""


class Attendance:
    """The absences of one session.

    Args:
        timeout: Seconds after which a party is late; for the words of a reason.

    Attributes:
        gone: Who will not come back in this session, and why.
        late: Who missed its last deadline and has not been heard since, and why.
        missing: Every absence from a round of the segment under way.
        faults: What parties did wrong, `MOST_FAULTS` of them at most.
    """

    def __init__(self, timeout: float) -> None:
        self._silence = f"nothing within {timeout:g} s"
        self.gone: dict[PartyName, str] = {}
        self.late: dict[PartyName, str] = {}
        self.missing: list[Missing] = []
        self.faults: list[Fault] = []

    @property
    def away(self) -> frozenset[PartyName]:
        """Returns whom nobody waits for at present."""
        return frozenset(self.gone.keys() | self.late)

    def begin_session(self) -> None:
        """Forgets everything: all parties of a new session are awaited."""
        self.gone, self.late, self.missing = {}, {}, []

    def begin_segment(self, absent: Collection[PartyName]) -> None:
        """Forgets what was noted of the segment before; `absent` do not take part in the next one."""
        self.missing, self.late = [], {}  # who was late is waited for anew; who is gone stays gone
        self.gone |= {party: "it does not take part" for party in absent if party not in self.gone}

    def heard(self, party: PartyName) -> None:
        """Says that a party that may have been late is there again."""
        self.late.pop(party, None)

    def delay(self, parties: Collection[PartyName], reason: str) -> None:
        """Says of parties that they are late, unless they are gone."""
        self.late |= {party: reason for party in parties if party not in self.gone}

    def note(self, number: Round, parties: Collection[PartyName], reason: str, *, abandoned: bool) -> None:
        """Notes who was missing from a round, once per party.

        Args:
            number: The round.
            parties: Who was missing.
            reason: Why, of those of whom nothing else is known.
            abandoned: Whether the round's work was lost.
        """
        noted = {one.party for one in self.missing if one.number == number}
        for party in sorted(set(parties) - noted):
            self.missing.append(Missing(number, party, self.why(party, reason), abandoned))

    def accuse(self, faults: Collection[Fault]) -> None:
        """Keeps what parties did wrong, the same thing once."""
        self.faults += [fault for fault in dict.fromkeys(faults) if fault not in self.faults]
        del self.faults[MOST_FAULTS:]

    def why(self, party: PartyName, otherwise: str) -> str:
        """Returns the reason for a party's absence, or `otherwise` where none is known."""
        return self.gone.get(party) or self.late.get(party) or otherwise or self._silence

    def listed(self, parties: Collection[PartyName], reason: str) -> str:
        """Returns parties and why they are missing, as the end of a message; empty for nobody."""
        named = ", ".join(f"{party} ({self.why(party, reason)})" for party in sorted(parties))
        return f"; missing: {named}" if named else ""
