# SPDX-License-Identifier: Apache-2.0
"""PYU, a party as the driver's notation sees it, and PYUObject, the name of a value that a party holds.

The driver holds names, not data: a `PYUObject` knows where its value is and under which key, and nothing of the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, final

from fedray.device.interfaces import Device, Handle, live
from fedray.errors import DeviceMismatch, PlanError
from fedray.party.parcel import Parcel, pack
from fedray.party.table import Slot, replace
from fedray.runtime.session import Session, current, running
from fedray.types import Key, PartyName, Ref

H = TypeVar("H", bound=Handle)


@dataclass(frozen=True, slots=True)
class PYU(Device["PYUObject"]):
    """A party: `alice = PYU("alice")`, and `alice(function)(x, y)` runs a function there.

    Attributes:
        name: The party's name; two PYUs of one name are the same device.

    Raises:
        PlanError: The running session has no party of this name.

    Example:
        >>> alice = sf.PYU("alice")
        >>> total = alice(sum)([1, 2, 3])
        >>> sf.reveal(total)
        6
    """

    name: PartyName

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise PlanError(f"PYU: expected the name of a party, found {self.name!r}")
        # Without a session any name will do: a notebook may name its parties before it calls `init`.
        session = running()
        if session is not None:
            session.check(self.name)

    def __str__(self) -> str:
        return self.name

    def __call__(self, function: Callable[..., Any], num_returns: int = 1) -> Callable[..., Any]:
        """Returns a function that runs in this party and yields a handle on its result at once.

        Its arguments may be handles of this party, also inside lists, tuples and dicts: the function gets the values
        themselves, no copies. Other arguments are sent along.

        Args:
            function: What to run there.
            num_returns: How many handles to return; with more than one, the function returns a tuple of as many values.

        Raises:
            PlanError: `function` cannot be called, or `num_returns` is not positive.
        """
        if not callable(function):
            raise PlanError(f"{self.name}(...): expected a function, found {type(function).__name__}")
        check_count(num_returns)
        name = name_of(function)

        def call_there(*args: Any, **kwargs: Any) -> Any:
            payload = parcel(self, (function, args, kwargs), name)
            return issue(self, num_returns, name, "run", payload)

        return call_there

    def place(self, data: Any) -> PYUObject:
        """Returns a handle on data in this party.

        Args:
            data: A handle, a value of the driver's, or lists, tuples and dicts of both.

        Raises:
            NotInitialized: A handle's session has ended.
            PlanError: A value cannot be pickled.
        """
        if isinstance(data, Handle):
            placed: PYUObject = data.to(self)
        else:
            # A call that returns its argument: it puts the values in the places of their handles and stores the whole.
            placed = self(_same)(replace(data, Handle, lambda held: held.to(self)))
        return placed

    def receive(self, held: PYUObject) -> PYUObject:
        """Copies a value of another party to this one, as egress kind `raw`, and returns a handle at once.

        Raises:
            NotInitialized: The handle's session has ended.
            PlanError: This party is not one of the session.
        """
        session = live(held)
        session.check(self.name)
        # It is there already. A copy would leave the party for nothing, and be in its ledger.
        if held.device == self:
            return held
        label = session.statement(f"to {self.name}")
        # The receiver gets the reference, not the value: it fetches that from the owner itself, and the driver never
        # sees it.
        ref = session.call(held.device.name, "export", held.key, self.name, label=label)
        moved = handle(session, self)
        session.call(self.name, "adopt", moved.key, [ref], label=label)
        return moved


@final
class PYUObject(Handle):
    """The name of a value that a party holds. Made by calling a party; dropping the last handle releases the value.

    Attributes:
        device: Where the value is.
        key: Its name in the party's object table.
        session: The session it belongs to.

    Raises:
        PlanError: Always: a handle is made by calling a party.

    Example:
        >>> x = alice(max)(3, 5)
        >>> x.device
        PYU(name='alice')
        >>> sf.reveal(bob(pow)(x.to(bob), 2))
        25
    """

    __slots__ = ("__weakref__", "device", "key", "session")

    device: PYU
    key: Key
    session: Session

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 (whatever is passed, it is refused)
        raise PlanError("PYUObject: a handle is made by calling a party, e.g. alice(np.load)('x.npy'), not by hand")

    def to(self, device: Device[H]) -> H:
        """Moves a copy of the value to another device and returns a handle on it at once.

        To a party it goes as egress kind `raw`; to an SPU in shares, which their owner makes, as kind `share`.

        Raises:
            NotInitialized: The handle's session has ended.
            PlanError: `device` is not a party of the session, nor an SPU.
        """
        if not isinstance(device, Device):
            raise PlanError(f"to: expected a PYU or an SPU, found {device!r}")
        return device.receive(self)

    def ask_value(self) -> list[Ref]:
        """Asks the party for the value, as egress kind `raw`; see `fedray.reveal`.

        Raises:
            NotInitialized: The handle's session has ended.
        """
        session = live(self)
        return [session.call(self.device.name, "export", self.key, "driver", label=session.statement("reveal"))]

    def opened(self, answers: Sequence[Any]) -> Any:
        """Returns the value, which is the one answer to `ask_value`."""
        (value,) = answers
        return value

    @classmethod
    def ask_settled(cls, handles: Sequence[PYUObject]) -> list[Ref]:
        """Asks each party once to say when its values among these are there.

        Raises:
            NotInitialized: A handle's session has ended.
        """
        keys: dict[tuple[Session, PartyName], list[Key]] = {}
        for held in handles:
            keys.setdefault((live(held), held.device.name), []).append(held.key)
        return [s.call(party, "settle", wanted, label=s.statement("wait")) for (s, party), wanted in keys.items()]

    def slot(self) -> Slot:
        """Returns what stands for the value in the arguments of a call to its party."""
        live(self)
        return Slot(self.key)

    def __repr__(self) -> str:
        ended = "" if self.session.open else ", session ended"
        return f"PYUObject({self.device.name}, {self.key}{ended})"

    # A handle is a name. To copy it is to name the same value; a second object would release it a second time.
    def __copy__(self) -> PYUObject:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PYUObject:
        return self

    # In a party a handle would be an empty name: its session and its transport stay here.
    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise PlanError(
            f"{self!r} cannot be pickled, nor used inside a function that runs in a party; "
            "pass it as an argument, if need be in a list, tuple or dict"
        )

    def __del__(self) -> None:
        # None where the constructor refused. The module may be half gone at the interpreter's end, so nothing is
        # imported.
        session = getattr(self, "session", None)
        if session is not None:
            session.release(self.device.name, self.key)


def handle(session: Session, device: PYU) -> PYUObject:
    """Returns a handle under a new key."""
    # Past the constructor, which refuses everybody else.
    made = object.__new__(PYUObject)
    made.device, made.key, made.session = device, session.new_key(), session
    return made


def issue(device: PYU, count: int, name: str, method: str, *args: Any) -> Any:
    """Calls a party for `count` results that it keeps; returns one handle, or a tuple of them, at once.

    Args:
        device: The party.
        count: How many results.
        name: What is called, for the ledger and errors.
        method: One of the commands of `fedray.party.party.Party`.
        *args: Its arguments after the keys of the results.
    """
    session = current()
    session.check(device.name)
    made = tuple(handle(session, device) for _ in range(count))
    session.call(device.name, method, tuple(h.key for h in made), *args, label=session.statement(name))
    return made[0] if count == 1 else made


def parcel(device: PYU, arguments: Any, name: str) -> Parcel:
    """Pickles the arguments of a call, with slots in place of handles.

    Args:
        device: The party that is called.
        arguments: Any nesting of lists, tuples and dicts, with handles and plain values in it.
        name: What is called, for errors.

    Raises:
        DeviceMismatch: A handle's value is held by another party.
        NotInitialized: A handle's session has ended.
        PlanError: Something cannot be pickled.
    """

    def slot(held: PYUObject) -> Slot:
        if held.device != device:
            raise DeviceMismatch(
                f"{name} runs at {device.name}, but an argument is held by {held.device.name}; "
                f"move it with x.to({device.name})"
            )
        return held.slot()

    return pack(replace(arguments, PYUObject, slot))


def name_of(function: Callable[..., Any]) -> str:
    """Returns what a function is called in the ledger and in errors."""
    # A lambda in a function is called "outer.<locals>.<lambda>"; where it was written is of no use in a ledger.
    return str(getattr(function, "__qualname__", type(function).__name__)).rpartition("<locals>.")[2]


def check_count(num_returns: int) -> None:
    """Checks that a number of results is a positive integer.

    Raises:
        PlanError: It is not a positive integer.
    """
    # In Python True is the integer 1, but as a number of results it is a mistake.
    if isinstance(num_returns, bool) or not isinstance(num_returns, int) or num_returns < 1:
        raise PlanError(f"num_returns: expected a positive integer, found {num_returns!r}")


def _same(value: Any) -> Any:
    return value
