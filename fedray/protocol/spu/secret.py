# SPDX-License-Identifier: Apache-2.0
"""Secret: one compute party's shares of a value, and all that can be done to them without a word to the others.

Every compute party applies the same operations in the same order; the form that comes of it is the same everywhere.
Knows one party's shares. Does not know how they came or where they go.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, PlanError, ProtocolError
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.sharing.sealing import SEED_BYTES
from fedray.protocol.sharing.split import add_share
from fedray.protocol.spu.form import Form, Layout, decode
from fedray.protocol.spu.ring import Elements

FACTOR_BITS, LEAST_FACTOR_BITS = 24, 8
"""Bits of precision that a public factor gets, where it has to enter the shares: as many as there is room for."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Secret(Guarded):
    """What one compute party holds of one value.

    Attributes:
        form: What the shares mean; public.
        shares: Elements of the ring: the value's shape, an axis of 2 where two shares are held, an axis of 2 where
            elements have two words. Of `"xor"` and `"public"` values, words of any type.
    """

    form: Form
    shares: Elements


def split(
    layout: Layout, elements: Elements, long: int, compress: bool, entropy: Callable[[int], bytes] = os.urandom
) -> list[bytes | Elements]:
    """Returns as many shares as there are compute parties; they add up to the elements.

    Args:
        layout: How many, over which ring.
        elements: What to share.
        long: Which share is written out where the others are seeds.
        compress: Whether the others are seeds, which hide under AES; else all are written out.
        entropy: Source of randomness, bytes by count.
    """
    ring, left = layout.ring, elements
    shares: list[bytes | Elements] = []
    # The long share is what is left: it is made last and takes the place kept for it.
    for number in range(layout.parties):
        if number == long:
            shares.append(b"")
            continue
        drawn = entropy(SEED_BYTES) if compress else entropy(elements.nbytes)
        random = expand(drawn, elements) if compress else np.frombuffer(drawn, elements.dtype).reshape(elements.shape)
        shares.append(drawn if compress else random)
        left = ring.subtract(left, random)
    shares[long] = left
    return shares


def expand(seed: bytes, like: Elements) -> Elements:
    """Returns the share that a seed stands for, of another array's shape."""
    flat = np.zeros(like.size, like.dtype)
    add_share(flat, seed)
    return flat.reshape(like.shape)


def held(layout: Layout, parts: Sequence[Elements]) -> Elements:
    """Returns the shares of one compute party as one array, as `Secret.shares` has them."""
    if not layout.replicated:
        return parts[0]
    return np.stack(parts, axis=-2 if layout.ring.wide else -1)


def combine(layout: Layout, secrets: Sequence[Secret]) -> Any:
    """Returns the value, from what all compute parties hold of it, in their order.

    Raises:
        ProtocolError: What they hold does not belong together.
        EncodingError: The value is beyond what its form allows.
    """
    form = secrets[0].form
    if len(secrets) != layout.parties or any(secret.form != form for secret in secrets):
        raise ProtocolError("the compute parties hold shares of different values, which cannot be opened")
    if form.combine == "public":
        return _plain(layout, form, secrets[0].shares)
    parts = [_component(layout, form, secret.shares, 0) for secret in secrets]
    if layout.replicated:
        again = [_component(layout, form, secret.shares, 1) for secret in secrets]
        if any(not np.array_equal(again[m], parts[(m + 1) % layout.parties]) for m in range(layout.parties)):
            raise ProtocolError("two compute parties hold different copies of one share: one of them was altered")
    total = parts[0]
    for part in parts[1:]:
        total = layout.ring.add(total, part) if form.combine == "add" else total ^ part
    return decode(layout, form, total) if form.combine == "add" else _plain(layout, form, total)


def _component(layout: Layout, form: Form, shares: Elements, place: int) -> Elements:
    """Returns one of the shares that a compute party holds."""
    if not layout.replicated:
        return shares
    one: Elements = np.take(shares, place, axis=len(form.shape))
    return one


def _plain(layout: Layout, form: Form, words: Elements) -> Any:
    """Returns what words say that were never added: comparisons, or public results."""
    wide = words.ndim > len(form.shape)
    if words.dtype == layout.ring.word and wide == layout.ring.wide:
        return decode(layout, replace(form, bound=None), words)
    low = words[..., 0] if wide else words
    signed = low.astype(np.uint64).view(np.int64) if low.dtype.itemsize == 8 else low.astype(np.int64)
    return (np.ldexp(signed.astype(np.float64), -form.fraction) if form.real else signed).astype(form.dtype)


