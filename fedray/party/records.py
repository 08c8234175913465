# SPDX-License-Identifier: Apache-2.0
"""Records that travel around the rounds: what the server is told to expect, what it answers, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.scheme import Manifest, View
from fedray.types import PartyName, Round


@dataclass(frozen=True, slots=True)
class Expect:
    """What the server is told before a segment: which rounds come and what their words mean.

    Attributes:
        number: Protocol number of the first round.
        count: How many rounds.
        manifest: The words of each.
        purpose: `"train"` goes through the strategy, `"sum"` is answered as it was opened.
        report: The words of a further round of metrics alone, which follows where the last round was abandoned.
        absent: Parties of the session that do not take part in this segment; nobody waits for them.
    """

    number: Round
    count: int
    manifest: Manifest
    purpose: Literal["train", "sum"]
    report: Manifest | None = None
    absent: tuple[PartyName, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer to a delivery.

    Attributes:
        verdict: What came of it:

            * `"next"`: another exchange of this round follows;
            * `"opened"`: the round is over;
            * `"abandoned"`: nothing was opened; go on with the next round, without the parties that are not in `view`;
            * `"missed"`: the round was opened without this party, which was too late; go on with round `number`;
            * `"renew"`: no further round can be held in this session;
            * `"left"`: the others go on without this party;
            * `"aborted"`: the segment has ended.
        values: The new global vector (or the opened values), when opened. When missed, what brings this party's model
            up to date; None where it is too far behind.
        metrics: float64[m], the opened metric sums; when missed, those of the last round that was opened.
        broadcast: Protocol message of the next exchange.
        view: The smaller view, when abandoned.
        number: The round to go on with, when missed.
        stop: Whether the segment ends after this round because the driver asked for it.
        reason: Why, where it did not go as planned.
    """

    verdict: Literal["next", "opened", "abandoned", "missed", "renew", "left", "aborted"]
    values: NDArray[Any] | None = None
    metrics: NDArray[np.float64] | None = None
    broadcast: bytes = b""
    view: View | None = None
    number: Round = 0
    stop: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """A party that was missing from a round.

    Attributes:
        number: The round.
        party: Who.
        reason: Why it counts as missing.
        abandoned: Whether the round's work was lost; otherwise it was opened without the party.
    """

    number: Round
    party: PartyName
    reason: str
    abandoned: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """What the driver may know of a segment under way.

    Attributes:
        done: Rounds of the segment that are over.
        missing: Every party that was missing from one of them.
        error: Why the segment has ended early, or empty.
        away: Parties that nobody waits for at present: gone, or too late in the last round.
    """

    done: int
    missing: tuple[Missing, ...] = ()
    error: str = ""
    away: frozenset[PartyName] = frozenset()


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What an owner of shares is told of a round by a compute party.

    Attributes:
        answer: The server's answer, passed on.
        proof: All compute parties' signatures under whose inputs were opened; empty where nothing was.
    """

    answer: Answer
    proof: bytes = b""
