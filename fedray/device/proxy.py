# SPDX-License-Identifier: Apache-2.0
"""proxy: objects with state that live in a party, and the driver's names for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fedray.device.interfaces import live
from fedray.device.pyu import PYU, PYUObject, check_count, handle, issue, name_of, parcel
from fedray.errors import PlanError
from fedray.runtime.session import current


class Proxy:
    """A class whose instances live in parties; see `proxy`.

    Args:
        cls: The class.

    Raises:
        PlanError: `cls` is not a class.
    """

    def __init__(self, cls: type[Any]) -> None:
        if not inspect.isclass(cls):
            raise PlanError(f"proxy: expected a class, found {type(cls).__name__}")
        self.cls = cls

    def __call__(self, *args: Any, device: PYU, **kwargs: Any) -> ProxyObject:
        """Builds an instance in a party and returns its name at once.

        Args:
            *args: Arguments of the class; handles of the party may be among them.
            device: The party.
            **kwargs: Keyword arguments of the class.

        Raises:
            DeviceMismatch: An argument is held by another party.
            PlanError: `device` is not a party.
        """
        if not isinstance(device, PYU):
            raise PlanError(f"{self.cls.__name__}: expected device=PYU(...), found {device!r}")
        session, name = current(), name_of(self.cls)
        # Before anything is pickled: an unknown party is the mistake to tell of, not what may be wrong with the
        # arguments.
        session.check(device.name)
        payload = parcel(device, (self.cls, args, kwargs), name)
        instance = handle(session, device)
        session.call(device.name, "create", instance.key, payload, label=session.statement(name))
        return ProxyObject(self.cls, instance)

    def __repr__(self) -> str:
        return f"proxy({self.cls.__qualname__})"


class ProxyObject:
    """An object that lives in a party. Calling one of its methods yields a handle on the result at once.

    Attributes:
        instance: The handle on the object itself.
    """

    def __init__(self, cls: type[Any], instance: PYUObject) -> None:
        self._cls = cls
        self.instance = instance

    @property
    def device(self) -> PYU:
        """The party it lives in."""
        return self.instance.device

    def __getattr__(self, name: str) -> ProxyMethod:
        if name.startswith("_"):  # asked for by copy and the like, before there is a class to look into
            raise AttributeError(f"an object in a party has no public method {name!r}")
        # Looked up in the class, here at the driver: a misspelt name fails at once and not in the party, one call
        # later.
        if not callable(getattr(self._cls, name, None)):
            raise AttributeError(f"{self._cls.__name__} at {self.device.name} has no public method {name!r}")
        return ProxyMethod(self.instance, f"{self._cls.__name__}.{name}", name)

    def __repr__(self) -> str:
        return f"{self._cls.__qualname__} at {self.instance!r}"


class ProxyMethod:
    """A method of an object that lives in a party.

    Args:
        instance: The handle on the object.
        label: What a call of it is named in the ledger and in errors, e.g. `"Counter.increment"`.
        name: The method.
        num_returns: How many handles a call returns.
    """

    def __init__(self, instance: PYUObject, label: str, name: str, num_returns: int = 1) -> None:
        self._instance = instance
        self._label = label
        self._name = name
        self._num_returns = num_returns

    def options(self, *, num_returns: int) -> ProxyMethod:
        """Returns the same method, but its calls return `num_returns` handles.

        Raises:
            PlanError: The number is not positive.
        """
        check_count(num_returns)
        return ProxyMethod(self._instance, self._label, self._name, num_returns)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the method in the party; returns one handle, or a tuple of `num_returns`.

        Args:
            *args: The method's arguments; handles of the party may be among them.
            **kwargs: Its keyword arguments, likewise.

        Raises:
            DeviceMismatch: An argument is held by another party.
            NotInitialized: The object's session has ended.
        """
        live(self._instance)
        device = self._instance.device
        payload = parcel(device, (args, kwargs), self._label)
        return issue(device, self._num_returns, self._label, "invoke", self._instance.key, self._name, payload)


def proxy(cls: type[Any]) -> Callable[..., ProxyObject]:
    """Returns what stands for a class at the driver: calling it builds the object inside a party. Also a decorator.

    Raises:
        PlanError: `cls` is not a class.

    Example:
        >>> class Counter:
        ...     def __init__(self, start):
        ...         self.count = start
        ...
        ...     def increment(self, by=1):
        ...         self.count += by
        ...         return self.count
        >>> counter = sf.proxy(Counter)(10, device=alice)
        >>> sf.reveal([counter.increment(), counter.increment(by=5)])
        [11, 16]
    """
    return Proxy(cls)
