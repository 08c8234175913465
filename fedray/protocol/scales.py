# SPDX-License-Identifier: Apache-2.0
"""How large the values of each tensor may be in the next round, and when a round is held again (SECAGG section 4).

A tensor's **reach** is r where 2^r is its bound: values beyond it are cut off and counted. Everybody derives the reach
of the next round from what an opened sum shows of the last one, and so knows it alike. Where a party had cut something
off, or where the words came out too small for the promised precision, the round is repeated with the same inputs and
another reach, until it fits. Pure; knows sums, and no party's values.

The reach stays where it is while it fits. It rises when the sum comes near it, and falls through a repeat only: a mean
may be small because the parties' values cancel out, and then its own size says nothing about theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedray.errors import ProtocolError
from fedray.protocol.config import Encoding
from fedray.protocol.manifest import HIGHEST, LOWEST, Manifest
from fedray.protocol.scheme import Extent

MOST_REPEATS = 8
"""Repeats of one round. Three at most find any size from 1e-30 to 1e30, for up to a hundred parties; a party sends one
input no more often than this, whoever asks."""

GROWTH = 16
"""Factor, as a power of two, by which a tensor may grow from one round to the next without a repeat."""

FIRST_GROWTH = 12
"""The same before the first sum, when nobody knows yet how many parties there will be and how wide a word is."""


_NOTHING = 2
"""Bits of words whose sum is zero: rounding leaves -1, 0 and 1 of values around half a step."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many bits there are to choose from.

    Attributes:
        top: The largest word of one party is 2^top.
        fine: A sum with a word of 2^fine is as precise as promised.
    """

    top: int
    fine: int

    @classmethod
    def of(cls, encoding: Encoding, parties: int) -> Room:
        """Returns the room of an encoding for so many parties."""
        return cls(encoding.top(parties), encoding.fine(parties))

    @property
    def span(self) -> int:
        """By how much a reach may be too large before precision is lost."""
        return max(self.top - self.fine, 1)

    @property
    def growth(self) -> int:
        """How much a tensor may grow without a repeat."""
        return min(GROWTH, self.span // 2)


@dataclass(frozen=True, slots=True)
class Tried:
    """What the repeats of one round have shown about one tensor.

    Attributes:
        low: The largest reach that was too small; None for none.
        high: The smallest reach that was large enough, and too coarse; None for none.
    """

    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Scales:
    """The reaches of a model's tensors, and where a round stands that is being repeated.

    Attributes:
        reaches: One for each tensor of the manifest.
        tried: The same, of a round that is to be repeated; empty where none is.
        repeats: How often the round is repeated, with the next one.
    """

    reaches: tuple[int, ...]
    tried: tuple[Tried, ...] = ()
    repeats: int = 0

    @property
    def again(self) -> bool:
        """Whether the round is to be held once more, with these reaches and the same inputs."""
        return self.repeats > 0

    def after(self, manifest: Manifest, extents: Sequence[Extent], room: Room) -> Scales:
        """Returns what an opened sum leads to: the reaches of a repeat, or of the next round.

        Args:
            manifest: What was summed; for the names of its tensors.
            extents: What the sum shows, one for each tensor.
            room: Bits to choose from.

        Raises:
            ProtocolError: A tensor still does not fit after `MOST_REPEATS` repeats.
        """
        tried = self.tried or (Tried(),) * len(self.reaches)
        found = [
            _step(reach, extent, known, room) for reach, extent, known in zip(self.reaches, extents, tried, strict=True)
        ]
        if not any(again for _, _, again in found):
            settled = zip(self.reaches, extents, tried, strict=True)
            return Scales(tuple(_settled(reach, extent, known, room) for reach, extent, known in settled))
        reaches = tuple(reach for reach, _, _ in found)
        if self.repeats == MOST_REPEATS or max(reaches) > HIGHEST:
            place = next(number for number, (_, _, again) in enumerate(found) if again)
            raise ProtocolError(
                f"tensor {manifest.tensors[place].name!r}: its values were found in none of {1 + self.repeats} ranges, "
                f"the last one up to 2^{self.reaches[place]}; look for training that diverges, and lower the learning "
                "rate"
            )
        return Scales(reaches, tuple(known for _, known, _ in found), self.repeats + 1)

    def abandoned(self) -> Scales:
        """Returns the same reaches for a round with other inputs."""
        return replace(self, tried=(), repeats=0)


def first(largest: Sequence[float]) -> tuple[int, ...]:
    """Returns the reaches before any sum, from the largest absolute value of each tensor in the model.

    A tensor of zeros gets the reach of the largest one: nothing is known of what it will be.
    """
    sizes = [_exponent(value) for value in largest]
    usual = max((size for size in sizes if size is not None), default=0)
    return tuple(max(LOWEST, (usual if size is None else size) + FIRST_GROWTH) for size in sizes)


def _exponent(value: float) -> int | None:
    """Returns the least e for which 2^e is above a positive number; None for zero and for what is no number."""
    return math.frexp(value)[1] if 0 < value < math.inf else None


def _step(reach: int, extent: Extent, known: Tried, room: Room) -> tuple[int, Tried, bool]:
    """Returns the reach of a repeat, what is known then, and whether this tensor needs one."""
    if extent.saturated:
        # Once by what leaves the words precise if it was enough. Then by all that a word holds and almost as much more:
        # if that is too much, and nothing is left of the words, the values fit that first step above the last reach.
        step = room.span if known.low is None else room.top + room.span - _NOTHING
        wider = reach + step
        if known.high is not None:
            wider = min(reach + room.span, known.high)
        return wider, replace(known, low=reach), True
    lowest = LOWEST if known.low is None else max(LOWEST, known.low + room.span)
    # Not coarser than `span` above a reach that was too small: then a value is large enough to be precise.
    if not extent.coarse or extent.largest >= 1 << room.fine or reach <= lowest:
        return reach, known, False
    # The size of the sum says where to go. Words that sum up to nothing are small ones, as a rule, that cancel out.
    seen = extent.largest.bit_length() + room.growth if extent.largest else _NOTHING
    return max(lowest, reach - room.top + seen), replace(known, high=reach), True


def _settled(reach: int, extent: Extent, known: Tried, room: Room) -> int:
    """Returns the reach of the next round, after a sum that needs no repeat."""
    if not extent.largest:
        return reach
    wanted = reach - room.top + extent.largest.bit_length() + room.growth
    if known.low is not None:  # some party's value was beyond it, whatever the mean is
        wanted = max(wanted, known.low + room.growth)
    if known != Tried():
        return max(LOWEST, wanted)
    # Not at every bit: each new reach is a new manifest.
    return wanted if wanted - reach >= max(room.growth // 4, 1) else reach
