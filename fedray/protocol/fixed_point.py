# SPDX-License-Identifier: Apache-2.0
"""Real numbers to words of Z_2^l and back: `[values | counts | weight | totals | 1]`.

A float v under the bound 2^r becomes the nearest integer to u v 2^(t - r), where u is the party's share of the largest
weight and 2^t the largest word. So the step of a tensor follows its bound, and its words have one size in any unit.

Knows a manifest and an encoding. Does not know how totals are summed exactly (`fedray/protocol/totals.py`), masks,
messages or who else contributes. Works on one stretch of the vector at a time, into memory that the caller gives, so
that masks can follow while it is in cache.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, NotFinite, ProtocolError
from fedray.protocol.config import EXACT_IN_FLOAT, Config, Encoding
from fedray.protocol.crypto.keystream import CHUNK_BYTES
from fedray.protocol.manifest import Manifest, Run, Tensor
from fedray.protocol.member import Member
from fedray.protocol.messages import Words
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scheme import Contribution, Extent, Opened
from fedray.protocol.totals import TotalWords, check_range
from fedray.types import PartyName, Vector


class Encoder:
    """Turns one contribution into ring words, stretch by stretch: `encode` is the first stage of every pipeline."""

    def __init__(
        self,
        encoding: Encoding,
        parties: int,
        manifest: Manifest,
        contribution: Contribution,
        *,
        owner: PartyName = "this party",
    ) -> None:
        """Checks all that can be checked before the values are read.

        Args:
            encoding: How numbers become words.
            parties: Size n of the roster, for which the ring has headroom.
            manifest: What the words mean.
            contribution: What to encode; read later, not copied.
            owner: Name for error messages.

        Raises:
            EncodingError: The contribution does not fit the manifest, or its weight or a total is out of bounds.
            NotFinite: A total is NaN or infinite.
        """
        self._encoding, self._manifest, self._owner = encoding, manifest, owner
        self._parties, self._top = parties, encoding.top(parties)
        self._values = self._checked_values(contribution.values)
        # All that can be refused without the values is refused before any key is touched: the round is still free.
        self._runs = _bounded_runs(encoding, parties, manifest)
        self._totals = TotalWords(encoding.ring, parties, manifest)
        self._tail = self._encode_tail(contribution)
        self._share = contribution.weight / encoding.weight_bound if manifest.weighted else float(contribution.weight)
        self._peaks = [0.0] * len(manifest.tensors)
        self._starts = [run.start for run, _ in self._runs]
        self._behind = _ends_of_reals([run for run, _ in self._runs])
        self._real = np.empty(CHUNK_BYTES // (encoding.ring // 8))

    @classmethod
    def of(cls, config: Config, member: Member, manifest: Manifest, contribution: Contribution) -> Encoder:
        """Returns the encoder of one party's contribution to a round under agreed settings.

        Args:
            config: Agreed settings.
            member: The party.
            manifest: What the words mean.
            contribution: What to encode.

        Raises:
            EncodingError: As in the constructor.
        """
        return cls(config.encoding, config.contributors, manifest, contribution, owner=member.name)

    def encode(self, words: Words, start: int) -> None:
        """Encodes the words from place `start` on, in place; stretches come in order, as counts follow the values.

        Args:
            words: uint32[m] or uint64[m], little-endian, of any content; m is at most `CHUNK_BYTES` of them.
            start: Place of the first one in the vector.

        Raises:
            NotFinite: A value is NaN or infinite; the message names the tensor.
            EncodingError: A value is out of bounds and these are not counted; the message names the tensor.
        """
        size, stop = self._manifest.size, start + len(words)
        place, a = bisect_right(self._starts, start) - 1, start
        while a < min(stop, size):
            run, bound = self._runs[place]
            b = min(run.stop, stop)
            if run.integer:
                self._encode_integers(words[a - start : b - start], a, b, bound)
                place += 1
            else:  # with all reals behind it: what can be done for many at once costs less
                behind = self._behind[place]
                b = min(self._runs[behind - 1][0].stop, stop)
                self._encode_reals(words[a - start : b - start], a, b, place)
                place = behind
            a = b
        if stop > size:
            self._count()
            a = max(start, size)
            words[a - start :] = self._tail[a - size : stop - size]

    def _checked_values(self, values: NDArray[np.generic]) -> NDArray[Any]:
        manifest, expected = self._manifest, "iu" if self._manifest.integers else "f"
        if not isinstance(values, np.ndarray) or values.shape != (manifest.size,):
            raise self._fault(f"expected {manifest.size} values, found shape {getattr(values, 'shape', None)}")
        if values.size and (values.dtype.kind not in expected or values.dtype.itemsize > 8):
            wanted = "integers" if manifest.integers else "floats"
            raise self._fault(f"expected {wanted} of at most 64 bits, found {values.dtype}")
        return values

    def _encode_reals(self, words: Words, a: int, b: int, place: int) -> None:
        """Encodes floats of one run or more.

        Args:
            words: uint32[b - a] or uint64[b - a], where they go.
            a: Place of the first one.
            b: Place after the last one.
            place: Run that holds the first one.
        """
        real = self._real[: b - a]
        np.copyto(real, self._values[a:b])
        for number in range(place, len(self._runs)):
            run = self._runs[number][0]
            if run.start >= b:
                break
            start, stop = max(run.start, a), min(run.stop, b)
            if start < stop:
                self._scale(real[start - a : stop - a], start, run)
        np.rint(real, out=real)
        # By way of the signed type: what a negative float becomes as an unsigned one depends on the processor.
        np.copyto(words.view(f"<i{words.itemsize}"), real, casting="unsafe")

    def _scale(self, real: NDArray[np.float64], start: int, run: Run) -> None:
        """Makes steps of one run's values, in place, and finds those that are beyond its bound."""
        # Two passes over the cached stretch find every odd value, NaN too: it is passed on, and compares false.
        peak = max(-float(np.minimum.reduce(real)), float(np.maximum.reduce(real)))
        scale = (self._share if run.tensor.weighted else 1.0) * math.ldexp(1.0, self._top - run.reach)
        # The largest value takes the same two roundings as every other one, so that this decides for all of them.
        reached, most = peak * scale, 2.0**self._top
        if reached <= most if self._manifest.counted else peak <= run.tensor.limit:
            np.multiply(real, scale, out=real)
        else:
            self._check_beyond(real, start)
            with np.errstate(over="ignore"):
                np.multiply(real, scale, out=real)
            np.clip(real, -most, most, out=real)
        self._peaks[run.number] = max(self._peaks[run.number], reached)

    def _check_beyond(self, real: NDArray[np.float64], start: int) -> None:
        """Refuses what is no number in a stretch with odd values, and, unless these are counted, what is too large."""
        self._check_finite(real, start)
        if not self._manifest.counted:
            tensor = _tensor_at(self._manifest, start)  # one run has one bound
            beyond = np.abs(real) > tensor.limit
            name = _tensor_at(self._manifest, start + int(beyond.argmax())).name
            raise self._fault(f"tensor {name!r} holds a value beyond its bound {tensor.limit:g}; nothing was sent")

    def _count(self) -> None:
        """Says of every tensor whether this party has cut a value off, and whether its words are too small."""
        if self._manifest.counted:
            top, fine, tensors = 2.0**self._top, 2.0 ** self._encoding.fine(self._parties), self._manifest.tensors
            saturated = [peak > top for peak in self._peaks]
            coarse = [0 < peak < fine for peak in self._peaks]
            self._tail[: 2 * len(tensors)] = [*saturated, *coarse]

    def _check_finite(self, values: NDArray[np.floating[Any]], start: int) -> None:
        wrong = ~np.isfinite(values)
        if wrong.any():
            name = _tensor_at(self._manifest, start + int(wrong.argmax())).name
            kind = "NaN" if np.isnan(values[wrong.argmax()]) else "an infinity"
            raise NotFinite(f"{self._owner}: tensor {name!r} holds {kind}; nothing was sent")

    def _encode_integers(self, words: Words, a: int, b: int, bound: int) -> None:
        values = self._values[a:b]
        if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
            raise self._fault(
                f"tensor {_tensor_at(self._manifest, a).name!r} is declared integer, found another number"
            )
        if values.min() < -bound or values.max() > bound:
            wrong = int(((values < -bound) | (values > bound)).argmax())
            name = _tensor_at(self._manifest, a + wrong).name
            raise self._fault(
                f"integer tensor {name!r} holds a value beyond its bound {bound}, up to which a sum over all parties "
                "is exact; nothing was sent. Sum it in a larger unit, or as floats (exact up to 2^53)"
            )
        # Weight 0 sends zeros: the party takes part, and adds nothing.
        whole = values.astype(np.int64)
        np.copyto(words.view(f"<i{words.itemsize}"), whole if self._share else 0, casting="unsafe")

    def _encode_tail(self, contribution: Contribution) -> Words:
        weight, bound = contribution.weight, self._encoding.weight_bound if self._manifest.weighted else 1
        if isinstance(weight, bool) or not isinstance(weight, (int, np.integer)) or not 0 <= weight <= bound:
            raise self._fault(f"expected an integer weight of 0 to {bound}, which the plan allows in one round")
        counts = np.zeros(self._manifest.counts, np.int64)  # set once all values were seen
        tail = np.concatenate((counts, [int(weight)], self._encode_totals(contribution.metrics), [1]))
        return tail.astype(f"<i{self._encoding.ring // 8}").view(f"<u{self._encoding.ring // 8}")

    def _encode_totals(self, given: Vector | None) -> NDArray[np.int64]:
        if given is None:
            return self._totals.nothing()
        metrics = np.asarray(given, np.float64)
        if metrics.shape != self._manifest.whole.shape:
            raise self._fault(f"expected {len(self._manifest.whole)} metrics, found shape {metrics.shape}")
        if not (np.isfinite(metrics).all() or self._manifest.integers):
            self._check_finite(self._values, 0)  # a broken tensor breaks the metrics too, and is the one to name
        return self._totals.words(metrics, self._owner)

    def _fault(self, message: str) -> EncodingError:
        return EncodingError(f"{self._owner}: {message}")


