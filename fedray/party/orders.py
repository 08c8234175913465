# SPDX-License-Identifier: Apache-2.0
"""What the driver orders, and what the server answers: the records that travel around the rounds.

An order says everything that a party's input to its rounds depends on, besides the model and the party's own data.
Every party hashes the order it received into its keys, so parties that were told different things cannot be summed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedray.party.batches import Sampling
from fedray.protocol.scheme import Manifest, View
from fedray.types import PartyName, Round


@dataclass(frozen=True, slots=True)
class TrainOrder:
    """Consecutive rounds of one epoch, up to where the driver has something to do.

    Attributes:
        number: Protocol number of the first round; the others follow.
        epoch: Epoch, counted from 0.
        spans: First step of each round and the step after its last, within the epoch.
        begins_epoch: Whether the epoch's metrics start at zero here.
        sampling: How rows are dealt over the epoch's steps.
        sizes: Rows of every party.
        metric_bound: Largest count that a party's metrics may reach in the epoch.
        strategy: Name and parameters of the strategy.
        learning_rate: What the optimizers are set to, or None where the compiled value holds.
    """

    number: Round
    epoch: int
    spans: tuple[tuple[int, int], ...]
    begins_epoch: bool
    sampling: Sampling
    sizes: Mapping[PartyName, int]
    metric_bound: int
    strategy: tuple[str, Mapping[str, float]]
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class EvaluateOrder:
    """One round of metrics over every party's rows.

    Attributes:
        number: Protocol number of the round.
        batch_size: Rows of one local batch.
        sizes: Rows of every party.
        metric_bound: Largest count that a party's metrics may reach.
    """

    number: Round
    batch_size: int
    sizes: Mapping[PartyName, int]
    metric_bound: int


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


def settings(order: TrainOrder | EvaluateOrder, class_weight: Mapping[int, float]) -> bytes:
    """Returns the canonical bytes of all that a party was told, to be hashed into the context of its rounds.

    Args:
        order: The order as this party received it.
        class_weight: Weights of classes as this party received them; empty for none.
    """
    weights = {str(number): float(weight) for number, weight in class_weight.items()}
    record = {"order": type(order).__name__, "class weights": weights} | asdict(order)
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
