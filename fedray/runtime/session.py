# SPDX-License-Identifier: Apache-2.0
"""The session: which parties there are, how calls reach them, and the one that is current in this process.

Imports no Ray and starts nothing; `fedray/runtime/lifetime.py` does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedray.errors import FedRayError, NotInitialized, PlanError
from fedray.party import tracebacks
from fedray.party.door.journal import session_id
from fedray.party.door.ledger_file import Book
from fedray.party.door.ledger_view import Ledger
from fedray.party.parcel import pack
from fedray.protocol.policy import Policy
from fedray.runtime.ledger_reading import read_pages
from fedray.runtime.releases import Releases
from fedray.runtime.settings import holder, warn_of_rules
from fedray.runtime.signals import heard, held
from fedray.runtime.waits import Waits
from fedray.types import Key, PartyConfig, PartyName, Ref, Transport

_MOST_NAME = 200  # of a function, in ledgers
_CLOSING_SECONDS = 3.0  # for all parties to close their ledgers, of which each takes milliseconds
_LEAVING_SECONDS = 5.0  # for other threads to learn that what they wait for will not come


class Session:
    """One run of `init` to `shutdown`.

    Attributes:
        id: Drawn at random, so that no two sessions have the same.
        parties: Names, in the order given.
        transport: How calls travel.
        seed: The run's seed.
        roster: Public identity keys by party, in roster order (the UTF-8 bytes of the names).
        sid: The session's name in the parties' ledgers, 32 bytes.
        policies: What each party says that it accepts of sums, for proposals; each party keeps to its own.
        in_force: What each party's operator has laid down in its `party.toml`; only parties that have one.
        configs: What each party was told.
        open: Whether it runs; `stop` ends that for good.
    """

    def __init__(self, configs: Mapping[PartyName, PartyConfig], transport: Transport) -> None:
        self.id = secrets.token_hex(8)
        self.configs = {name: replace(config, session=holder(self.id)) for name, config in configs.items()}
        self.parties = tuple(configs)
        self.transport = transport
        self.seed = next(iter(configs.values())).seed
        self.roster: dict[PartyName, bytes] = {}
        self.policies: dict[PartyName, Policy] = {}
        self.in_force: dict[PartyName, dict[str, Any]] = {}
        self.sid = bytes(32)
        self.open = True
        self._process = os.getpid()
        self._waits = Waits()
        self._readings = itertools.count(1)
        self._closes = False  # whether there are ledgers to be closed
        # Counters and not lengths: they are safe from several threads, and a key is never given out twice.
        self._keys = itertools.count(1)
        self._statements = itertools.count(1)
        self._releases = Releases(lambda party, keys: self.call(party, "release", keys, label="release"))

    def start(self) -> None:
        """Starts the parties and lets them know each other's identity keys.

        Raises:
            PlanError: The cluster cannot be reached or lacks what a party asks for, or a party refuses its key folder
                or the others' keys.
        """
        self.transport.start(self.configs)
        # The order in which every party numbers the roster. Bytes, since the order of text depends on who compares it.
        ordered = sorted(self.parties, key=lambda name: name.encode())
        label = self.statement("init")
        told = self.get([self.call(party, "introduce", label=label) for party in ordered])
        self.roster = {party: key for party, (key, _) in zip(ordered, told, strict=True)}
        marks = {party: mark for party, (_, mark) in zip(ordered, told, strict=True)}
        self.sid = session_id(self.roster, marks)
        # Every party checks the others' keys against those that its operator knows, before it takes part in anything.
        told = self.get([self.call(party, "install_roster", self.roster, marks, label=label) for party in ordered])
        self.policies = {party: Policy.of(policy) for party, (policy, _) in zip(ordered, told, strict=True)}
        self.in_force = {party: rules for party, (_, rules) in zip(ordered, told, strict=True) if rules is not None}
        warn_of_rules(self.configs, self.in_force)
        self._closes = True
        # Only once the parties are there: a session that could not start leaves no thread behind.
        self._releases.start()

    def statement(self, name: str) -> str:
        """Returns the label of a new statement of the driver, e.g. `"17:train"`."""
        return f"{next(self._statements)}:{name[:_MOST_NAME]}"

    def new_key(self) -> Key:
        """Returns a key that no object has had."""
        return f"{self.id[:4]}-{next(self._keys)}"

    def call(self, party: PartyName, method: str, *args: Any, label: str | None = None) -> Ref:
        """Calls a method of `Party` and returns at once.

        Args:
            party: Whom to call.
            method: One of `fedray.party.party.LANES`.
            *args: The method's arguments.
            label: The statement that this call belongs to; None makes it a statement of its own. It goes in front of
                the arguments, and into the ledger with whatever leaves.

        Raises:
            NotInitialized: The session has ended.
            PlanError: There is no such party.
        """
        self.check(party)
        return self.transport.call(party, method, label or self.statement(method), *args)

    def check(self, party: PartyName) -> None:
        """Checks that the session runs and has this party.

        Raises:
            NotInitialized: The session has ended.
            PlanError: There is no such party.
        """
        self.check_open()
        if party not in self.configs:
            raise PlanError(f"unknown party {party!r}; this session has {', '.join(map(repr, self.parties))}")

    @property
    def own(self) -> bool:
        """Whether this process has begun it, and is no fork of the one that did."""
        return os.getpid() == self._process

    def check_open(self) -> None:
        """Checks that the session runs, and in this process.

        Raises:
            NotInitialized: It does not.
        """
        # A fork has the objects of its parent and none of its threads: it would wait for an answer for ever.
        if not self.own:
            raise NotInitialized(
                f"this session and its handles belong to process {self._process}, and this is its fork {os.getpid()}; "
                "use them there, or start processes by multiprocessing's 'spawn' and call sf.init(...) in them"
            )
        if not self.open:
            raise NotInitialized("this session has ended; call sf.init(...) and make new handles")

    def _told(self, error: FedRayError) -> BaseException:
        """Returns what an answer's error is to the user: without our own frames, which say nothing of it."""
        if not self.open:
            # What the end did to the call says less than that there was one.
            return NotInitialized("the session was ended while this waited for an answer")
        return error if tracebacks.wanted() else error.with_traceback(None)

    def get(self, refs: Sequence[Ref], timeout: float | None = None) -> list[Any]:
        """Returns the results in order; see `fedray.types.Transport.get`.

        Raises:
            NotInitialized: The session has ended.
        """
        self.check_open()
        try:
            with heard(), self._waits.one():
                return self.transport.get(refs, timeout)
        except FedRayError as error:
            raise self._told(error) from None

    def wait(self, refs: Sequence[Ref], timeout: float | None = None, first: bool = False) -> list[Ref]:
        """Returns the calls that are done or failed; see `fedray.types.Transport.wait`.

        Raises:
            NotInitialized: The session has ended.
        """
        self.check_open()
        try:
            with heard(), self._waits.one():
                return self.transport.wait(refs, timeout, first)
        except FedRayError as error:
            raise self._told(error) from None

    def serve(self, party: PartyName, cls: type[Any], *args: Any, label: str | None = None) -> Key:
        """Builds a service in a party, as `cls(context, *args)`, and returns its key at once.

        If that fails, the failure is what the first `ask` of it gets.

        Args:
            party: Where.
            cls: The service's class, see `fedray.party.context.Service`.
            *args: What its constructor gets besides the context.
            label: As in `call`.
        """
        key = self.new_key()
        self.call(party, "serve", key, pack((cls, args)), label=label or self.statement(f"serve {cls.__name__}"))
        return key

    def ask(self, party: PartyName, key: Key, method: str, *args: Any, label: str | None = None) -> Ref:
        """Calls a method of a service, after the commands before it.

        Args:
            party: Where the service is.
            key: Its key, from `serve`.
            method: A public method of it.
            *args: The method's arguments, which may hold `Slot`s.
            label: As in `call`.
        """
        return self.call(party, "ask", key, method, pack(args), label=label or self.statement(method))

    def tell(self, party: PartyName, key: Key, method: str, *args: Any, label: str | None = None) -> Ref:
        """Calls a method of a service at once, even while a command runs.

        Args:
            party: Where the service is.
            key: Its key, from `serve`.
            method: A public method of it.
            *args: The method's arguments.
            label: As in `call`.
        """
        return self.call(party, "tell", key, method, pack(args), label=label or self.statement(method))

    def watch(self, party: PartyName, key: Key, *args: Any, label: str | None = None) -> Ref:
        """Asks a service for news; the answer comes when there is some.

        Args:
            party: Where the service is.
            key: Its key, from `serve`.
            *args: What the service's `watch` gets.
            label: As in `call`.
        """
        return self.call(party, "watch", key, pack(args), label=label or self.statement("watch"))

    def release(self, party: PartyName, key: Key) -> None:
        """Lets a party forget an object, soon. Never blocks and never raises: finalizers call it, at any moment."""
        self._releases.add(party, key)

    def ledger(self, *, entries: bool = True, close: bool = False, timeout: float | None = None) -> Ledger:
        """Returns what left every party so far; a party that has ended is missing in it.

        Args:
            entries: Whether each entry is wanted; otherwise totals alone.
            close: Whether nothing is to leave a party once it has answered. Then a command under way is not waited for.
            timeout: Seconds to wait in all, or None.

        Raises:
            PartyTimeout: `timeout` seconds passed.
        """
        label, reading, method = self.statement("ledger"), next(self._readings), "close_ledger" if close else "ledger"
        pages = read_pages(
            self.parties,
            lambda party, first: self.call(party, method, first, reading, label=label),
            lambda ref, seconds: self.get([ref], seconds)[0],
            entries=entries,
            timeout=timeout,
        )
        return Ledger(Book(pages, self.roster, self.sid, reading))

    def stop(self) -> None:
        """Ends every party. Harmless when repeated, and in a fork, whose parent goes on."""
        if not (self.open and self.own):
            return
        try:
            with held():  # broken off here, it would leave processes and files behind
                self._close()
        finally:
            self.transport.stop()

    def _close(self) -> None:
        try:
            # A party that does not answer ends all the same; its ledger stays open, which is what happened.
            with contextlib.suppress(FedRayError):
                if self._closes:
                    self.ledger(entries=False, close=True, timeout=_CLOSING_SECONDS)
        finally:
            # Before anything ends, so that finalizers and callbacks that run from now on call nobody.
            self.open = False
            self._releases.stop()
            if self._waits.others():
                self.transport.abandon()
                self._waits.drain(_LEAVING_SECONDS)


_current: Session | None = None


def current() -> Session:
    """Returns the running session.

    Raises:
        NotInitialized: There is none, or it is that of the process from which this one was forked.
    """
    if _current is None:
        raise NotInitialized("no session is running; call sf.init(['alice', 'bob', ...]) first")
    if not _current.own:
        _current.check_open()
    return _current


def running() -> Session | None:
    """Returns the running session, or None."""
    return _current if _current is not None and _current.own else None


def make_current(session: Session | None) -> None:
    """Makes a session the running one; None, when there is none any more."""
    global _current
    _current = session