def decode(encoding: Encoding, parties: int, manifest: Manifest, opened: OpenedSum) -> Opened:
    """Returns what a sum of words says, once all of it is found to be what parties can have made.

    Args:
        encoding: How numbers became words.
        parties: Size n of the roster, for which the ring has headroom.
        manifest: What the words mean.
        opened: The sum; it is left as it is, since others may read it too.

    Raises:
        ProtocolError: The sum is noise, out of range, or all weights are zero. Nothing of it is used.
    """
    total, members = opened.words, opened.members
    signed: NDArray[Any] = total.view(f"<i{total.itemsize}")
    count, size = len(members), manifest.size
    if len(total) != manifest.words(parties) or 8 * total.itemsize != encoding.ring:
        raise ProtocolError(
            f"expected a sum of {manifest.words(parties)} words of {encoding.ring} bits, "
            f"found {len(total)} of {8 * total.itemsize}"
        )
    opened.check_count()
    at = size + manifest.counts
    weight, counts = int(signed[at]), [int(word) for word in signed[size:at]]
    check_range(signed[at : at + 1], count * (encoding.weight_bound if manifest.weighted else 1), "the weight")
    metrics = TotalWords(encoding.ring, parties, manifest).sums(signed[at + 1 : -1], count)
    if not all(0 <= found <= count for found in counts):
        raise ProtocolError("a count of parties in the sum is beyond their number; nothing is published")
    if manifest.weighted and weight <= 0:
        raise ProtocolError(f"all weights of {members} are zero: there is nothing to average")
    share = weight / encoding.weight_bound if manifest.weighted else 1.0
    largest, units = [0] * len(manifest.tensors), list[tuple[int, float]]()
    for run, bound in _bounded_runs(encoding, parties, manifest):
        unit = 1.0
        if not run.integer:
            unit = (share if run.tensor.weighted else count) * math.ldexp(1.0, encoding.top(parties) - run.reach)
        units.append((run.stop, unit))
        largest[run.number] = _largest(signed[run.start : run.stop], count * bound)
    half = len(counts) // 2
    extents = tuple(map(Extent, largest, counts[:half], counts[half:])) if manifest.counted else ()
    read = partial(_read, signed, units, "<i8" if manifest.integers else "<f8")
    return Opened(read, size, weight, metrics, members, extents)


