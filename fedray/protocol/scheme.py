# SPDX-License-Identifier: Apache-2.0
"""Joining, Shield and Collector: the way into a session, and the two ends of one private sum.

A `Joining` makes a party's end of a session; before it has, there is no end, and so nothing that could be asked too
early. A `Shield` lives in a contributing party and turns its contribution into messages. A `Collector` lives at the
server, takes one round's messages and opens the sum. None of them knows what the numbers mean, how messages travel, nor
what time it is. Every scheme (`plain`, `masking`, `recovery`, `sharing`) offers these three.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal, NoReturn, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedray.errors import PlanError, ProtocolError
from fedray.protocol.limbs import limb_count
from fedray.protocol.messages import digest, enc, enc_list
from fedray.protocol.rows import Rows
from fedray.types import Message, PartyName, Round, Vector

End_co = TypeVar("End_co", covariant=True)

Purpose = Literal["train", "evaluate", "sum"]
"""What a round is for; a party limits how many rounds of each one model may serve."""

USUAL_BOUND = 65536.0
"""Largest absolute value of a float tensor for which nothing else is said."""

LEAST_BOUND = 1e-250
"""Least bound of a float tensor."""

LOWEST, HIGHEST = -110, 1000
"""Reaches r for bounds 2^r that follow the values. At the lowest one the step is below 1e-48, and what is smaller than
that counts as nothing."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a manifest: a named stretch of the vector that is summed.

    Attributes:
        name: For error messages, e.g. `"conv2d/kernel"`.
        shape: Its shape; the number of words is the product.
        dtype: Type before encoding, e.g. `"float32"`; integers are summed exactly.
        bound: Largest absolute value at one party; None for as much as the ring has room for, and of floats for
            `USUAL_BOUND`. The step of floats follows from it: all their words are of one size, whatever their unit.
        weighted: Whether the mean of a weighted manifest counts each party by its weight; otherwise each counts once,
            one of weight 0 as well.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bound: float | None = None
    weighted: bool = True

    def __post_init__(self) -> None:
        # Booleans and complex numbers have no agreed fixed point; 128-bit floats would be rounded unseen.
        if np.dtype(self.dtype).kind not in "fiu" or np.dtype(self.dtype).itemsize > 8:
            raise PlanError(
                f"tensor {self.name!r}: expected real floats or integers of at most 64 bits, found {self.dtype}"
            )
        if any(n < 0 for n in self.shape):
            raise PlanError(f"tensor {self.name!r}: a shape has no negative numbers, found {self.shape}")
        if self.bound is None:
            return
        # NaN fails every comparison, and is refused here too. Words are scaled by the inverse of a bound.
        fits = isinstance(self.bound, int) and self.bound >= 1 if self.integer else LEAST_BOUND <= self.bound < math.inf
        if not fits:
            wanted = "an integer from 1 on" if self.integer else f"a finite number of {LEAST_BOUND:g} or more"
            raise PlanError(f"tensor {self.name!r}: expected a bound that is {wanted}, found {self.bound!r}")

    @property
    def integer(self) -> bool:
        """Whether its words are exact integers."""
        return np.dtype(self.dtype).kind in "iu"

    @property
    def size(self) -> int:
        """Number of words."""
        return math.prod(self.shape)

    @property
    def limit(self) -> float:
        """Largest absolute value of a float tensor."""
        return USUAL_BOUND if self.bound is None else float(self.bound)

    @property
    def reach(self) -> int:
        """The least r for which 2^r is at least the limit of a float tensor; 0 for integers."""
        mantissa, exponent = math.frexp(self.limit)
        return 0 if self.integer else exponent - (mantissa == 0.5)

    @property
    def canonical(self) -> bytes:
        """What the manifest's hash says of it."""
        bound = int(self.bound or 0) if self.integer else struct.pack(">d", self.limit)
        return enc("tensor", self.name, enc_list("shape", self.shape), self.dtype, bound)


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of values that are encoded alike.

    Attributes:
        start: Place of the first.
        stop: Place after the last.
        tensor: The tensor that it begins with; where values are counted it has no other.
        number: That tensor's place in the manifest.
        integer: Whether its values are exact integers.
        reach: Of floats the least r for which 2^r is at least their bound; of integers 0.
    """

    start: int
    stop: int
    tensor: Tensor
    number: int
    integer: bool
    reach: int


@dataclass(frozen=True, slots=True)
class ExactTotal:
    """One entry of a manifest behind its values: a number, or several, whose exact sum opens.

    Attributes:
        name: For error messages, e.g. `"loss/0"`.
        size: How many numbers.
        whole: Whether they are whole numbers at every party, e.g. counts, which take one word each. Everybody says the
            same, before anybody looks at data. Other numbers take one word a limb.
    """

    name: str
    size: int = 1
    whole: bool = False

    def __post_init__(self) -> None:
        if self.size < 0:
            raise PlanError(f"total {self.name!r}: a size is not negative, found {self.size}")


@dataclass(frozen=True)
class Manifest:
    """What the words of one round's vector mean. Every party derives its own copy; its hash enters the keys.

    Attributes:
        tensors: The weighted values, in order.
        metrics: What is summed beside them, in order, and never averaged: metrics, or numbers of the user's own.
        weighted: Whether values are averaged with weights; otherwise they are summed as they are.
        counted: Whether floats beyond a tensor's bound are cut off there and the parties that had some are counted, by
            tensor, under the mask; otherwise a party refuses them. What a count leads to is in `scales.py`.
    """

    tensors: tuple[Tensor, ...]
    metrics: tuple[ExactTotal, ...] = ()
    weighted: bool = True
    counted: bool = False

    def __post_init__(self) -> None:
        # A mean of integers is no integer: it would be rounded without a word.
        if self.weighted and any(t.integer for t in self.tensors):
            raise PlanError("integer tensors are summed, not averaged: convert them to float64, or weighted=False")
        if not self.weighted and any(not t.weighted for t in self.tensors):
            raise PlanError("tensors that count each party once belong in a weighted manifest: here all are summed")

    @cached_property
    def size(self) -> int:
        """Number of values, without counts, metrics, weight and check word."""
        return sum(t.size for t in self.tensors)

    @property
    def counts(self) -> int:
        """Number of words that count parties: two for each tensor, or none."""
        return 2 * len(self.tensors) if self.counted else 0

    def words(self, parties: int) -> int:
        """Returns the number L of ring words: values, counts, the weight, whole totals, limbs, and the word 1.

        Args:
            parties: How many contribute at most, on which the number of limbs depends.
        """
        whole = int(np.count_nonzero(self.whole))
        return self.size + self.counts + whole + (len(self.whole) - whole) * limb_count(parties) + 2

    @cached_property
    def whole(self) -> NDArray[np.bool_]:
        """Which of the numbers in `metrics` are whole, bool[m]."""
        return np.repeat([total.whole for total in self.metrics], [total.size for total in self.metrics]).astype(bool)

    @cached_property
    def integers(self) -> bool:
        """Whether all tensors are integers, so that their sum is int64."""
        return bool(self.tensors) and all(t.integer for t in self.tensors)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The stretches of values that are encoded alike, in order."""
        found, place = [], 0
        for _, group in groupby(enumerate(self.tensors), lambda item: self._alike(*item)):
            (number, first), *others = group
            stop = place + first.size + sum(tensor.size for _, tensor in others)
            found.append(Run(place, stop, first, number, first.integer, first.reach))
            place = stop
        return tuple(found)

    def _alike(self, number: int, tensor: Tensor) -> tuple[object, ...]:
        """Returns what the neighbours in a run have in common."""
        return tensor.integer, tensor.bound, tensor.weighted, number if self.counted else None

    def reaching(self, reaches: Sequence[int]) -> Manifest:
        """Returns the same manifest with the bound 2^reach for each of its tensors, all of them floats.

        Raises:
            ProtocolError: There is not one reach for each, from `LOWEST` to `HIGHEST`.
        """
        fits = all(isinstance(reach, int) and LOWEST <= reach <= HIGHEST for reach in reaches)
        if len(reaches) != len(self.tensors) or not fits:
            raise ProtocolError(
                f"expected {len(self.tensors)} reaches from {LOWEST} to {HIGHEST}, one for each tensor, found {reaches}"
            )
        if all(t.bound == math.ldexp(1.0, reach) for t, reach in zip(self.tensors, reaches, strict=True)):
            return self  # with its hash, as from one round to the next
        pairs = zip(self.tensors, reaches, strict=True)
        return replace(self, tensors=tuple(replace(tensor, bound=math.ldexp(1.0, reach)) for tensor, reach in pairs))

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 over tensors and totals with all their fields, over what is counted, and who counts once."""
        once = tuple(place for place, tensor in enumerate(self.tensors) if not tensor.weighted)
        return digest(
            "manifest",
            enc_list("tensors", tuple(tensor.canonical for tensor in self.tensors)),
            enc_list("metrics", tuple(enc("total", t.name, t.size, int(t.whole)) for t in self.metrics)),
            int(self.weighted),
            int(self.counted),
            *([enc_list("once", once)] if once else []),
        )


@dataclass(frozen=True, slots=True)
class RoundContext:
    """All that one round's input depends on, as this party received it. Its hash `ctx` enters the keys (R0).

    Attributes:
        number: The round.
        model: SHA-256 of the model as received, or an operation id for sums of the user's own values.
        settings: Canonical bytes of everything else received that any party's input depends on.
        manifest: What the words mean.
        purpose: What the round is for.
        repeats: The round before, where this one sums the same inputs over the same parties once more, with other
            bounds; None for a round of its own.
        rows: Which of its rows this party uses, derived from the settings; None where the rounds of a purpose are all
            alike. It is no part of `ctx`: it differs from party to party.
    """

    number: Round
    model: bytes
    settings: bytes
    manifest: Manifest
    purpose: Purpose = "train"
    repeats: Round | None = None
    rows: Rows | None = None


@dataclass(frozen=True, slots=True)
class Contribution:
    """One party's input to one round, in clear. Never stored, never sent.

    Attributes:
        values: float[n] in the manifest's order, or int[n] where all tensors are integers. Where integer tensors stand
            beside others they are floats too, exact up to 2^53.
        weight: Weight of the values, e.g. rows trained on; 0 is legal and sends zeros. 0 or 1 where the manifest is
            not weighted.
        metrics: float64[m], totals and counts in the manifest's order; together with the others' they open exactly.
    """

    values: NDArray[np.generic]
    weight: int
    metrics: Vector

    def __repr__(self) -> str:
        """Shows sizes only: a contribution is secret."""
        return f"Contribution({len(self.values)} values, {len(self.metrics)} metrics)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuses.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a Contribution is secret: it is never pickled or copied")


@dataclass(frozen=True, slots=True)
class Extent:
    """How the words of one tensor fill their range, as a sum shows it.

    Attributes:
        largest: Largest absolute word of the sum.
        saturated: How many parties had a value beyond the tensor's bound, and cut it off there.
        coarse: How many parties had values, and none whose word reaches `Encoding.fine`.
    """

    largest: int
    saturated: int
    coarse: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The sum of one round and nothing else.

    Attributes:
        values: float64[n], the weighted mean where the manifest is weighted, else the sum; int64[n] where all tensors
            are integers.
        weight: Sum of the weights.
        metrics: float64[m], sums, each rounded once.
        parties: Whose inputs are in it.
        extents: One for each tensor, where the manifest has them counted; else empty.
    """

    values: NDArray[np.float64] | NDArray[np.int64]
    weight: int
    metrics: NDArray[np.float64]
    parties: tuple[PartyName, ...]
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """The set of parties whose inputs a round sums (SECAGG section 5).

    Attributes:
        counter: 0 for the whole roster; it only grows.
        members: Names, in roster order.
    """

    counter: int
    members: tuple[PartyName, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """What one party did wrong in a round, as far as the summing end can tell.

    Attributes:
        number: The round.
        party: Who.
        what: In words. Empty evidence means that this is the summing end's word, and nothing more.
        evidence: Statements that the party signed, which show it to others (`fedray/protocol/recovery/evidence.py`), or
            empty.
    """

    number: Round
    party: PartyName
    what: str
    evidence: bytes = b""


class Joining(Protocol[End_co]):
    """One party's way into a session: `hello`, `confirm`, `start`, in this order and once."""

    def hello(self) -> bytes:
        """Returns this party's Hello."""

    def confirm(self, hellos: Sequence[bytes]) -> bytes:
        """Checks everybody's Hello (in roster order) and returns the Confirm."""

    def start(self, confirms: Sequence[bytes]) -> End_co:
        """Checks everybody's Confirm and returns the party's end of the session."""


class Shield(Protocol):
    """The contributing party's end of a session: `join` for each new view, `protect` for each round."""

    def join(self, view: View) -> None:
        """Moves to a view; the next rounds sum its members' inputs."""

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns addressee -> message. A repeated request with the same context returns the identical bytes."""

    def reply(self, broadcast: bytes) -> bytes:
        """Answers a further exchange of the current round, where the scheme has one."""


@runtime_checkable
class BatchedShield(Shield, Protocol):
    """A shield whose rounds need keys that all parties prepare together, a batch of rounds at a time."""

    def prepare(self, batch: int, first: Round) -> bytes:
        """Begins the set-up of a batch whose first round is `first`; rounds may be under way meanwhile."""

    def absorb(self, message: bytes) -> bytes | None:
        """Answers what the coordinator relays of a set-up; None when the batch is ready."""

    def survivors(self, number: Round) -> tuple[PartyName, ...] | None:
        """Returns whose inputs a round sums, once this party has verified it; else None."""


@runtime_checkable
class FaultFinder(Protocol):
    """A collector that keeps what parties did wrong, in order of discovery."""

    faults: list[Fault]


class Collector(Protocol):
    """The summing end, one per round."""

    def add(self, sender: PartyName, message: Message) -> None:
        """Takes one message of the current stage and adds it on arrival; no vector is kept."""

    def missing(self) -> frozenset[PartyName]:
        """Returns whose message of the current stage is still awaited."""

    def sufficient(self) -> bool:
        """Returns whether the current stage may be closed without those who are missing."""

    def advance(self) -> bytes | None:
        """Closes the current stage: returns the broadcast of the next exchange, or None when the sum can be opened."""

    def open(self) -> Opened:
        """Returns the sum.

        Raises:
            ProtocolError: A message is missing, pads did not cancel, or the sum fails its checks.
        """
