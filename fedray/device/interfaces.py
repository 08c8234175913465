# SPDX-License-Identifier: Apache-2.0
"""Device, Handle and Parted: what devices and the names of their values offer each other.

`moving` works with these alone, so a new kind of device needs no change there. They are classes to derive from and
not protocols, since a user's own object with a method of the same name must not pass for a device. They hold no code,
so nothing is inherited but the promise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Self, TypeVar

from fedray.errors import NotInitialized
from fedray.runtime.session import Session
from fedray.types import Key, Ref

H_co = TypeVar("H_co", bound="Handle", covariant=True)


class Handle(ABC):
    """The name of a value that one or several parties hold.

    Attributes:
        key: The value's name in the parties' object tables.
        session: The session it belongs to.
    """

    __slots__ = ()

    key: Key
    session: Session

    @abstractmethod
    def to(self, device: Any) -> Any:
        """Moves a copy of the value to another device and returns a handle on it at once."""

    @abstractmethod
    def ask_value(self) -> list[Ref]:
        """Asks whoever holds the value for it, as egress kind `raw`.

        Raises:
            NotInitialized: The handle's session has ended.
        """

    @abstractmethod
    def opened(self, answers: Sequence[Any]) -> Any:
        """Returns the value, from what the calls of `ask_value` answered, in their order."""

    @classmethod
    @abstractmethod
    def ask_settled(cls, handles: Sequence[Self]) -> list[Ref]:
        """Asks the holders to say when all these values are there. Nothing leaves a party.

        It takes many handles at once, so that a party with a thousand of them is asked once.

        Raises:
            NotInitialized: A handle's session has ended.
        """


class Parted(ABC):
    """An array of which several parties hold a part each.

    Attributes:
        partitions: Party -> the handle on its part.
    """

    partitions: Any


class Device(ABC, Generic[H_co]):
    """Where values can be: one party, or several that hold a value together."""

    __slots__ = ()

    @abstractmethod
    def place(self, data: Any) -> Any:
        """Returns a handle on data at this device; see `fedray.to` for what the data may be."""

    @abstractmethod
    def receive(self, held: Any) -> H_co:
        """Returns a handle at this device on a copy of a party's value."""


def live(held: Handle) -> Session:
    """Returns the session of a handle.

    Raises:
        NotInitialized: It has ended.
    """
    if not held.session.open:
        raise NotInitialized(f"{held!r} belongs to a session that has ended; make it again after sf.init(...)")
    return held.session
