# SPDX-License-Identifier: Apache-2.0
"""The session: which parties there are, how calls reach them, and the one that is current in this process.

Imports no Ray: the transport that does is imported when a session asks for it.
"""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Literal

from fedray.errors import FedRayError, NotInitialized, PlanError
from fedray.party.egress import POLICIES
from fedray.party.parcel import pack
from fedray.runtime.inline import InlineTransport
from fedray.types import Key, PartyConfig, PartyName, Ref, Transport

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_NAME_BYTES = 64


class Session:
    """One run of `init` to `shutdown`.

    Attributes:
        id: Unlike that of any other session.
        parties: Names, in the order given.
        transport: How calls travel.
        seed: The run's seed.
        roster: Public identity keys by party, in roster order (the UTF-8 bytes of the names).
        configs: What each party was told.
    """

    def __init__(self, configs: Mapping[PartyName, PartyConfig], transport: Transport) -> None:
        self.id = secrets.token_hex(8)
        self.configs = dict(configs)
        self.parties = tuple(configs)
        self.transport = transport
        self.seed = next(iter(configs.values())).seed
        self.roster: dict[PartyName, bytes] = {}
        self.open = True
        self._keys = itertools.count(1)
        self._statements = itertools.count(1)
        self._dropped: SimpleQueue[tuple[PartyName, Key] | None] = SimpleQueue()
        self._releaser = threading.Thread(target=self._release_dropped, name="fedray-release", daemon=True)

    def start(self) -> None:
        """Starts the parties and lets them know each other's identity keys.

        Raises:
            PlanError: The cluster cannot be reached or lacks what a party asks for.
        """
        self.transport.start(self.configs)
        ordered = sorted(self.parties, key=lambda name: name.encode())
        label = self.statement("init")
        keys = self.get([self.call(party, "identity_key", label=label) for party in ordered])
        self.roster = dict(zip(ordered, keys, strict=True))
        self.get([self.call(party, "install_roster", self.roster, label=label) for party in ordered])
        self._releaser.start()

    def statement(self, name: str) -> str:
        """Returns the label of a new statement of the driver, e.g. `"17:train_segment"`."""
        return f"{next(self._statements)}:{name}"

    def new_key(self) -> Key:
        """Returns a key that no object has had."""
        return f"{self.id[:4]}-{next(self._keys)}"

    def call(self, party: PartyName, method: str, *args: Any, label: str | None = None) -> Ref:
        """Calls a method of `Party` and returns at once; the statement's label goes in front of the arguments.

        Raises:
            NotInitialized: The session has ended.
            PlanError: There is no such party.
        """
        self.check(party)
        return self.transport.call(party, method, label or self.statement(method), *args)

    def check(self, party: PartyName) -> None:
        """Returns if the session runs and has this party.

        Raises:
            NotInitialized: The session has ended.
            PlanError: There is no such party.
        """
        if not self.open:
            raise NotInitialized("this session has ended; call sf.init(...) and make new handles")
        if party not in self.configs:
            raise PlanError(f"unknown party {party!r}; this session has {', '.join(map(repr, self.parties))}")

    def get(self, refs: Sequence[Ref], timeout: float | None = None) -> list[Any]:
        """Returns the results in order; see `fedray.types.Transport.get`."""
        return self.transport.get(refs, timeout)

    def wait(self, refs: Sequence[Ref], timeout: float | None = None, first: bool = False) -> list[Ref]:
        """Returns the calls that are done or failed; see `fedray.types.Transport.wait`."""
        return self.transport.wait(refs, timeout, first)

    def serve(self, party: PartyName, cls: type[Any], *args: Any, label: str | None = None) -> Key:
        """Builds a service in a party, as `cls(context, *args)`, and returns its key at once.

        If that fails, the failure is what the first `ask` of it gets.
        """
        key = self.new_key()
        self.call(party, "serve", key, pack((cls, args)), label=label or self.statement(f"serve {cls.__name__}"))
        return key

    def ask(self, party: PartyName, key: Key, method: str, *args: Any, label: str | None = None) -> Ref:
        """Calls a method of a service, in the command lane; arguments may hold `Slot`s."""
        return self.call(party, "ask", key, method, pack(args), label=label or self.statement(method))

    def tell(self, party: PartyName, key: Key, method: str, *args: Any, label: str | None = None) -> Ref:
        """Calls a method of a service while a command runs, in the message lane."""
        return self.call(party, "tell", key, method, pack(args), label=label or self.statement(method))

    def watch(self, party: PartyName, key: Key, *args: Any, label: str | None = None) -> Ref:
        """Waits for news from a service."""
        return self.call(party, "watch", key, pack(args), label=label or self.statement("watch"))

    def release(self, party: PartyName, key: Key) -> None:
        """Lets a party forget an object, soon. Never blocks and never raises: finalizers call it, at any moment."""
        self._dropped.put((party, key))

    def stop(self) -> None:
        """Ends every party. Harmless when repeated."""
        if self.open:
            self.open = False
            self._dropped.put(None)
            self.transport.stop()

    def _release_dropped(self) -> None:
        while (first := self._dropped.get()) is not None:
            dropped: dict[PartyName, list[Key]] = {first[0]: [first[1]]}
            while not self._dropped.empty():
                item = self._dropped.get()
                if item is None:
                    return
                dropped.setdefault(item[0], []).append(item[1])
            for party, keys in dropped.items():
                if self.open:
                    try:
                        self.call(party, "release", keys, label="release")
                    except FedRayError:
                        continue  # the session ended meanwhile


