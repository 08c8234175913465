# SPDX-License-Identifier: Apache-2.0
"""The plan of `fit` and `evaluate`: from the parties' numbers of rows to rounds, before any work starts. Pure.

A **step** is one share of rows at every party, a **round** is `aggregate_freq` steps and one private sum, a **segment**
is a run of rounds after which the driver has something to do. No round is planned in which fewer than two parties hold
rows: its sum would be one party's vector. A party alone is planned only where the caller allows it (no aggregation
protects it).

Knows sizes and the seed; sees no data, calls no party.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from fedray.errors import PlanError
from fedray.party.training.sampling import Sampling
from fedray.types import PartyName

SAMPLERS = ("batch", "poisson")


@dataclass(frozen=True, slots=True)
class PlannedRound:
    """One private sum.

    Attributes:
        epoch: Which epoch it belongs to, from 0.
        start: Its first step within the epoch.
        stop: The step after its last.
        rows: How many rows each party trains on, in the plan's order of parties.
    """

    epoch: int
    start: int
    stop: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Rounds that the parties run through without the driver.

    Attributes:
        epoch: Which epoch, from 0.
        rounds: The rounds, at least one.
        ends_epoch: Whether the epoch is over after it.
    """

    epoch: int
    rounds: tuple[PlannedRound, ...]
    ends_epoch: bool


@dataclass(frozen=True, slots=True)
class FitPlan:
    """Everything `fit` is going to do.

    Attributes:
        sizes: Party -> rows of training data, in the order of all per-party tuples.
        sampling: How rows are dealt over the steps of an epoch.
        epochs: The epoch to stop before.
        initial_epoch: The epoch to start with, from 0.
        aggregate_freq: Steps in a round.
        every_round: Whether each round is a segment of its own.
        pause: Rounds of a segment otherwise; 0 for all of an epoch.
        alone: Whether rounds in which only one party holds rows are allowed.
        validation: Validate after every so many epochs, or after these (counted from 1).
    """

    sizes: Mapping[PartyName, int]
    sampling: Sampling
    epochs: int
    initial_epoch: int = 0
    aggregate_freq: int = 1
    every_round: bool = False
    alone: bool = False
    validation: int | frozenset[int] = 1
    pause: int = 0

    @property
    def parties(self) -> tuple[PartyName, ...]:
        """Names, in the order of all per-party tuples."""
        return tuple(self.sizes)

    @property
    def steps(self) -> int:
        """Steps in an epoch: the total of its progress bar."""
        return self.sampling.steps

    def rounds(self, epoch: int) -> tuple[PlannedRound, ...]:
        """Returns the rounds of one epoch, empty where no round of a poisson epoch can be held."""
        # By the same arithmetic that the parties use, so that what is planned here is what they do.
        shares = np.stack([self.sampling.share_sizes(party, rows, epoch) for party, rows in self.sizes.items()])
        starts = np.arange(0, self.steps, self.aggregate_freq)
        rows: NDArray[np.int64] = np.add.reduceat(shares, starts, axis=1)
        # The sum of a round with one party would be that party's own vector.
        enough = np.count_nonzero(rows, axis=0) >= (1 if self.alone else 2)
        return tuple(
            PlannedRound(epoch, int(start), min(int(start) + self.aggregate_freq, self.steps), tuple(column.tolist()))
            for start, column, kept in zip(starts, rows.T, enough, strict=True)
            if kept
        )

    def segments(self, epoch: int) -> tuple[Segment, ...]:
        """Returns the segments of one epoch; the last one ends it."""
        rounds = self.rounds(epoch)
        # One segment an epoch is the normal case: the parties then run from sum to sum without the driver.
        size = 1 if self.every_round else self.pause or len(rounds) or 1
        parts = [rounds[start : start + size] for start in range(0, len(rounds), size)]
        return tuple(Segment(epoch, part, part is parts[-1]) for part in parts)

    def __iter__(self) -> Iterator[Segment]:
        """Yields every segment of the run, in order."""
        for epoch in range(self.initial_epoch, self.epochs):
            yield from self.segments(epoch)

    def validates(self, epoch: int) -> bool:
        """Returns whether validation follows epoch `epoch` (from 0), by Keras's rule."""
        if isinstance(self.validation, int):
            # Keras counts epochs from 1 here.
            return (epoch + 1) % self.validation == 0
        return epoch + 1 in self.validation

    def largest_weight(self) -> int:
        """Returns the most rows any party trains on in one round of the run: what its weight in a sum can be."""
        return max((max(r.rows) for segment in self._distinct() for r in segment.rounds), default=1)

    def _distinct(self) -> Iterator[Segment]:
        """Yields segments that cover every size there is; dealt evenly, all epochs are alike."""
        # Poisson draws new numbers of rows each epoch; otherwise the first epoch stands for all, and a thousand need
        # not be planned.
        last = self.epochs if self.sampling.method == "poisson" else self.initial_epoch + 1
        for epoch in range(self.initial_epoch, last):
            yield from self.segments(epoch)


