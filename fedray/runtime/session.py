# SPDX-License-Identifier: Apache-2.0
"""The session: which parties there are, how calls reach them, and the one that is current in this process.

Imports no Ray: the transport that does is imported when a session asks for it.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from fedray.errors import FedRayError, NotInitialized, PlanError
from fedray.party.door.journal import session_id
from fedray.party.door.ledger_file import Book
from fedray.party.door.ledger_view import Ledger
from fedray.party.parcel import pack
from fedray.protocol.policy import Policy
from fedray.runtime.inline import InlineTransport
from fedray.runtime.ledger_reading import read_pages
from fedray.runtime.releases import Releases
from fedray.runtime.settings import (
    KeyFolders,
    Placement,
    Reach,
    checked_address,
    checked_names,
    checked_reach,
    checked_settings,
    holder,
    warn_of_rules,
)
from fedray.types import Key, PartyConfig, PartyName, Ref, Transport

_CLOSING_SECONDS = 3.0  # for all parties to close their ledgers, of which each takes milliseconds


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
        """Returns the label of a new statement of the driver, e.g. `"17:train_segment"`."""
        return f"{next(self._statements)}:{name}"

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
        self._check_open()
        if party not in self.configs:
            raise PlanError(f"unknown party {party!r}; this session has {', '.join(map(repr, self.parties))}")

    def _check_open(self) -> None:
        if not self.open:
            raise NotInitialized("this session has ended; call sf.init(...) and make new handles")

    def get(self, refs: Sequence[Ref], timeout: float | None = None) -> list[Any]:
        """Returns the results in order; see `fedray.types.Transport.get`.

        Raises:
            NotInitialized: The session has ended.
        """
        self._check_open()
        return self.transport.get(refs, timeout)

    def wait(self, refs: Sequence[Ref], timeout: float | None = None, first: bool = False) -> list[Ref]:
        """Returns the calls that are done or failed; see `fedray.types.Transport.wait`.

        Raises:
            NotInitialized: The session has ended.
        """
        self._check_open()
        return self.transport.wait(refs, timeout, first)

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
        """Ends every party. Harmless when repeated."""
        if not self.open:
            return
        try:
            # A party that does not answer ends all the same; its ledger stays open, which is what happened.
            with contextlib.suppress(FedRayError):
                if self._closes:
                    self.ledger(entries=False, close=True, timeout=_CLOSING_SECONDS)
        finally:
            # Before anything ends, so that finalizers and callbacks that run from now on call nobody.
            self.open = False
            self._releases.stop()
            self.transport.stop()


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
    policies: Mapping[PartyName, Policy] | None = None,
    keys: KeyFolders | None = None,
    placement: Placement = "own",
    insecure: bool = False,
) -> None:
    """Starts one process per party.

    Args:
        parties: Their names.
        address: `"local"` starts a cluster on this machine for this session; `"inline"` runs every party in this
            process; `None`, `"auto"`, `"host:port"` or `"ray://host:port"` join a Ray cluster that is there already.
            `"auto"` is the one in RAY_ADDRESS, else that of the node that you have started on this machine.
        seed: The run's seed; None draws one, which `fedray.runtime.session.current().seed` tells.
        egress: `"strict"` lets no raw value leave a party, and nothing that it prints.
        resources: What a party's process asks of the cluster, e.g. `{"alice": {"CPU": 1, "GPU": 1}}`.
        log_level: Level of fedray's logger in the parties; at INFO and below their output (kind `log`) is shown at the
            driver.
        threads: Compute threads per party; 1 by default, so that results do not depend on the machine's cores.
        policies: What parties accept of sums, e.g. `{"alice": sf.Policy(n_min=4)}`; the default policy for the others.
            A party whose key folder states a policy takes none from here.
        keys: Where parties keep their identity keys and know the others' from: one folder for each party, e.g.
            `{"alice": "/etc/fedray/alice", ...}`, or one that holds a folder for each. The paths are the parties', on
            their machines. None makes keys anew for this session, and the driver hands them round.
        placement: On a cluster that is joined, `"own"` puts each party on its own node, as `fedray party start` makes
            it; `"anywhere"` leaves it to Ray, for simulations.
        insecure: Joins a cluster of several machines without token or TLS all the same.

    Raises:
        PlanError: An argument is wrong, a session is running already, the cluster cannot be reached or lacks a party's
            node, a party serves another session, or it refuses its key folder or another party's key.

    Example:
        >>> sf.shutdown()
        >>> sf.init(["alice", "bob", "charlie"], address="inline", seed=7)
    """
    global _current
    if _current is not None:
        raise PlanError("a session is running already; call sf.shutdown() first")
    names = checked_names(parties)
    settings = checked_settings(names, seed, egress, resources, log_level, threads, policies, keys)
    session = Session(settings, _transport(checked_address(address), log_level, checked_reach(placement, insecure)))
    try:
        session.start()
    except BaseException:  # an interrupt, too, must leave nothing behind
        session.stop()
        raise
    _current = session
    atexit.unregister(shutdown)
    atexit.register(shutdown)  # last registered, first run: before Ray's own


def shutdown(ledger: str | os.PathLike[str] | None = None) -> None:
    """Ends the running session and every process it started. Harmless when nothing runs.

    Args:
        ledger: Where to save what left every party, closed: each party signs that nothing leaves it any more. A file
            that `sf.ledger().save(FILE)` wrote is open: it cannot say what left after it.

    Raises:
        NotInitialized: A ledger is wanted and nothing runs.
        OSError: It cannot be written; the session has ended all the same.

    Example:
        >>> sf.shutdown()
        >>> sf.shutdown()
        >>> sf.init(["alice", "bob", "charlie"], address="inline", seed=7)
    """
    global _current
    session, _current = _current, None
    if session is None:
        if ledger is not None:
            raise NotInitialized("no session is running, so there is no ledger to save; say shutdown() alone")
        return
    try:
        if ledger is not None:
            session.ledger(close=True).save(ledger)
    finally:
        session.stop()


def ledger(*, entries: bool = True) -> Ledger:
    """Returns what left every party since the session began; reading it is itself an entry.

    Args:
        entries: Whether each entry is wanted. Totals alone, which the parties sign as well, come at once however long
            the session was.

    Raises:
        NotInitialized: No session is running.
        EgressDenied: A party's policy keeps its ledger to itself.

    Example:
        >>> sf.reveal(alice(np.ones)(3)).tolist()
        [1.0, 1.0, 1.0]
        >>> entry = sf.ledger().pages["alice"].entries[-2]  # the last one is this reading of the ledger
        >>> entry.to, entry.kind, entry.shape, entry.dtype, entry.nbytes
        ('driver', 'raw', (3,), 'float64', 24)
        >>> sf.ledger().verify()
        []
    """
    return current().ledger(entries=entries)


def in_force() -> dict[PartyName, dict[str, Any]]:
    """Returns what the operators of parties have laid down in their `party.toml`: party -> setting -> value.

    No driver can loosen it. `data` lists the names to load by.

    Raises:
        NotInitialized: No session is running.

    Example:
        >>> sf.in_force()
        {}
    """
    return {party: dict(rules) for party, rules in current().in_force.items()}


def _transport(address: str, log_level: str, reach: Reach) -> Transport:
    if address == "inline":
        return InlineTransport()
    from fedray.runtime.ray import RayTransport  # only here: Ray takes a second to import

    return RayTransport(address, log_level, reach)
