# SPDX-License-Identifier: Apache-2.0
"""Manifest: what the words of one round's vector mean, tensor by tensor and total by total.

Every party derives its own copy from what all know. Knows no value, no party and no key.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from fedray.errors import PlanError, ProtocolError
from fedray.protocol.limbs import limb_count
from fedray.protocol.messages import digest, enc, enc_list

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
