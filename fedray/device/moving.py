# SPDX-License-Identifier: Apache-2.0
"""to, reveal and wait: how values change places, and how the driver waits for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fedray.device.interfaces import Device, Handle, Parted, live
from fedray.device.pyu import PYUObject
from fedray.errors import PlanError
from fedray.party.table import replace
from fedray.runtime.session import current
from fedray.types import Key, Ref


def to(device: Device[Any], data: Any) -> Any:
    """Moves data to a device and returns a handle on it there.

    Args:
        device: Where to.
        data: A handle, a value of the driver's, or lists, tuples and dicts of both. To an SPU go handles only, each in
            its place among the lists, tuples and dicts.

    Raises:
        PlanError: `device` is neither a party nor an SPU, or a value cannot be pickled or shared.
        NotInitialized: A handle's session has ended.

    Example:
        >>> there = sf.to(bob, alice(max)(1, 2))
        >>> there.device
        PYU(name='bob')
        >>> sf.reveal(sf.to(alice, {"x": there, "y": 5}))
        {'x': 2, 'y': 5}
    """
    if not isinstance(device, Device):
        raise PlanError(f"to: expected a PYU or an SPU first, then the data, found {type(device).__name__}")
    return device.place(data)


def reveal(data: Any) -> Any:
    """Returns the values that handles stand for; each leaves its party for the driver, as egress kind `raw`.

    A value that an SPU holds leaves every compute party as its share, and all of them have to let it pass.

    Args:
        data: A handle, or lists, tuples and dicts that hold handles; everything else in them is returned as it is. A
            `FedNdarray` becomes `{party: its rows}`: all of them leave their parties.

    Raises:
        EgressDenied: A party's policy refuses.
        PartyError: The code that should have made a value raised.
        PartyLost: A party has ended.
        ProtocolError: Shares do not belong together.
        NotInitialized: A handle's session has ended.

    Example:
        >>> sf.reveal({"a": alice(max)(1, 2), "b": [bob(min)(1, 2), "kept"]})
        {'a': 2, 'b': [1, 'kept']}
    """
    data = _as_handles(data)
    # By key: a value that is named twice leaves its party once. All are asked before the first answer is awaited.
    held = {one.key: one for one in _handles(data)}
    asked: dict[Key, list[Ref]] = {key: one.ask_value() for key, one in held.items()}
    if not asked:
        return data
    answers = iter(current().get([ref for refs in asked.values() for ref in refs]))
    values = {key: held[key].opened([next(answers) for _ in refs]) for key, refs in asked.items()}
    return replace(data, Handle, lambda one: values[one.key])


def wait(data: Any, timeout: float | None = None) -> None:
    """Waits until the values of all handles have been made; moves none of them.

    Args:
        data: A handle or a `FedNdarray`, or lists, tuples and dicts that hold such.
        timeout: Seconds to wait at most.

    Raises:
        PartyError: The code that should have made a value raised.
        PartyLost: A party has ended.
        PartyTimeout: `timeout` seconds passed.
        NotInitialized: A handle's session has ended.

    Example:
        >>> sf.wait([alice(max)(1, 2), bob(max)(3, 4)], timeout=60)
    """
    by_kind: dict[type[Handle], list[Handle]] = {}
    for held in _handles(_as_handles(data)):
        by_kind.setdefault(type(held), []).append(held)
    refs = [ref for kind, handles in by_kind.items() for ref in kind.ask_settled(handles)]
    if refs:
        current().get(refs, timeout)


def describe(held: Iterable[PYUObject]) -> list[tuple[tuple[int, ...] | int | None, str]]:
    """Returns what parties say of their values, as egress kind `shape`.

    That is (shape, dtype) for an array, and (length or None, name of its type) for any other value.

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


def _as_handles(data: Any) -> Any:
    """Returns the same with arrays of several parties as their parts, by party."""
    return replace(data, Parted, lambda array: dict(array.partitions))


def _handles(data: Any) -> list[Handle]:
    found: list[Handle] = []
    replace(data, Handle, found.append)
    return found
