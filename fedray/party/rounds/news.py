# SPDX-License-Identifier: Apache-2.0
"""News: an exchange at which somebody waits without a message: until something is so, or for some seconds. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedray.party.rounds.barrier import Closing, Gate, Ticket


@dataclass(frozen=True, slots=True)
class News:
    """One wish for news.

    Attributes:
        ticket: Who wishes for it.
        seconds: How long to wait at most.
        ready: Whether there is news.
        answer: What is told then, or when the time is over.
    """

    ticket: Ticket
    seconds: float
    ready: Callable[[], bool]
    answer: Callable[[], Any]

    @property
    def gate(self) -> Gate:
        """Its own: nobody else waits here."""
        return "news", self.ticket

    def take(self, sender: str, message: object) -> None:
        """Takes nothing: nobody sends to it."""

    def complete(self) -> bool:
        """Returns whether there is news."""
        return self.ready()

    def until(self, now: float) -> float:
        """Returns when the time is over."""
        return now + self.seconds

    def close(self, *, late: bool) -> Closing:
        """Tells how things stand, whether there is news or not."""
        del late
        found = self.answer()
        return Closing(lambda _: found, kept=False)

    def ended(self, reason: str) -> Any:
        """Tells how things stand."""
        del reason
        return self.answer()