_current: Session | None = None


def current() -> Session:
    """Returns the running session.

    Raises:
        NotInitialized: There is none.
    """
    if _current is None:
        raise NotInitialized("no session is running; call sf.init(['alice', 'bob', ...]) first")
    return _current


def running() -> Session | None:
    """Returns the running session, or None."""
    return _current


def init(
    parties: Sequence[PartyName],
    address: str | None = "local",
    *,
    seed: int | None = None,
    egress: Literal["default", "strict"] = "default",
    resources: Mapping[PartyName, Mapping[str, float]] | None = None,
    log_level: str = "WARNING",
    threads: int | None = None,
) -> None:
    """Starts one process per party.

    Args:
        parties: Their names.
        address: `"local"` starts a cluster on this machine for this session; `"inline"` runs every party in this
            process; `None`, `"auto"`, `"host:port"` or `"ray://host:port"` join a Ray cluster that is there already.
        seed: The run's seed; None draws one, which `fedray.runtime.session.current().seed` tells.
        egress: `"strict"` refuses to let raw values leave a party.
        resources: What a party's process asks of the cluster, e.g. `{"alice": {"CPU": 1, "GPU": 1}}`.
        log_level: Level of fedray's logger in the parties; at INFO and below their output is shown at the driver.
        threads: Compute threads per party; 1 by default, so that results do not depend on the machine's cores.

    Raises:
        PlanError: An argument is wrong, a session is running already, or the cluster cannot be reached.
    """
    global _current
    if _current is not None:
        raise PlanError("a session is running already; call sf.shutdown() first")
    names = _checked_names(parties)
    settings = _checked_settings(names, seed, egress, resources, log_level, threads)
    session = Session(settings, _transport(address, log_level))
    try:
        session.start()
    except BaseException:
        session.stop()
        raise
    _current = session


def shutdown() -> None:
    """Ends the running session and every process it started. Harmless when nothing runs."""
    global _current
    session, _current = _current, None
    if session is not None:
        session.stop()


atexit.register(shutdown)


def _transport(address: str | None, log_level: str) -> Transport:
    if address == "inline":
        return InlineTransport()
    if address is not None and (not isinstance(address, str) or not address):
        raise PlanError(
            f"address: expected 'local', 'inline', 'auto', 'host:port', 'ray://...' or None, found {address!r}"
        )
    from fedray.runtime.ray import RayTransport

    return RayTransport(address, log_level)


def _checked_names(parties: Sequence[PartyName]) -> tuple[PartyName, ...]:
    if isinstance(parties, str) or not isinstance(parties, Sequence) or not parties:
        raise PlanError(f"parties: expected a list of names such as ['alice', 'bob'], found {parties!r}")
    for name in parties:
        if not isinstance(name, str) or not name.isprintable() or name != name.strip() or not name:
            raise PlanError(f"parties: a name is printable text without blanks around it, found {name!r}")
        if len(name.encode()) > _NAME_BYTES:
            raise PlanError(f"parties: a name has at most {_NAME_BYTES} bytes, found {name!r}")
        if name == "driver":
            raise PlanError("parties: 'driver' is what the ledger calls this process; choose another name")
    repeated = sorted({name for name in parties if list(parties).count(name) > 1})
    if repeated:
        raise PlanError(f"parties: names must differ, found {', '.join(map(repr, repeated))} more than once")
    return tuple(parties)


def _checked_settings(
    names: tuple[PartyName, ...],
    seed: int | None,
    egress: Literal["default", "strict"],
    resources: Mapping[PartyName, Mapping[str, float]] | None,
    log_level: str,
    threads: int | None,
) -> dict[PartyName, PartyConfig]:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
        raise PlanError(f"seed: expected an integer from 0 to 2**63 - 1, found {seed!r}")
    if egress not in POLICIES:
        raise PlanError(f"egress: expected one of {', '.join(map(repr, POLICIES))}, found {egress!r}")
    if log_level not in _LOG_LEVELS:
        raise PlanError(f"log_level: expected one of {', '.join(map(repr, _LOG_LEVELS))}, found {log_level!r}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise PlanError(f"threads: expected a positive integer, found {threads!r}")
    asked = _checked_resources(names, resources or {})
    drawn = int.from_bytes(os.urandom(8)) >> 1 if seed is None else seed
    return {name: PartyConfig(name, names, drawn, egress, threads or 1, log_level, asked.get(name)) for name in names}


def _checked_resources(
    names: tuple[PartyName, ...], resources: Mapping[PartyName, Mapping[str, float]]
) -> dict[PartyName, dict[str, float]]:
    for party, wanted in resources.items():
        if party not in names:
            raise PlanError(f"resources: unknown party {party!r}; this session has {', '.join(map(repr, names))}")
        if not isinstance(wanted, Mapping):
            raise PlanError(f"resources: expected e.g. {{{party!r}: {{'CPU': 1}}}}, found {wanted!r} for {party!r}")
        for kind, amount in wanted.items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount >= 0:
                raise PlanError(f"resources: {party!r} asks for {kind}={amount!r}; expected a number from 0 on")
    return {party: dict(wanted) for party, wanted in resources.items()}
