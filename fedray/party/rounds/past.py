# SPDX-License-Identifier: Apache-2.0
"""Past: what one party was told in the rounds of training of one model, in all its sessions, and when it is forgotten.

Knows heads, names and verdicts (`fedray/protocol/history.py`). Knows no model, no message and no other party.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedray.errors import ProtocolError
from fedray.protocol.history import HistoryChain, joined, strangers, told
from fedray.protocol.scheme import RoundContext
from fedray.types import PartyName


class Past:
    """One party's history, and whether what it has learned is to be forgotten.

    Args:
        party: Whose.

    Attributes:
        anew: Whether whoever has learned something in these rounds is to forget it before the next one, and to say so
            by setting this to False.
        over: Whose inputs the last round summed, in roster order, as this party knows for certain; else empty.
    """

    def __init__(self, party: PartyName) -> None:
        self._party = party
        self._history, self._told = HistoryChain(), b""
        self._everybody: tuple[PartyName, ...] = ()
        self._returns = False
        self._others: HistoryChain | None = None
        self._because: dict[PartyName, None] | None = None
        self.over: tuple[PartyName, ...] = ()
        self.anew = False

    @property
    def head(self) -> bytes:
        """The head; empty where the party has learned nothing, or has forgotten it."""
        return self._history.head

    @property
    def without(self) -> tuple[PartyName, ...]:
        """Whose inputs were not in the last round; nobody's where this party does not know."""
        return tuple(name for name in self._everybody if name not in self.over) if self.over else ()

    def meet(self, heads: Mapping[PartyName, bytes]) -> None:
        """Begins anew, with everybody else of a session, since their heads differ.

        Whoever tells a wrong word about one makes noise of the session's sums, and learns nothing.

        Args:
            heads: Party -> its head, in roster order.

        Raises:
            ProtocolError: This party's own is not among them.
        """
        if heads.get(self._party) != self.head:
            raise ProtocolError(f"party {self._party!r}: it was handed another history for its own")
        self._forget(joined(heads), strangers(heads))

    def begin(self, everybody: Sequence[PartyName], *, returns: bool) -> None:
        """Learns that a session begins.

        Args:
            everybody: Whose inputs its rounds sum.
            returns: Whether a party may miss a round and come back within the session.
        """
        self._everybody, self._returns = tuple(everybody), returns

    def before(self, context: RoundContext) -> RoundContext:
        """Returns what a round is bound to, with the history, and keeps what was told for it."""
        self._told, self.over = told(context), ()
        return replace(context, history=self.head)

    def behind(self, context: RoundContext) -> RoundContext:
        """Returns what the others were bound to in a round that this party has missed, the next one after `passed`."""
        self._told = told(context)
        return replace(context, history=self._of_others.head)

    def passed(self, over: tuple[PartyName, ...], model: bytes) -> None:
        """Learns what came of a round of training that this party has missed, and so what the others' history is now.

        Args:
            over: Whose inputs it summed, in roster order; empty where it was abandoned.
            model: Hash of the model after it.
        """
        # It may be among them: its input counts where only its later messages came too late.
        complete = over == self._everybody
        self._others = self._of_others.after(self._told, "opened", model, b"", over) if complete else HistoryChain()

    @property
    def _of_others(self) -> HistoryChain:
        return self._history if self._others is None else self._others

    def add(self, verdict: str, verified: bool, model: bytes) -> None:
        """Adds the last round of training.

        Where a party may come back that has missed it, the round ends the history: what the others have learned without
        that party could be held against it, so all begin anew.

        Args:
            verdict: What came of the round.
            verified: Whether this party knows for certain over whom it was opened.
            model: Hash of the model that this party has after it.
        """
        others, self._others = self._others, None
        if verdict == "renew" or (verdict == "opened" and not verified):
            return  # nothing was kept of it
        if not self._returns or (verdict == "opened" and self.over == self._everybody):
            summed = model if verdict == "opened" else b""
            self._history = self._history.after(self._told, verdict, summed, b"", self.over)
            return
        # Whoever missed it has nothing left that was learned in it, and goes on from where the others are.
        self._forget(others or HistoryChain(), [self._party] if verdict == "missed" else self.without)

    def take_news(self) -> tuple[PartyName, ...] | None:
        """Returns because of whom this party began anew since this was last asked; None where it did not."""
        because, self._because = self._because, None
        return None if because is None else tuple(because)

    def _forget(self, history: HistoryChain, because: Sequence[PartyName]) -> None:
        self._history, self.anew = history, True
        self._because = (self._because or {}) | dict.fromkeys(because)
