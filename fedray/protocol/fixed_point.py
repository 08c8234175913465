# SPDX-License-Identifier: Apache-2.0
"""Real numbers to words of Z_2^l and back: `[values | weight | totals | 1]`.

Knows a manifest and an encoding. Does not know how totals are summed exactly (`fedray/protocol/totals.py`), masks,
messages or who else contributes. Works on one stretch of the vector at a time, into memory that the caller gives, so
that masks can follow while it is in cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, NotFinite, ProtocolError
from fedray.protocol.config import EXACT_IN_FLOAT, Config, Encoding
from fedray.protocol.crypto.keystream import CHUNK_BYTES
from fedray.protocol.member import Member
from fedray.protocol.messages import Words
from fedray.protocol.scheme import Contribution, Manifest, Opened, Run, Tensor
from fedray.protocol.totals import TotalWords, check_range
from fedray.types import PartyName


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
        refuse_overflow: bool = False,
    ) -> None:
        """Checks all that can be checked before the values are read.

        Args:
            encoding: How numbers become words.
            parties: Size n of the roster, for which the ring has headroom.
            manifest: What the words mean.
            contribution: What to encode; read later, not copied.
            owner: Name for error messages.
            refuse_overflow: Refuse values beyond the clip bound, also where the encoding would clip them.

        Raises:
            EncodingError: The contribution does not fit the manifest, or its weight or a total is out of bounds.
            NotFinite: A total is NaN or infinite.
        """
        self._encoding, self._manifest, self._owner = encoding, manifest, owner
        self._refuse = refuse_overflow or encoding.overflow == "refuse"
        self._values = self._checked_values(contribution.values)
        # All that can be refused without the values is refused before any key is touched: the round is still free.
        self._runs = _bounded_runs(encoding, parties, manifest)
        self._totals = TotalWords(encoding.ring, parties, manifest)
        self._tail = self._encode_tail(contribution)
        share = contribution.weight / encoding.weight_bound if manifest.weighted else float(contribution.weight)
        self._scale, self._once = math.ldexp(share, encoding.fraction), math.ldexp(1.0, encoding.fraction)
        self._real = np.empty(CHUNK_BYTES // (encoding.ring // 8))

    @classmethod
    def of(cls, config: Config, member: Member, manifest: Manifest, contribution: Contribution) -> Encoder:
        """Returns the encoder of one party's contribution to a round under agreed settings.

        Args:
            config: Agreed settings.
            member: The party; its policy may refuse what the encoding would clip.
            manifest: What the words mean.
            contribution: What to encode.

        Raises:
            EncodingError: As in the constructor.
        """
        return cls(
            config.encoding,
            config.contributors,
            manifest,
            contribution,
            owner=member.name,
            refuse_overflow=member.policy.refuse_overflow,
        )

    def encode(self, words: Words, start: int) -> None:
        """Encodes the words from place `start` on, in place.

        Args:
            words: uint32[m] or uint64[m], little-endian, of any content; m is at most `CHUNK_BYTES` of them.
            start: Place of the first one in the vector.

        Raises:
            NotFinite: A value is NaN or infinite; the message names the tensor.
            EncodingError: A value is out of bounds; the message names the tensor.
        """
        stop = start + len(words)
        for run, bound in self._runs:
            a, b = max(run.start, start), min(run.stop, stop)
            if a < b:
                part = words[a - start : b - start]
                if run.integer:
                    self._encode_integers(part, a, b, bound)
                else:
                    self._encode_reals(part, a, b, self._scale if run.weighted else self._once)
        size = self._manifest.size
        if stop > size:
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

    def _encode_reals(self, words: Words, a: int, b: int, scale: float) -> None:
        real, clip = self._real[: b - a], self._encoding.clip
        np.copyto(real, self._values[a:b])
        low, high = real.min(), real.max()
        # Two passes over the cached stretch find every odd value, NaN too: it compares false to anything.
        if not (-clip <= low and high <= clip):
            self._clip(real, a)
        np.multiply(real, scale, out=real)
        np.rint(real, out=real)
        # By way of the signed type: what a negative float becomes as an unsigned one depends on the processor.
        np.copyto(words.view(f"<i{words.itemsize}"), real, casting="unsafe")

    def _clip(self, real: NDArray[np.float64], start: int) -> None:
        clip = self._encoding.clip
        self._check_finite(real, start)
        beyond = np.abs(real) > clip
        if self._refuse:
            name = _tensor_at(self._manifest, start + int(beyond.argmax())).name
            raise self._fault(f"tensor {name!r} holds a value beyond the clip bound {clip:g}, which is refused here")
        np.clip(real, -clip, clip, out=real)

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
            raise self._fault(f"integer tensor {name!r} holds a value beyond its bound {bound}")
        # Weight 0 sends zeros: the party takes part, and adds nothing.
        whole = values.astype(np.int64)
        np.copyto(words.view(f"<i{words.itemsize}"), whole if self._scale else 0, casting="unsafe")

    def _encode_tail(self, contribution: Contribution) -> Words:
        weight, bound = contribution.weight, self._encoding.weight_bound if self._manifest.weighted else 1
        if isinstance(weight, bool) or not isinstance(weight, (int, np.integer)) or not 0 <= weight <= bound:
            raise self._fault(f"expected an integer weight of 0 to {bound}, which the plan allows in one round")
        metrics = np.asarray(contribution.metrics, np.float64)
        if metrics.shape != self._manifest.whole.shape:
            raise self._fault(f"expected {len(self._manifest.whole)} metrics, found shape {metrics.shape}")
        if not (np.isfinite(metrics).all() or self._manifest.integers):
            self._check_finite(self._values, 0)  # a broken tensor breaks the metrics too, and is the one to name
        parts = ([int(weight)], self._totals.words(metrics, self._owner), [1])
        return np.concatenate(parts).astype(f"<i{self._encoding.ring // 8}").view(f"<u{self._encoding.ring // 8}")

    def _fault(self, message: str) -> EncodingError:
        return EncodingError(f"{self._owner}: {message}")


def decode(
    encoding: Encoding, parties: int, manifest: Manifest, total: Words, members: tuple[PartyName, ...]
) -> Opened:
    """Returns what a sum of words says.

    Args:
        encoding: How numbers became words.
        parties: Size n of the roster, for which the ring has headroom.
        manifest: What the words mean.
        total: uint32[L] or uint64[L], the sum mod 2^l; 64-bit words are overwritten by the values, in their place.
        members: Whose words are in it.

    Raises:
        ProtocolError: The sum is noise, out of range, or all weights are zero. Nothing of it is published.
    """
    signed: NDArray[Any] = total.view(f"<i{total.itemsize}")
    count, size = len(members), manifest.size
    if len(total) != manifest.words(parties) or 8 * total.itemsize != encoding.ring:
        raise ProtocolError(
            f"expected a sum of {manifest.words(parties)} words of {encoding.ring} bits, "
            f"found {len(total)} of {8 * total.itemsize}"
        )
    # First of all: where pads did not cancel every word is noise, and saying so is more use than a wrong range.
    if int(signed[-1]) != count:
        raise ProtocolError(
            f"the sum over {members} is noise or was altered: the check word is not {count}. The parties differ in "
            "view, model, settings or history, or a vector was changed on its way; nothing is published"
        )
    weight = int(signed[size])
    check_range(signed[size : size + 1], count * (encoding.weight_bound if manifest.weighted else 1), "the weight")
    # Before the values, which take the place of their words.
    metrics = TotalWords(encoding.ring, parties, manifest).sums(signed[size + 1 : -1], count)
    if manifest.weighted and weight <= 0:
        raise ProtocolError(f"all weights of {members} are zero: there is nothing to average")
    scale = math.ldexp(weight / encoding.weight_bound if manifest.weighted else 1.0, encoding.fraction)
    dtype = "<i8" if manifest.integers else "<f8"
    values: NDArray[Any] = total[:size].view(dtype) if total.itemsize == 8 else np.empty(size, dtype)
    once = math.ldexp(float(count), encoding.fraction)
    for run, bound in _bounded_runs(encoding, parties, manifest):
        unit = 1.0 if run.integer else scale if run.weighted else once
        _decode_run(signed[run.start : run.stop], values[run.start : run.stop], unit, count * bound)
    return Opened(values, weight, metrics, members)


def _decode_run(signed: NDArray[Any], values: NDArray[Any], scale: float, bound: int) -> None:
    # In stretches, in place of the words: a second vector of 800 MB would cost more than the arithmetic.
    step = CHUNK_BYTES // 8
    for start in range(0, len(signed), step):
        part, target = signed[start : start + step], values[start : start + step]
        check_range(part, bound, "a value")
        np.copyto(target, part)
        # Divided after the conversion, once: the mean has the rounding of one division, the same on every machine.
        if values.dtype.kind == "f" and scale != 1.0:
            np.divide(target, scale, out=target)


def _bounded_runs(encoding: Encoding, parties: int, manifest: Manifest) -> list[tuple[Run, int]]:
    """Returns the stretches that are encoded alike, each with the largest absolute word of one party.

    Raises:
        EncodingError: Integers up to their declared bound could wrap around in the sum.
    """
    runs = []
    for run in manifest.runs:
        if not run.integer:
            runs.append((run, encoding.limit))
            continue
        declared = run.bound
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


def _tensor_at(manifest: Manifest, place: int) -> Tensor:
    """Returns the tensor that holds a word."""
    for tensor in manifest.tensors:
        if place < tensor.size:
            return tensor
        place -= tensor.size
    raise EncodingError(f"no tensor holds word {place} beyond the end")
