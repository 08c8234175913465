# SPDX-License-Identifier: Apache-2.0
"""Announced: the rounds that the server was told to expect, how long their vectors are, and which were repeats. Pure.

A round whose values did not fit the reaches of its tensors is held again under the next number, so that numbers run
ahead of the plan. Which round is a repeat the parties say: they alone can tell from the sum. Knows no message, no sum
and no model.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedray.errors import ProtocolError
from fedray.party.records import Expect
from fedray.protocol.manifest import Manifest
from fedray.protocol.scales import MOST_REPEATS
from fedray.types import PartyName, Round


@dataclass(slots=True)
class Announced:
    """One segment under way.

    Attributes:
        order: What the driver has announced.
        again: How many of its rounds were repeats, so far.
        void: How many repeats came to nothing elsewhere.
        over: Whose inputs the last sum has, over whom alone they are summed again; None where nothing was opened, or
            others see to it.
        done: How many rounds of the plan are over.
    """

    order: Expect
    again: int = 0
    void: int = 0
    over: frozenset[PartyName] | None = None
    done: int = 0

    def take_void(self, sender: PartyName, void: int, *, elsewhere: bool) -> None:
        """Takes what a compute party has counted of repeats that came to nothing before the server heard of them.

        Args:
            sender: Who has counted.
            void: How many.
            elsewhere: Whether the session has compute parties, who alone may know.

        Raises:
            ProtocolError: There cannot have been so many; numbers of rounds would run ahead of all keys.
        """
        most = MOST_REPEATS * self.order.count if elsewhere else 0
        if not 0 <= void <= most:
            raise ProtocolError(f"{sender} says that {void} repeats came to nothing; there can be at most {most}")
        self.void = max(self.void, void)

    def is_extra(self, number: Round) -> bool:
        """Returns whether a round that is no repeat comes after those of the plan, and carries metrics alone."""
        return self.planned(number) >= self.order.number + self.order.count

    def planned(self, number: Round) -> Round:
        """Returns the number that a round would have if none had been repeated: absences are told by it."""
        return number - self.again - self.void

    def end(self, members: int, *, repeats: bool) -> Round:
        """Returns the number after the last that may be used; each smaller view reports the metrics anew.

        Args:
            members: How many parties there are.
            repeats: Whether the round in question is a repeat.
        """
        reports = members if self.order.report is not None else 0
        return self.order.number + self.order.count + self.again + self.void + repeats + reports

    def manifest_of(self, number: Round, *, repeats: bool) -> Manifest:
        """Returns what the words of a round mean, but for its bounds.

        Args:
            number: The round.
            repeats: Whether it is a repeat.
        """
        report = self.order.report
        return report if report is not None and not repeats and self.is_extra(number) else self.order.manifest

    def reached(self, number: Round) -> int:
        """Returns how many rounds of the plan are over, where all with smaller numbers are.

        One that is repeated was over when it was first opened.
        """
        self.done = max(self.done, min(self.planned(number) - self.order.number, self.order.count))
        return self.done
