# SPDX-License-Identifier: Apache-2.0
"""to, reveal and wait: how values change places, and how the driver waits for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fedray.device.pyu import PYU, PYUObject, live
from fedray.device.spu import SPU, SPUObject
from fedray.errors import PlanError
from fedray.party.table import replace
from fedray.runtime.session import Session, current
from fedray.types import Ref


def to(device: PYU, data: Any) -> PYUObject:
    """Returns a handle on `data` at a party.

    Args:
        device: Where to.
        data: A handle, a value of the driver's, or lists, tuples and dicts of both.

    Raises:
        PlanError: `device` is not a party, or a value cannot be pickled.
        NotInitialized: A handle's session has ended.
    """
    if isinstance(device, SPU):
        device.refuse()
    if not isinstance(device, PYU):
        raise PlanError(f"to: expected a PYU first, then the data, found {type(device).__name__}")
    if isinstance(data, PYUObject):
        return data.to(device)
    moved = replace(_checked(data), PYUObject, lambda held: held.to(device))
    placed: PYUObject = device(_same)(moved)
    return placed


def reveal(data: Any) -> Any:
    """Returns the values of handles to the driver, as egress kind `raw`.

    Args:
        data: A handle, or lists, tuples and dicts that hold handles; everything else in them is returned as it is.

    Raises:
        EgressDenied: A party's policy refuses.
        PartyError: The code that should have made a value raised.
        PartyLost: A party has ended.
        NotInitialized: A handle's session has ended.
    """
    held = _handles(_checked(data))
    refs: dict[str, Ref] = {}
    for h in held:
        if h.key not in refs:
            session = live(h)
            refs[h.key] = session.call(h.device.name, "export", h.key, "driver", label=session.statement("reveal"))
    values = dict(zip(refs, current().get(list(refs.values())), strict=True)) if refs else {}
    return replace(data, PYUObject, lambda h: values[h.key])


def wait(data: Any, timeout: float | None = None) -> None:
    """Returns when the values of all handles have been made.

    Args:
        data: A handle, or lists, tuples and dicts that hold handles.
        timeout: Seconds to wait at most.

    Raises:
        PartyError: The code that should have made a value raised.
        PartyLost: A party has ended.
        PartyTimeout: `timeout` seconds passed.
        NotInitialized: A handle's session has ended.
    """
    keys: dict[tuple[Session, str], list[str]] = {}
    for h in _handles(_checked(data)):
        keys.setdefault((live(h), h.device.name), []).append(h.key)
    if not keys:
        return
    session = current()
    refs = [s.call(party, "settle", wanted, label=s.statement("wait")) for (s, party), wanted in keys.items()]
    session.get(refs, timeout)


def describe(held: Iterable[PYUObject]) -> list[tuple[tuple[int, ...] | int | None, str]]:
    """Returns (shape, dtype) of arrays, (length or None, name of the type) of other values, as egress kind `shape`.

    Raises:
        PartyError: The code that should have made a value raised.
        PartyLost: A party has ended.
        NotInitialized: A handle's session has ended.
    """
    refs: list[Ref] = []
    for h in held:
        session = live(h)
        refs.append(session.call(h.device.name, "describe", h.key, label=session.statement("describe")))
    return current().get(refs) if refs else []


def _handles(data: Any) -> list[PYUObject]:
    found: list[PYUObject] = []
    replace(data, PYUObject, found.append)
    return found


def _checked(data: Any) -> Any:
    return replace(data, SPUObject, lambda held: held.device.refuse())


def _same(value: Any) -> Any:
    return value
