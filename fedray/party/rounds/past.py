# SPDX-License-Identifier: Apache-2.0
"""Past: what one party was told in the rounds of training of one model, in all its sessions, and when it is forgotten.

Knows heads, names and verdicts (`fedray/protocol/history.py`). Knows no model, no message and no other party.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedray.errors import ProtocolError
from fedray.protocol.history import HistoryChain, joined, late, strangers, told
from fedray.protocol.scheme import RoundContext
from fedray.types import PartyName, Round


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
        self._because: dict[PartyName, None] | None = None
        self._theirs: HistoryChain | None = None
        self.over: tuple[PartyName, ...] = ()
        self.anew = False

    @property
    def head(self) -> bytes:
        """The head; empty where the party has learned nothing, or has forgotten it."""
        return self._history.head

    @property
    def followed(self) -> bytes:
        """The head of those who held the rounds that this party has missed, as far as it has followed them."""
        return (self._theirs or self._history).head

    @property
    def _without(self) -> tuple[PartyName, ...]:
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
        self._everybody, self._returns, self._theirs = tuple(everybody), returns, None

    def before(self, context: RoundContext) -> RoundContext:
        """Returns what a round is bound to, with the history, and keeps what was told for it."""
        self._told, self.over = told(context), ()
        return replace(context, history=self.head)

    def add(self, verdict: str, verified: bool, model: bytes) -> None:
        """Adds the last round of training, in which this party has taken part.

        Where a party may come back that has missed it, the round ends the history: what the others have learned without
        that party could be held against it, so all begin anew.

        Args:
            verdict: What came of the round.
            verified: Whether this party knows for certain over whom it was opened.
            model: Hash of the model that this party has after it.
        """
        if verdict == "renew" or (verdict == "opened" and not verified):
            return  # nothing was kept of it
        if not self._returns or (verdict == "opened" and self.over == self._everybody):
            summed = model if verdict == "opened" else b""
            self._history = self._history.after(self._told, verdict, summed, self.over)
            return
        self._forget(HistoryChain(), self._without)

    def follow(self, context: RoundContext, over: Sequence[PartyName], model: bytes) -> None:
        """Adds a round of training that went on after this party, as those that held it have added it.

        Args:
            context: What it was about.
            over: Whose inputs it summed; empty where it was abandoned.
            model: Hash of the model after it.
        """
        if tuple(over) == self._everybody:
            # With this party's input: the others have kept what they learned, and this one has put it back. So its own
            # head differs from theirs from here on, whatever ends the following.
            self._theirs = (self._theirs or self._history).after(told(context), "opened", model, over)
            self._history = late(self._theirs, self._party)
        else:
            self._theirs = None
            self._forget(HistoryChain(), [self._party])

    def catch_up(self, number: Round) -> None:
        """Checks that this party may take part again in the session.

        Args:
            number: The round that it was too late for.

        Raises:
            ProtocolError: It may not before the next one: the last round was opened with its input and it has put back
                what it learned there, as it did not see the end.
        """
        theirs, self._theirs = self._theirs, None
        if theirs is None:
            return
        raise ProtocolError(
            f"party {self._party!r} was too late to sign round {number}, which was opened with its input: it does not "
            "know what the others have learned there, and comes back with the next session"
        )

    def kept(self) -> dict[str, Any]:
        """Returns what outlasts the process, between two rounds: plain values."""
        return {"head": self.head, "over": self.over, "anew": self.anew, "because": self._because}

    def take(self, kept: Mapping[str, Any]) -> None:
        """Puts back what `kept` returned: equal heads of all parties keep what they have learned."""
        self._history, self.over, self.anew = HistoryChain(kept["head"]), kept["over"], kept["anew"]
        self._because, self._theirs = kept["because"], None

    def take_news(self) -> tuple[PartyName, ...] | None:
        """Returns because of whom this party began anew since this was last asked; None where it did not."""
        because, self._because = self._because, None
        return None if because is None else tuple(because)

    def _forget(self, history: HistoryChain, because: Sequence[PartyName]) -> None:
        self._history, self.anew = history, True
        self._because = (self._because or {}) | dict.fromkeys(because)
