# SPDX-License-Identifier: Apache-2.0
"""Layout and Form: what everybody knows of a shared value. How an SPU's shares lie, and what one value's shares mean.

Knows shapes, types and fixed point, all public. Knows no share.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, NotFinite, PlanError
from fedray.protocol.messages import dec, dec_list, enc, enc_list
from fedray.protocol.spu.ring import Elements, Ring

Combine = Literal["add", "xor", "public"]
"""How shares become the value: their sum, their exclusive or, or each of them is the value."""

MOST_AXES = 32


@dataclass(frozen=True, slots=True)
class Layout:
    """How the compute parties of one SPU hold values.

    Attributes:
        bits: Bits of the ring, 32, 64 or 128.
        parties: How many compute parties.
        fraction: Bits after the point of a freshly shared float.
        replicated: Whether compute party m holds share m and share m+1 (of three); else share m only.
        protocol: Its name, for messages.
    """

    bits: Literal[32, 64, 128]
    parties: int
    fraction: int
    replicated: bool = False
    protocol: str = "SEMI2K"

    @property
    def ring(self) -> Ring:
        """The ring."""
        return Ring(self.bits)

    @property
    def room(self) -> int:
        """Signed elements are below this in size."""
        return 1 << (self.bits - 1)

    def components(self, number: int) -> tuple[int, ...]:
        """Returns which shares a compute party holds."""
        return (number, (number + 1) % self.parties) if self.replicated else (number,)

    def default_bound(self) -> float:
        """Returns the largest absolute float that may be shared: 2^16, or what leaves 8 bits for sums."""
        return math.ldexp(1.0, min(16, self.bits - self.fraction - 9))

    def default_integer_bound(self) -> int:
        """Returns the largest absolute integer that may be shared: half the bits are left for sums and products."""
        return (1 << min(self.bits // 2, 62)) - 1


_TYPES = frozenset(str(np.dtype(order + code)) for code in "?bhilqBHILQefd" for order in "<>")
"""What NumPy calls the types that can be shared. Looked up, not parsed: NumPy reads far more than names of types."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the shares of one value mean.

    Attributes:
        shape: The value's shape.
        dtype: Type it is opened as, e.g. `"float32"`.
        fraction: Bits after the point.
        scale: What an opened value is multiplied by: public factors wait here, and cost neither bits nor messages.
        bound: No element is larger in size; None where that is not known, as for the results of programs.
        combine: How shares become the value.
        storage: What the library of the `spu` extra calls a result that it made; empty for sums.
    """

    shape: tuple[int, ...]
    dtype: str
    fraction: int = 0
    scale: float = 1.0
    bound: int | None = None
    combine: Combine = "add"
    storage: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in _TYPES or not math.isfinite(self.scale):
            raise EncodingError(f"a shared value is of floats, integers or booleans, found {self.dtype[:40]!r}")
        if self.combine not in ("add", "xor", "public") or any(n < 0 for n in self.shape) or self.fraction < 0:
            raise EncodingError(f"a shared value cannot have shape {self.shape} or fraction {self.fraction}")

    @property
    def real(self) -> bool:
        """Whether it is opened as floats."""
        return np.dtype(self.dtype).kind == "f"

    def encode(self) -> bytes:
        """Returns canonical bytes."""
        bound = "" if self.bound is None else str(self.bound)
        scale = struct.pack(">d", self.scale)
        head = (self.dtype, enc_list("shape", self.shape), self.fraction)
        return enc("form", *head, scale, bound, self.combine, self.storage)

    @classmethod
    def decode(cls, data: bytes) -> Form:
        """Parses canonical bytes.

        Raises:
            EncodingError: They are not a form's bytes.
        """
        dtype, shape, fraction, scale, bound, *rest = dec("form", data, (str, bytes, int, 8, str, str, str))
        size = tuple(dec_list("shape", shape, int, MOST_AXES))
        # One spelling of a number: "07" and "7" would be two forms of one value. 40 digits are 128 bits.
        if bound and (len(bound) > 40 or not (bound.isascii() and bound.isdigit()) or str(int(bound)) != bound):
            raise EncodingError(f"form: a bound is a number, found {bound[:40]!r}")
        return cls(size, dtype, fraction, struct.unpack(">d", scale)[0], int(bound) if bound else None, *rest)

    def within(self, layout: Layout, bound: int | None, **changes: Any) -> Form:
        """Returns a changed form with a new bound.

        Args:
            layout: The SPU's.
            bound: Largest absolute integer of an element; None for none.
            **changes: Other attributes, by name.

        Raises:
            PlanError: Elements of that size may wrap around.
        """
        if bound is not None and bound >= layout.room:
            larger = ", or an SPU with a larger field (FM128)" if layout.bits < 128 else ""
            raise PlanError(
                f"the result may need {bound.bit_length() + 1} bits, and the ring has {layout.bits}: use smaller "
                f"numbers or factors, or fewer of them{larger}"
            )
        return replace(self, bound=bound, **changes)


def encode(layout: Layout, value: Any, bound: float | None = None) -> tuple[Form, Elements]:
    """Returns a value in fixed point: what it is, and its elements, not yet shared.

    Args:
        layout: How the SPU's shares lie.
        value: An array or number of floats, integers or booleans.
        bound: Largest absolute number; None for the layout's default.

    Raises:
        NotFinite: A number is NaN or infinite.
        EncodingError: The value is something else, or a number is beyond the bound; or no number is as large as a step
            of the fixed point, and not all are 0.
    """
    if np.ma.is_masked(value):
        raise EncodingError("found a masked array, whose masked values would be shared; fill them, with .filled(0)")
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise EncodingError(f"expected floats, integers or booleans of at most 64 bits, found {array.dtype}")
    if array.dtype.kind != "f":
        return _encode_integers(layout, array, bound)
    limit = layout.default_bound() if bound is None else float(bound)
    if array.size and not np.isfinite(array).all():
        raise NotFinite("a value that is to be shared holds NaN or an infinity; nothing was sent")
    largest = max(-float(array.min()), float(array.max())) if array.size else 0.0
    if largest > limit:
        raise EncodingError(_beyond(limit))
    if 0 < largest < math.ldexp(1.0, -layout.fraction):
        raise EncodingError(
            f"all numbers are below 2^-{layout.fraction}, the step of the fixed point, and would count as 0 or as one "
            "step; nothing was sent. Scale them, or give more bits: runtime_config={'fxp_fraction_bits': ...}"
        )
    # In double precision and to nearest even, as everywhere: halves rounded up would shift every mean.
    real = np.rint(np.ldexp(array.astype(np.float64), layout.fraction))
    most = math.ceil(math.ldexp(limit, layout.fraction)) + 1
    form = Form(array.shape, str(array.dtype), layout.fraction).within(layout, most)
    return form, layout.ring.of(real.astype(np.int64))


def _encode_integers(layout: Layout, array: NDArray[Any], bound: float | None) -> tuple[Form, Elements]:
    limit = layout.default_integer_bound() if bound is None else int(bound)
    if array.dtype.kind == "b":
        limit = 1
    elif array.size and max(-int(array.min()), int(array.max())) > limit:
        raise EncodingError(_beyond(limit))
    form = Form(array.shape, str(array.dtype)).within(layout, limit)
    return form, layout.ring.of(array.astype(np.int64))


def _beyond(limit: float) -> str:
    return (
        f"a number is beyond the bound {limit:g} and would not fit with others in the ring; nothing was sent. Scale "
        "the value, or state a larger bound: SPU(cluster_def, bound=...)"
    )


def decode(layout: Layout, form: Form, elements: Elements) -> Any:
    """Returns the value that opened elements stand for.

    Args:
        layout: How the SPU's shares lie.
        form: What the elements mean.
        elements: The opened elements.

    Raises:
        EncodingError: An element is beyond the form's bound: shares do not belong together, or one was altered; or
            the result is beyond what its type holds.
    """
    signed = layout.ring.signed(elements)
    if form.bound is not None and signed.size and max(-int(signed.min()), int(signed.max())) > form.bound:
        raise EncodingError("the opened shares do not belong together, or one of them was altered")
    if not form.real and form.scale == 1.0 and form.fraction == 0:
        return signed.astype(form.dtype)
    try:
        with np.errstate(over="raise"):
            return (np.ldexp(signed.astype(np.float64), -form.fraction) * form.scale).astype(form.dtype)
    except FloatingPointError:
        raise EncodingError(
            f"the result is beyond what {form.dtype} holds; share the values in a wider type, as float64"
        ) from None
