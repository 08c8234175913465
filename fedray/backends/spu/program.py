# SPDX-License-Identifier: Apache-2.0
"""What a program on shares is, and what its runtimes agree on. Plain Python: imports neither `spu` nor JAX."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError, ProtocolError
from fedray.protocol.spu.form import Combine

LINK_DEFAULTS: Mapping[str, int] = {
    "connect_retry_times": 300,
    "connect_retry_interval_ms": 100,
    "recv_timeout_ms": 600_000,
    "http_timeout_ms": 600_000,
}
"""Compute parties reach a program at different times: each waits for the slowest."""

MAX_SHIFT = 30
"""Bits by which one multiplication inside a program may take a value back to the usual fraction."""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What all compute parties' runtimes agree on.

    Attributes:
        addresses: Host and port of each compute party, in their order.
        options: Options of the library's `RuntimeConfig`, besides protocol, field and fraction bits.
        link: Options of its links, e.g. `{"recv_timeout_ms": 60000}`.
        tls: Per compute party, paths of its `certificate` and `private_key` and of the `authority` that signed the
            others'; empty for links without TLS.
    """

    addresses: tuple[tuple[str, str], ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    link: Mapping[str, int] = field(default_factory=dict)
    tls: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """A function to run on shares.

    Attributes:
        function: A JAX function.
        name: What it is called in messages.
        results: How many values it returns; one is returned bare, several as a tuple or list.
        static: Names of arguments that are part of the program, such as an axis.
    """

    function: Callable[..., Any]
    name: str
    results: int = 1
    static: tuple[str, ...] = ()


def bind_static(
    program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]:
    """Returns the function with its static arguments filled in, and the other arguments.

    Args:
        program: The function, and which of its arguments are static.
        args: Positional arguments of the call.
        kwargs: Those by name.

    Raises:
        DataError: The arguments do not fit its signature.
    """
    if not program.static:
        return program.function, args, kwargs
    try:
        given = inspect.signature(program.function).bind(*args, **kwargs).arguments
        fixed = {name: given.pop(name) for name in program.static}
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{program.name}: static arguments {program.static} do not fit its signature: {error}"
        ) from None
    return functools.partial(program.function, **fixed), (), given


def public(program: Program, leaf: Any) -> NDArray[Any]:
    """Returns a public argument as an array.

    Raises:
        DataError: It is none.
    """
    array = np.asarray(leaf)
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{program.name}: expected arrays and numbers, found {type(leaf).__name__}; name arguments that are part "
            "of the program in static_argnames"
        )
    return array


def shifted(value: Any, bits: int) -> Any:
    """Returns a value whose elements have `bits` too many after the point, as the number it stands for."""
    while bits > 0:
        step = min(bits, MAX_SHIFT)
        value, bits = value * 2.0**-step, bits - step
    return value


def combination(storage: str) -> Combine:
    """Returns how the shares become the value, of a result that the library stores in its own way.

    Raises:
        ProtocolError: That is not known here.
    """
    if ".AShr<" in storage:
        return "add"
    if ".BShr<" in storage:
        return "xor"
    if storage.startswith("Pub2k<"):
        return "public"
    raise ProtocolError(f"a result is stored as {storage}, which this version cannot keep")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error that says something; the library adds its stack to each."""
    lines = [line for line in str(error).splitlines() if line.strip() not in ("", "what:")]
    return (lines or [type(error).__name__])[0].strip()[:300]
