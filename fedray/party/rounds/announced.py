# SPDX-License-Identifier: Apache-2.0
"""Announced: the rounds that the server was told to expect, what their words mean, and which of them are repeats. Pure.

A round whose values did not fit the reaches of its tensors is held again under the next number, so that numbers run
ahead of the plan. Knows no message and no model; what an opened sum is turned into is the caller's `OnOpened`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from fedray.party.records import Answer, Expect
from fedray.protocol.manifest import Manifest
from fedray.protocol.scheme import Opened
from fedray.types import PartyName, Round

OnOpened: TypeAlias = Callable[[Opened, bool], Answer]
"""(what was opened, whether it repeats the round before) -> what everybody is told."""


@dataclass(slots=True)
class Announced:
    """One segment under way.

    Attributes:
        order: What the driver has announced.
        on_opened: What an opened sum is turned into.
        again: How many of its rounds were repeats.
        repeats: Whether the next round is one.
        over: Over whom a repeat is; None where it is no repeat, or others see to it.
        manifest: What the words of the next round mean.
        last: Numbers of the last round that was opened, with those of its repeats.
    """

    order: Expect
    on_opened: OnOpened
    again: int = 0
    repeats: bool = False
    over: frozenset[PartyName] | None = None
    manifest: Manifest = field(init=False)
    last: range = range(0)

    def __post_init__(self) -> None:
        self.manifest = self.order.manifest

    def is_extra(self, number: Round) -> bool:
        """Returns whether a round comes after those of the plan, and carries metrics alone."""
        return number >= self.order.number + self.order.count + self.again

    def planned(self, number: Round) -> Round:
        """Returns the number that a round would have if none had been repeated: absences are told by it."""
        return number - self.again

    def end(self, members: int) -> Round:
        """Returns the number after the last that may be used; each smaller view reports the metrics anew."""
        reports = members if self.order.report is not None else 0
        return self.order.number + self.order.count + self.again + reports

    def manifest_of(self, number: Round) -> Manifest:
        """Returns what the words of a round mean."""
        report = self.order.report
        return report if report is not None and self.is_extra(number) else self.manifest

    def done(self, reached: Round) -> int:
        """Returns how many rounds of the plan are over where all numbers below `reached` are."""
        return min(self.planned(reached) - self.order.number, self.order.count)

    def settle(self, number: Round, opened: Opened, *, bound: bool) -> Answer:
        """Returns what comes of a sum, and goes on to the next round or to a repeat of this one.

        Args:
            number: The round.
            opened: Its sum.
            bound: Whether it is up to the server that a repeat is over the same parties.
        """
        if self.is_extra(number):
            answer = Answer("opened", opened.values, opened.metrics)
        else:
            answer = self.on_opened(opened, self.repeats)
        self.last = range(self.last.start if self.repeats else number, number + 1)
        if answer.reaches:
            self.manifest = self.manifest.reaching(answer.reaches)
        self.repeats = answer.verdict == "again"
        self.again += self.repeats
        self.over = frozenset(opened.parties) if self.repeats and bound else None
        return answer

    def give_up(self) -> None:
        """Goes on with a round of its own, whatever was to be repeated."""
        self.repeats, self.over = False, None