@dataclass(frozen=True, slots=True)
class EvaluatePlan:
    """One pass over every party's data in file order and one private sum of the metrics.

    Attributes:
        sizes: Party -> rows.
        batch_size: Rows in a batch.
    """

    sizes: Mapping[PartyName, int]
    batch_size: int

    @property
    def steps(self) -> int:
        """Batches of the largest party: the total of the progress bar."""
        return -(-max(self.sizes.values()) // self.batch_size)


def plan_fit(
    sizes: Mapping[PartyName, int],
    *,
    seed: int,
    batch_size: int = 32,
    epochs: int = 1,
    initial_epoch: int = 0,
    aggregate_freq: int = 1,
    sampler_method: str = "batch",
    shuffle: bool = True,
    validation_freq: int | Sequence[int] = 1,
    every_round: bool = False,
    alone: bool = False,
    pause: int = 0,
) -> FitPlan:
    """Returns the plan of one `fit`.

    Args:
        sizes: Party -> rows of training data.
        seed: The run's seed.
        batch_size: Largest local batch.
        epochs: Epoch to stop before, as in Keras.
        initial_epoch: Epoch to start with, as in Keras.
        aggregate_freq: Steps between two private sums.
        sampler_method: `"batch"` or `"poisson"`.
        shuffle: Whether rows are dealt in a new order each epoch.
        validation_freq: Epochs between validations, or the epochs after which to validate, counted from 1.
        every_round: Whether the driver wants to be asked after every round.
        alone: Whether a single party may train (no aggregation protects it).
        pause: Rounds after which it wants to be asked, too; 0 for none.

    Raises:
        PlanError: An argument cannot work; the message names it, what was expected and what was found.
    """
    batch_size = whole("batch_size", batch_size, least=1)
    epochs = whole("epochs", epochs, least=1)
    initial_epoch = whole("initial_epoch", initial_epoch, least=0)
    if initial_epoch >= epochs:
        raise PlanError(f"initial_epoch: expected less than epochs={epochs}, found {initial_epoch}")
    aggregate_freq = whole("aggregate_freq", aggregate_freq, least=1)
    if sampler_method not in SAMPLERS:
        close = get_close_matches(str(sampler_method), SAMPLERS, n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise PlanError(f"sampler_method: expected one of {', '.join(SAMPLERS)}; found {sampler_method!r}{hint}")
    if not isinstance(shuffle, bool | np.bool_):
        raise PlanError(f"shuffle: expected True or False, found {shuffle!r}")
    ordered = _check_sizes("training data", sizes, alone)
    method = cast(Literal["batch", "poisson"], sampler_method)
    sampling = Sampling(int(seed), _steps(ordered, batch_size), batch_size, method, bool(shuffle))
    validation = _validation(validation_freq)
    return FitPlan(ordered, sampling, epochs, initial_epoch, aggregate_freq, every_round, alone, validation, pause)


def plan_evaluate(sizes: Mapping[PartyName, int], *, batch_size: int = 32, alone: bool = False) -> EvaluatePlan:
    """Returns the plan of one `evaluate`.

    Args:
        sizes: Party -> rows.
        batch_size: Rows in a batch.
        alone: Whether a single party may hold rows (no aggregation protects it).

    Raises:
        PlanError: `batch_size` is not a whole number of 1 or more, or too few parties hold rows.
    """
    return EvaluatePlan(_check_sizes("evaluation data", sizes, alone), whole("batch_size", batch_size, least=1))


def whole(argument: str, value: object, *, least: int) -> int:
    """Returns `value` as an int.

    Args:
        argument: Its name, for the error.
        value: What the user passed.
        least: Smallest number that is allowed.

    Raises:
        PlanError: It is not a whole number, or smaller than `least`.
    """
    try:
        # True is an integer to Python; as a number of epochs it is a mistake.
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # refuses everything that is not an integer
    except TypeError:
        raise PlanError(f"{argument}: expected a whole number of {least} or more, found {value!r}") from None
    if number < least:
        raise PlanError(f"{argument}: expected a whole number of {least} or more, found {number}")
    return number


def _steps(sizes: Mapping[PartyName, int], batch_size: int) -> int:
    """Steps in an epoch: the largest party's batches, but never so many that a second party runs out of rows."""
    largest, *others = sorted(sizes.values(), reverse=True)
    steps = -(-largest // batch_size)
    # Dealt over more steps than it has rows, the second party would be missing from some rounds, and those could not
    # be held.
    return min(steps, others[0]) if others and others[0] else steps


def _check_sizes(what: str, sizes: Mapping[PartyName, int], alone: bool) -> dict[PartyName, int]:
    ordered = {party: whole(f"{what} of {party}", rows, least=0) for party, rows in sizes.items()}
    holders = sum(rows > 0 for rows in ordered.values())
    if holders < (1 if alone else 2):
        found = ", ".join(f"{party}: {rows}" for party, rows in ordered.items()) or "no party"
        wanted = "one party" if alone else "two parties"
        raise PlanError(f"{what}: expected at least {wanted} with rows, found {found}")
    return ordered


def _validation(freq: int | Sequence[int]) -> int | frozenset[int]:
    if isinstance(freq, Sequence | frozenset | set) and not isinstance(freq, str):
        return frozenset(whole("validation_freq", epoch, least=1) for epoch in freq)
    return whole("validation_freq", freq, least=1)


def order_seed(seed: int, fits: int) -> int:
    """Returns the seed of the next fit's order of rows, so that repeated calls do not repeat one order.

    Args:
        seed: The model's.
        fits: How many fits there were before.
    """
    if fits == 0:
        return seed
    digest = hashlib.sha256(f"fedray fit {seed} {fits}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
