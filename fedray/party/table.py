# SPDX-License-Identifier: Apache-2.0
"""The objects a party holds, and the slots by which calls refer to them. Knows no policy and no transport."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fedray.errors import PlanError
from fedray.party.failures import Failed
from fedray.types import Failure, Key, PartyName, Value

ARRIVAL_SECONDS = 20.0
"""How long a message waits for the object it is addressed to: the sender may be quicker than the driver."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands, inside the arguments of a call, for an object that the party holds.

    Attributes:
        key: The object's name in the table.
    """

    key: Key


class ObjectTable:
    """What a party holds: key -> value, or the failure of the call that should have made it."""

    def __init__(self, party: PartyName) -> None:
        self._party = party
        self._objects: dict[Key, Value | Failure] = {}
        # Commands write while messages wait for what they need, on threads of their own.
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, key: Key, value: Value | Failure) -> None:
        """Stores a value, or a failure in its place."""
        with self._changed:
            self._objects[key] = value
            self._changed.notify_all()

    def get(self, key: Key) -> Value:
        """Returns a value.

        Raises:
            Failed: The call that should have made it failed.
            PlanError: There is no such object.
        """
        try:
            found = self._objects[key]  # without the lock: one look-up in a dict is atomic
        except KeyError:
            raise PlanError(
                f"party {self._party!r} holds no object {key!r}; it was dropped, or belongs to another session"
            ) from None
        # The failure of the call that should have made it, so whoever uses the value learns of the first cause.
        if isinstance(found, Failure):
            raise Failed(found)
        return found

    def await_get(self, key: Key, seconds: float = ARRIVAL_SECONDS) -> Value:
        """Returns a value that may still be on its way.

        Raises:
            Failed: The call that should have made it failed.
            PlanError: It did not appear in time.
        """
        self.arrives(key, seconds)
        return self.get(key)

    def arrives(self, key: Key, seconds: float) -> bool:
        """Waits at most `seconds` for an object or a failure under a key; returns whether it is there."""
        with self._changed:
            return self._changed.wait_for(lambda: key in self._objects, seconds)

    def failed(self, key: Key) -> bool:
        """Returns whether there is a failure under a key."""
        return isinstance(self._objects.get(key), Failure)

    def drop(self, keys: Iterable[Key]) -> None:
        """Forgets objects; unknown keys are ignored."""
        with self._changed:
            for key in keys:
                self._objects.pop(key, None)

    def fill(self, arguments: Any) -> Any:
        """Returns arguments with every slot replaced by the object it stands for.

        Raises:
            Failed: One of the objects is a failure.
            PlanError: There is no such object.
        """
        return replace(arguments, Slot, lambda slot: self.get(slot.key))


def replace(value: Any, kind: type[Any], change: Callable[[Any], Any]) -> Any:
    """Returns nested lists, tuples and dicts with every instance of `kind` changed; other containers stay as they are.

    Args:
        value: Anything.
        kind: The type whose instances are changed.
        change: Instance -> what takes its place.
    """
    if isinstance(value, kind):
        return change(value)
    # Exactly these types: a subclass has a constructor of its own, and to build one anew might change or lose
    # something.
    if type(value) is list:
        return [replace(item, kind, change) for item in value]
    if type(value) is dict:
        return {key: replace(item, kind, change) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [replace(item, kind, change) for item in value]
        if type(value) is tuple:
            return tuple(items)
        # A named tuple takes its items one by one.
        if hasattr(value, "_fields"):
            return type(value)(*items)
    return value
