# SPDX-License-Identifier: Apache-2.0
"""to, reveal and wait: how values change places, and how the driver waits for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fedray.device.pyu import PYU, PYUObject, live
from fedray.device.spu.device import SPU
from fedray.device.spu.handle import SPUObject, ask_settled, ask_shares, opened
from fedray.errors import PlanError
from fedray.party.table import replace
from fedray.runtime.session import Session, current
from fedray.types import Ref


def to(device: PYU | SPU, data: Any) -> Any:
    """Returns a handle on `data` at a device.

    Args:
        device: Where to.
        data: A handle, a value of the driver's, or lists, tuples and dicts of both. To an SPU go handles only, each in
            its place among the lists, tuples and dicts.

    Raises:
        PlanError: `device` is neither a party nor an SPU, or a value cannot be pickled or shared.
        NotInitialized: A handle's session has ended.
    """
    if isinstance(device, SPU):
        return _shared(device, data)
    if not isinstance(device, PYU):
        raise PlanError(f"to: expected a PYU or an SPU first, then the data, found {type(device).__name__}")
    if isinstance(data, PYUObject | SPUObject):
        return data.to(device)
    moved = replace(replace(data, SPUObject, lambda held: held.to(device)), PYUObject, lambda held: held.to(device))
    return device(_same)(moved)


def reveal(data: Any) -> Any:
    """Returns the values of handles to the driver, as egress kind `raw`.

    A value that an SPU holds leaves every compute party as its share, and all of them have to let it pass.

    Args:
        data: A handle, or lists, tuples and dicts that hold handles; everything else in them is returned as it is.

    Raises:
        EgressDenied: A party's policy refuses.
        PartyError: The code that should have made a value raised.
        PartyLost: A party has ended.
        ProtocolError: Shares do not belong together.
        NotInitialized: A handle's session has ended.
    """
    held, shared = _handles(data, PYUObject), _handles(data, SPUObject)
    asked: dict[str, list[Ref]] = {}
    for h in held:
        if h.key not in asked:
            session = live(h)
            label = session.statement("reveal")
            asked[h.key] = [session.call(h.device.name, "export", h.key, "driver", label=label)]
    for s in shared:
        if s.key not in asked:
            asked[s.key] = ask_shares(s)
    if not asked:
        return data
    answers = iter(current().get([ref for refs in asked.values() for ref in refs]))
    found = {key: [next(answers) for _ in refs] for key, refs in asked.items()}
    values = {h.key: found[h.key][0] for h in held} | {s.key: opened(s, found[s.key]) for s in shared}
    return replace(replace(data, PYUObject, lambda h: values[h.key]), SPUObject, lambda s: values[s.key])


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
    for h in _handles(data, PYUObject):
        keys.setdefault((live(h), h.device.name), []).append(h.key)
    refs = [s.call(party, "settle", wanted, label=s.statement("wait")) for (s, party), wanted in keys.items()]
    refs += [ref for held in _handles(data, SPUObject) for ref in ask_settled(held)]
    if refs:
        current().get(refs, timeout)


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


def _shared(spu: SPU, data: Any) -> Any:
    if not _handles(data, PYUObject):
        raise PlanError(
            f"to: an SPU takes values that parties hold, found {type(data).__name__}; the driver's own value goes to a "
            "party first: sf.to(alice, x).to(spu)"
        )
    return replace(data, PYUObject, spu.receive)


def _handles(data: Any, kind: type[Any]) -> list[Any]:
    found: list[Any] = []
    replace(data, kind, found.append)
    return found


def _same(value: Any) -> Any:
    return value
