# SPDX-License-Identifier: Apache-2.0
"""What a party's methods return: something to make and keep, or something to let out. Plain records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedray.errors import PlanError, type_of
from fedray.party.door.egress import Kind
from fedray.party.door.journal import LedgerPart
from fedray.types import Key, PartyName, Value


@dataclass(frozen=True, slots=True)
class Making:
    """Something to make and to keep under keys of the object table."""

    outs: Sequence[Key]
    make: Callable[[], Value]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A value on its way to the door."""

    value: Value
    to: PartyName
    kind: Kind


@dataclass(frozen=True, slots=True)
class LedgerReading:
    """A part of the ledger on its way to the door: what would leave as of now, and how to read it for good.

    Attributes:
        lines: The entries that are there, which the entry about this reading measures.
        read: Makes what leaves, so that it holds that entry.
    """

    lines: bytes
    read: Callable[[], LedgerPart]


def spread(value: Value, count: int) -> tuple[Value, ...]:
    """Returns the several results of a function that was called for `count` of them.

    Raises:
        PlanError: It has not returned as many.
    """
    if count == 0:
        return ()
    if not isinstance(value, tuple | list) or len(value) != count:
        found = f"{len(value)} values" if isinstance(value, tuple | list) else f"one {type_of(value)}"
        raise PlanError(f"num_returns={count}, but the function returned {found}")
    return tuple(value)