def _largest(signed: NDArray[Any], bound: int) -> int:
    """Returns the largest absolute word of one run, whose range is checked on the way, while words are in cache."""
    step = CHUNK_BYTES // 8
    stretches = (signed[start : start + step] for start in range(0, len(signed), step))
    return max((check_range(stretch, bound, "a value") for stretch in stretches), default=0)


def _read(signed: NDArray[Any], units: list[tuple[int, float]], dtype: str, start: int, stop: int) -> NDArray[Any]:
    """Returns the values of a stretch of words.

    Args:
        signed: The sum's words.
        units: Place after the last word of each run, and what a word of it is divided by.
        dtype: Type of the values.
        start: Place of the first word.
        stop: Place after the last one.
    """
    values = signed[start:stop].astype(dtype)
    begin = start
    for end, unit in units if dtype == "<f8" else ():
        if begin < min(end, stop) and unit != 1.0:
            part = values[begin - start : min(end, stop) - start]
            # Divided after the conversion, once: the mean has the rounding of one division, the same everywhere.
            np.divide(part, unit, out=part)
        begin = max(begin, min(end, stop))
    return values


def _bounded_runs(encoding: Encoding, parties: int, manifest: Manifest) -> list[tuple[Run, int]]:
    """Returns the stretches that are encoded alike, each with the largest absolute word of one party.

    Raises:
        EncodingError: Integers up to their declared bound could wrap around in the sum.
    """
    runs = []
    for run in manifest.runs:
        if not run.integer:
            runs.append((run, 1 << encoding.top(parties)))
            continue
        declared = None if run.tensor.bound is None else int(run.tensor.bound)
        most = encoding.integer_bound(parties)
        if not manifest.integers:  # beside floats the sum is made of floats, which are exact up to 2^53 only
            most = min(most, EXACT_IN_FLOAT // parties)
        if declared is not None and declared > most:
            raise EncodingError(
                f"integer tensors with bound {declared} do not fit: {parties} parties have room for "
                f"{most}; take ring=64, a smaller bound, or sum integers on their own"
            )
        runs.append((run, declared or most))
    return runs


def _ends_of_reals(runs: Sequence[Run]) -> list[int]:
    """Returns for each run the place behind the runs of reals that it is one of; of integers its own."""
    found, behind = [], len(runs)
    for place in range(len(runs) - 1, -1, -1):
        behind = place if runs[place].integer else behind
        found.append(behind)
    return found[::-1]


def _tensor_at(manifest: Manifest, place: int) -> Tensor:
    """Returns the tensor that holds a word."""
    for tensor in manifest.tensors:
        if place < tensor.size:
            return tensor
        place -= tensor.size
    raise EncodingError(f"no tensor holds word {place} beyond the end")
