# SPDX-License-Identifier: Apache-2.0
"""What a party was told so far, as one hash: parties that were told different things never cancel again (SECAGG 7, R0).

Local state, such as the moments of an optimizer, is made of what a party was told in earlier rounds. Whoever could tell
some parties other things could ruin it for all but one, and read that one's input from the next true sum. So the head
of the chain enters the keys of every round, and outlives the session. Pure: knows no message, no party and no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedray.protocol.messages import digest, enc_list
from fedray.protocol.scheme import RoundContext
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class HistoryChain:
    """The rounds behind a party's local state.

    Attributes:
        head: 32 bytes; empty where local state is as built, of which no round says anything.
    """

    head: bytes = b""

    def after(self, told: bytes, verdict: str, summed: bytes, members: Sequence[PartyName]) -> HistoryChain:
        """Returns the history with one round more.

        Args:
            told: What the party was told before it contributed; see `told`.
            verdict: What came of the round.
            summed: Hash of the model that follows from its sum, which is verified by then; empty where nothing was
                opened.
            members: Whose inputs it sums, in roster order.
        """
        return HistoryChain(
            digest("history", self.head, told, verdict, summed, enc_list("history-set", tuple(members)))
        )


def told(context: RoundContext) -> bytes:
    """Returns the digest of all that a party was told for a round, 32 bytes: what ctx has, but for the session."""
    repeats = 0 if context.repeats is None else 1 + context.repeats
    received = (context.purpose, context.model, context.settings, context.manifest.hash)
    return digest("told", context.number, repeats, *received)


def joined(heads: Mapping[PartyName, bytes]) -> HistoryChain:
    """Returns the history of parties that begin anew together, since theirs differ.

    All of them drop local state, and not only those whose heads are rare: the others may have been ruined together,
    while one was away.

    Args:
        heads: Party -> its head, in roster order.
    """
    return HistoryChain(digest("joined", enc_list("joined-heads", tuple(x for pair in heads.items() for x in pair))))


def late(chain: HistoryChain, party: PartyName) -> HistoryChain:
    """Returns the history of a party that knows what the others were told last, and has not learned what they have."""
    return HistoryChain(digest("late", chain.head, party))


def strangers(heads: Mapping[PartyName, bytes]) -> tuple[PartyName, ...]:
    """Returns whose heads differ from the most common one, in order; nobody where all are equal.

    Args:
        heads: Party -> its head.
    """
    usual = Counter(heads.values()).most_common(1)[0][0] if heads else b""
    return tuple(name for name, head in heads.items() if head != usual)