class Linear:
    """The operations, at one compute party.

    Args:
        layout: How shares lie.
        number: Which compute party this is.
    """

    def __init__(self, layout: Layout, number: int) -> None:
        self._layout, self._ring = layout, layout.ring
        self._components = layout.components(number)

    def negative(self, a: Secret) -> Secret:
        """Returns -a; integers as int64, since an unsigned type would wrap round."""
        self._check(a)
        return Secret(replace(a.form, dtype=_counted(a.form.dtype)), self._ring.negative(a.shares))

    def add(self, a: Secret, b: Secret) -> Secret:
        """Returns a + b; shapes are broadcast.

        Raises:
            PlanError: Shapes differ, or the sum may not fit the ring.
        """
        a, b = self._aligned(a, b)
        shape = _shape(a.form.shape, b.form.shape)
        dtype = str(np.result_type(a.form.dtype, b.form.dtype))
        bound = None if a.form.bound is None or b.form.bound is None else a.form.bound + b.form.bound
        form = a.form.within(self._layout, bound, shape=shape, dtype=_counted(dtype))
        return Secret(form, self._ring.add(a.shares, b.shares))

    def add_public(self, a: Secret, value: Any) -> Secret:
        """Returns a plus public numbers: one compute party (and who has a copy) adds them to its share."""
        self._check(a)
        array = np.asarray(value)
        if array.dtype.kind == "f" or a.form.scale != 1.0:
            a = self._absorbed(a, self._layout.fraction if not a.form.real else 0)
        real = a.form.real or a.form.fraction > 0
        words = np.rint(np.ldexp(array.astype(np.float64), a.form.fraction)) if real else array
        self._check_public(words)
        integers = words.astype(np.int64)
        most = int(np.abs(integers).max(initial=0))
        shape = _shape(a.form.shape, array.shape)
        bound = None if a.form.bound is None else a.form.bound + most
        form = a.form.within(self._layout, bound, shape=shape, dtype=_dtype(a.form.dtype, array))
        added = self._ring.of(np.broadcast_to(integers, shape).copy())
        zero = np.zeros_like(added)
        # To share 0 alone, wherever it is held: added to each share, the number would count several times.
        own = held(self._layout, [added if component == 0 else zero for component in self._components])
        return Secret(form, self._ring.add(a.shares, own))

    def multiply_public(self, a: Secret, value: Any) -> Secret:
        """Returns a times public numbers. One number waits in the form's scale, and integers enter exactly."""
        self._check(a)
        array = np.asarray(value)
        self._check_public(array)
        dtype = _dtype(a.form.dtype, array)
        if array.ndim == 0 and array.dtype.kind == "f":
            return Secret(replace(a.form, scale=a.form.scale * float(array), dtype=dtype), a.shares)
        more = 0 if array.dtype.kind != "f" or (array == np.rint(array)).all() else self._layout.fraction
        return self._times(a, np.rint(np.ldexp(array.astype(np.float64), more)).astype(np.int64), more, dtype)

    def total(self, a: Secret, axis: int | tuple[int, ...] | None) -> Secret:
        """Returns the sum over axes, None for all.

        Raises:
            PlanError: There is no such axis, or the sum may not fit the ring.
        """
        self._check(a)
        axes = _axes(axis, len(a.form.shape))
        count = math.prod(a.form.shape[i] for i in axes)
        shape = tuple(n for i, n in enumerate(a.form.shape) if i not in axes)
        bound = None if a.form.bound is None else a.form.bound * max(count, 1)
        form = a.form.within(self._layout, bound, shape=shape, dtype=_counted(a.form.dtype))
        return Secret(form, self._ring.total(a.shares, axes))

    def mean(self, a: Secret, axis: int | tuple[int, ...] | None) -> Secret:
        """Returns the mean over axes, None for all; the division waits in the form's scale.

        Raises:
            PlanError: There is no such axis, or nothing to average.
        """
        count = math.prod(a.form.shape[i] for i in _axes(axis, len(a.form.shape)))
        if count == 0:
            raise PlanError("mean: there is nothing to average along this axis")
        dtype = a.form.dtype if a.form.real else "float64"
        summed = self.total(a, axis)
        return Secret(replace(summed.form, scale=summed.form.scale / count, dtype=dtype), summed.shares)

    def join(self, secrets: Sequence[Secret], axis: int, *, stacked: bool) -> Secret:
        """Returns several values side by side: along a new axis where stacked, else along one they have.

        Args:
            secrets: The values, at least one.
            axis: Along which.
            stacked: Whether that axis is new.

        Raises:
            PlanError: Their shapes do not fit, or there is no such axis.
        """
        first = secrets[0]
        for other in secrets[1:]:
            first = self._aligned(first, other)[0]
        aligned = [self._aligned(secret, first)[0] for secret in secrets]
        axes = len(first.form.shape) + stacked
        if not -axes <= axis < axes:
            raise PlanError(f"axis: expected {-axes} to {axes - 1}, found {axis}")
        try:
            join = np.stack if stacked else np.concatenate
            shape = join([np.empty(s.form.shape, np.bool_) for s in aligned], axis=axis % axes).shape
            shares = join([s.shares for s in aligned], axis=axis % axes)
        except ValueError as error:
            raise PlanError(f"the values cannot be put side by side: {error}") from None
        known = [s.form.bound for s in aligned if s.form.bound is not None]
        bound = max(known) if len(known) == len(aligned) else None
        dtype = str(np.result_type(*(s.form.dtype for s in aligned)))
        return Secret(replace(aligned[0].form, shape=shape, bound=bound, dtype=dtype), shares)

    def prepared(self, a: Secret) -> Secret:
        """Returns a with no scale left over, as a program of the `spu` extra takes it; its fraction may be longer."""
        if a.form.combine != "add":
            return a
        return self._absorbed(a, 0 if not a.form.real else max(0, self._layout.fraction - a.form.fraction))

    # Fixed point.

    def _times(self, a: Secret, factor: NDArray[np.int64], more: int, dtype: str) -> Secret:
        shape = _shape(a.form.shape, factor.shape)
        most = int(np.abs(factor).max(initial=0))
        bound = None if a.form.bound is None else a.form.bound * max(most, 1)
        form = a.form.within(self._layout, bound, shape=shape, fraction=a.form.fraction + more, dtype=dtype)
        spread = factor[..., None] if self._layout.replicated else factor
        return Secret(form, self._ring.times(a.shares, spread))

    def _absorbed(self, a: Secret, more: int) -> Secret:
        """Returns a with its scale moved into its shares, and with at least `more` further bits after the point."""
        spare = self._layout.bits - 2 - (a.form.bound or 1).bit_length()
        factor, bits = _fixed(a.form.scale, more, max(LEAST_FACTOR_BITS, min(FACTOR_BITS, spare)))
        if factor == 1 and bits == 0:
            return a
        if abs(factor) >> 62:
            raise PlanError(f"the public factor {a.form.scale:g} is too large to enter the shares")
        bare = Secret(replace(a.form, scale=1.0), a.shares)
        dtype = a.form.dtype if a.form.real or bits == 0 else "float64"
        return self._times(bare, np.asarray(factor, np.int64), bits, dtype)

    def _aligned(self, a: Secret, b: Secret) -> tuple[Secret, Secret]:
        """Returns both with one scale and one fraction."""
        self._check(a)
        self._check(b)
        if a.form.scale != b.form.scale:
            a, b = self._absorbed(a, 0), self._absorbed(b, 0)
        lack = a.form.fraction - b.form.fraction
        if lack < 0:
            a = self._shifted(a, -lack)
        elif lack > 0:
            b = self._shifted(b, lack)
        return a, b

    def _shifted(self, a: Secret, more: int) -> Secret:
        if more > 62:
            raise PlanError(f"the values differ by {more} bits after the point: open them and share them anew")
        return self._times(a, np.asarray(1 << more, np.int64), more, a.form.dtype)

    def _check(self, a: Secret) -> None:
        if a.form.combine != "add":
            raise PlanError(
                "this value is the result of a comparison or is public, and its shares do not add up: use it inside "
                "spu(function), or convert it there, e.g. with .astype(jnp.float32)"
            )

    def _check_public(self, array: NDArray[Any]) -> None:
        if array.dtype.kind not in "fiub" or not np.isfinite(array.astype(np.float64)).all():
            raise PlanError(f"expected finite public numbers, found {array.dtype}")
        if array.size and np.abs(array.astype(np.float64)).max() >= 2.0**62:
            raise EncodingError("a public number is beyond 2^62")


