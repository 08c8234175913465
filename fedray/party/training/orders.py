# SPDX-License-Identifier: Apache-2.0
"""What the driver orders of the parties: records that everybody hashes.

An order says everything that a party's input to its rounds depends on, besides the model and the party's own data.
Every party hashes the order it received into its keys, so parties that were told different things cannot be summed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

from fedray.party.training.sampling import Sampling
from fedray.protocol.messages import digest
from fedray.protocol.rows import Rows
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
        strategy: Name and parameters of the strategy.
        learning_rate: What the optimizers are set to, or None where the compiled value holds.
        begun: Steps of all epochs and fits before this epoch: where schedules of the optimizers go on.
        epochs: Epochs of all fits before this one.
    """

    number: Round
    epoch: int
    spans: tuple[tuple[int, int], ...]
    begins_epoch: bool
    sampling: Sampling
    sizes: Mapping[PartyName, int]
    strategy: tuple[str, Mapping[str, float]]
    learning_rate: float | None = None
    begun: int = 0
    epochs: int = 0


@dataclass(frozen=True, slots=True)
class EvaluateOrder:
    """One round of metrics over every party's rows.

    Attributes:
        number: Protocol number of the round.
        batch_size: Rows of one local batch.
        sizes: Rows of every party.
    """

    number: Round
    batch_size: int
    sizes: Mapping[PartyName, int]


def settings(order: TrainOrder | EvaluateOrder, class_weight: Mapping[int, float]) -> bytes:
    """Returns the canonical bytes of all that a party was told, to be hashed into the context of its rounds.

    Args:
        order: The order as this party received it.
        class_weight: Weights of classes as this party received them; empty for none.
    """
    weights = {str(number): float(weight) for number, weight in class_weight.items()}
    record = {"order": type(order).__name__, "class weights": weights} | asdict(order)
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def order_of(told: bytes) -> TrainOrder:
    """Returns the order that `settings` was given, and hashed into the context of a round.

    Args:
        told: What begins with what `settings` returned.

    Raises:
        ValueError: It begins with something else.
    """
    record, _ = json.JSONDecoder().raw_decode(told.decode("latin-1"))
    record = {name: value for name, value in record.items() if name not in ("order", "class weights")}
    name, parameters = record["strategy"]
    spans = tuple((start, stop) for start, stop in record["spans"])
    sampling = Sampling(**record["sampling"])
    return TrainOrder(**(record | {"sampling": sampling, "spans": spans, "strategy": (name, parameters)}))


@lru_cache(maxsize=4)
def _pass(sampling: Sampling, epoch: int, total: int, arrays: int) -> tuple[str, bytes, bytes, bytes]:
    """Returns of a pass: its sampling in words, the names of deal and pass, and that of the pass under any seed.

    Args:
        sampling: As the party was told.
        epoch: Likewise.
        total: The party's rows.
        arrays: As in `rows_of`.
    """
    told = json.dumps(asdict(sampling), sort_keys=True)
    # In file order all epochs deal alike, whatever number and seed they are given.
    drawn = (str(sampling.seed), epoch) if sampling.shuffle else ()
    deal = digest("deal", total, sampling.steps, *drawn)
    unseeded = json.dumps(asdict(sampling) | {"seed": None}, sort_keys=True)
    return told, deal, digest("pass", told, total, arrays, epoch), digest("pass", unseeded, total, arrays, epoch)


def rows_of(order: TrainOrder, place: int, party: PartyName, used: int, arrays: int, run: bytes = b"") -> Rows:
    """Returns which of a party's rows one round of a segment uses, as the memory of models knows them.

    Args:
        order: The order as this party received it.
        place: The round's place in the segment.
        party: Whose rows.
        used: How many of them the round uses.
        arrays: How often arrays were bound: a pass over others is another pass. Over other members, row 7 is taken for
            the same row all the same.
        run: The party's own name for the run.
    """
    sampling, total, (start, stop) = order.sampling, order.sizes[party], order.spans[place]
    told, deal, seeded, unseeded = _pass(sampling, order.epoch, total, arrays)
    # Where another seed would not give the round other rows, another seed does not make it another pass.
    pass_name = seeded if sampling.redealt(stop - start) else unseeded
    name = digest("rows", told, total, arrays, order.epoch, start, stop)
    # Rows that are drawn anew in every step may come in any two of them.
    return Rows(name, name if sampling.method == "poisson" else deal, start, stop, used, total, run, pass_name)
