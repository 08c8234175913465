# SPDX-License-Identifier: Apache-2.0
"""PastRounds: what came of the last rounds, for parties that missed them. Bounded; knows sums, and no model."""

from __future__ import annotations

from collections import deque

from fedray.party.records import Answer, PastRound
from fedray.protocol.opened import OpenedSum
from fedray.types import Round

KEPT_BYTES = 1 << 26
"""Bytes of sums that are kept beside the last one, where a party may miss rounds and go on. One that was away for
longer comes back with a new session."""

MOST_KEPT = 256
"""So many rounds are kept at most: each is a part of one answer."""


class PastRounds:
    """The last rounds of one session.

    Args:
        kept: Bytes of sums that are kept beside the last one.
    """

    def __init__(self, kept: int = 0) -> None:
        self._kept = kept
        self._rounds: deque[PastRound] = deque()
        self._bytes = 0
        self._complete: Round = 0

    def note(self, number: Round, opened: OpenedSum | None) -> None:
        """Keeps what came of a round, the next one in order, and drops what there is no room for.

        Args:
            number: The round.
            opened: Its sum; None where it was abandoned.
        """
        self._rounds.append(PastRound(number, opened))
        self._bytes += _size(self._rounds[-1])
        while len(self._rounds) > 1 and (
            len(self._rounds) > MOST_KEPT or self._bytes - _size(self._rounds[-1]) > self._kept
        ):
            dropped = self._rounds.popleft()
            self._bytes -= _size(dropped)
            self._complete = dropped.number + 1

    def missed(self, number: Round, resume: Round, *, stop: bool) -> Answer:
        """Returns what a party is told that missed a round: what came of it and of those behind it.

        Args:
            number: The round.
            resume: Where it may go on.
            stop: Whether the segment ends with the last of them.
        """
        if number < self._complete:
            return Answer("left", reason=f"it missed more rounds than are kept, from round {number} on")
        past = tuple(one for one in self._rounds if one.number >= number)
        return Answer("missed", missed=past, number=resume, stop=stop)


def _size(past: PastRound) -> int:
    return 0 if past.opened is None else past.opened.words.nbytes