def _fixed(scale: float, more: int, precision: int) -> tuple[int, int]:
    """Returns (factor, bits) such that factor / 2^bits is the scale: exactly, where so many bits can say it."""
    numerator, denominator = scale.as_integer_ratio()
    exact = denominator.bit_length() - 1
    bits = exact if numerator.bit_length() <= precision else max(0, precision - math.frexp(scale)[1])
    bits = max(more, bits)
    return round(math.ldexp(scale, bits)), bits


def _shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in np.broadcast_shapes(a, b))
    except ValueError:
        raise PlanError(f"shapes {a} and {b} do not fit each other") from None


def _axes(axis: int | tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    asked = tuple(range(count)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if any(isinstance(i, bool) or not isinstance(i, int) or not -count <= i < count for i in asked):
        raise PlanError(f"axis: the value has {count} axes, found {axis!r}")
    found = tuple(sorted(i % count for i in asked))
    if len(set(found)) != len(found):
        raise PlanError(f"axis: each axis once, found {axis!r}")
    return found


def _dtype(dtype: str, array: NDArray[Any]) -> str:
    """Returns the type of a result: floats stay as they are, integers become float64 where floats join them."""
    if np.dtype(dtype).kind == "f":
        return dtype
    return "float64" if array.dtype.kind == "f" else _counted(dtype)


def _counted(dtype: str) -> str:
    """Returns the type of a sum: that of integers and booleans is int64."""
    return "int64" if np.dtype(dtype).kind in "iub" else dtype
