# SPDX-License-Identifier: Apache-2.0
"""The totals of a manifest as words and back: whole numbers in one word each, then all others in limbs.

Knows which numbers are whole, and how many parties there may be. Does not know what they count, nor masks.
"""

from __future__ import annotations

from os import urandom

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, NotFinite, ProtocolError
from fedray.protocol.limbs import (
    FRACTION_BITS,
    LIMIT,
    NUMBER_BITS,
    gather,
    limb_bound,
    limb_count,
    rounded,
    spread,
)
from fedray.protocol.manifest import Manifest
from fedray.types import PartyName

_EXACT_BITS = 53
"""A sum of counts opens as a float64, which holds whole numbers of up to so many bits."""


class TotalWords:
    """The totals of one manifest among so many parties.

    Args:
        ring: Bits of a word.
        parties: Size n of the roster, for which there is room.
        manifest: What is summed.

    Raises:
        EncodingError: The words are too narrow for limbs.
    """

    def __init__(self, ring: int, parties: int, manifest: Manifest) -> None:
        self._manifest, self._parties, self._whole = manifest, parties, manifest.whole
        self._counts = int(np.count_nonzero(self._whole))
        if ring != 64 and self._counts < len(self._whole):
            raise EncodingError(
                f"totals that are no whole numbers need words of 64 bits, found a ring of {ring}; take ring=64"
            )
        self._most = min(1 << _EXACT_BITS, 1 << (ring - 4)) // parties

    def words(self, metrics: NDArray[np.float64], owner: PartyName) -> NDArray[np.int64]:
        """Returns the words of one party's totals: counts, then limbs with carries drawn for this call.

        Args:
            metrics: float64[m], in the manifest's order.
            owner: Name for error messages.

        Raises:
            NotFinite: One is NaN or infinite; the message names it.
            EncodingError: One is beyond its bound, or a fraction where a whole number was declared.
        """
        self._refuse_not_finite(metrics, owner)
        counts, reals = metrics[self._whole], metrics[~self._whole]
        beyond = np.abs(metrics) >= LIMIT
        beyond[self._whole] = np.abs(counts) > self._most
        if beyond.any():
            place = int(beyond.argmax())
            real = f"2^{NUMBER_BITS - FRACTION_BITS}, the largest number that is summed"
            limit = f"{self._most}, the largest count of {self._parties} parties" if self._whole[place] else real
            raise EncodingError(f"{owner}: {self._name(place)!r} is beyond {limit}; nothing was sent")
        broken = self._whole & (metrics != np.rint(metrics))
        if broken.any():
            raise EncodingError(
                f"{owner}: {self._name(int(broken.argmax()))!r} was declared a count, found no whole number; nothing "
                "was sent. With a sample_weight (of ones) it is summed as a real number"
            )
        # The system's randomness, as for masks: whoever can foresee carries sees which limbs ran over.
        limbs = spread(reals, self._parties, urandom)
        return np.concatenate([counts.astype(np.int64), limbs.ravel()])

    def nothing(self) -> NDArray[np.int64]:
        """Returns the words of a round whose plan holds no totals: zeros.

        Without carries, as nothing of anybody's stands behind them. That is so for all parties, by the plan: a party
        whose own totals happen to be zero draws carries, since their absence would tell.
        """
        reals = len(self._whole) - self._counts
        return np.zeros(self._counts + reals * limb_count(self._parties), np.int64)

    def sums(self, signed: NDArray[np.signedinteger], count: int) -> NDArray[np.float64]:
        """Returns the sums, float64[m], each rounded once.

        Args:
            signed: The words' sum.
            count: How many parties are in it.

        Raises:
            ProtocolError: It is out of the range of so many parties' words.
        """
        metrics = np.empty(len(self._whole))
        counts, limbs = signed[: self._counts], signed[self._counts :].astype(np.int64)
        check_range(counts, count * self._most, "a count")
        check_range(limbs, count * limb_bound(self._parties), "a limb")
        numbers = gather(limbs.reshape(-1, limb_count(self._parties)), self._parties)
        if max(map(abs, numbers), default=0) >= count << NUMBER_BITS:
            raise _altered("a total")
        metrics[self._whole], metrics[~self._whole] = counts, rounded(numbers)
        return metrics

    def _refuse_not_finite(self, metrics: NDArray[np.float64], owner: PartyName) -> None:
        wrong = ~np.isfinite(metrics)
        if wrong.any():
            place = int(wrong.argmax())
            kind = "NaN" if np.isnan(metrics[place]) else "an infinity"
            raise NotFinite(f"{owner}: {self._name(place)!r} holds {kind}; nothing was sent")

    def _name(self, place: int) -> str:
        for total in self._manifest.metrics:
            if place < total.size:
                return total.name
            place -= total.size
        raise EncodingError(f"no total holds number {place} beyond the end")


def check_range(signed: NDArray[np.signedinteger], bound: int, what: str) -> int:
    """Returns the largest absolute word, once it is found that parties can have made the sum.

    Args:
        signed: Its words.
        bound: Largest absolute value.
        what: What they are, for the error.

    Raises:
        ProtocolError: A word is beyond the bound.
    """
    largest = max(-int(np.minimum.reduce(signed)), int(np.maximum.reduce(signed))) if signed.size else 0
    if largest > bound:
        raise _altered(what)
    return largest


def _altered(what: str) -> ProtocolError:
    return ProtocolError(
        f"{what} in the sum is beyond what the parties may send: a vector was altered; nothing is published"
    )
