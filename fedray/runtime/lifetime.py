# SPDX-License-Identifier: Apache-2.0
"""`init` and `shutdown`: how a session begins and ends in this process, one after the other and one at a time.

Imports no Ray: the transport that does is imported when a session asks for it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fedray.errors import NotInitialized, PlanError
from fedray.party.door.ledger_view import Ledger
from fedray.protocol.policy import Policy
from fedray.runtime.inline import InlineTransport
from fedray.runtime.patience import said
from fedray.runtime.session import Session, current, make_current, running
from fedray.runtime.settings import (
    KeyFolders,
    Placement,
    Reach,
    checked_address,
    checked_names,
    checked_reach,
    checked_settings,
)
from fedray.runtime.signals import held
from fedray.types import PartyName, Transport

_PATIENCE_SECONDS = 30.0  # five times what it takes on an idle machine, before it is said what is waited for

# Who begins or ends a session, by process: a fork finds its parent's taken for good, if it was at that moment. The same
# thread may come again, from a signal's handler.
_turns: dict[int, threading.RLock] = {}


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
        log_level: Level of fedray's logger in the parties; at INFO and below of all loggers, and what parties print and
            log (kind `log`) is shown at the driver, each line with the party's name.
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
        PlanError: An argument is wrong, a session is running already or another thread begins one, the cluster cannot
            be reached or lacks a party's node, a party serves another session, or it refuses its key folder or another
            party's key.

    Example:
        >>> sf.shutdown()
        >>> sf.init(["alice", "bob", "charlie"], address="inline", seed=7)
    """
    turn = _turn()
    if not turn.acquire(blocking=False):
        raise PlanError("another thread is in sf.init or sf.shutdown at this moment; wait until it is done")
    try:
        if running() is not None:
            raise PlanError("a session is running already; call sf.shutdown() first")
        names = checked_names(parties)
        settings = checked_settings(names, seed, egress, resources, log_level, threads, policies, keys)
        session = Session(settings, _transport(checked_address(address), log_level, checked_reach(placement, insecure)))
        _begin(session)
    finally:
        turn.release()


def _begin(session: Session) -> None:
    try:
        with said(f"init: waiting until the processes of {', '.join(session.parties)} run", _PATIENCE_SECONDS):
            session.start()
        make_current(session)
    except BaseException:  # an interrupt, too, must leave nothing behind
        make_current(None)
        session.stop()
        raise
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
    with _turn():
        session = running()
        make_current(None)
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


def _turn() -> threading.RLock:
    return _turns.setdefault(os.getpid(), threading.RLock())


def _transport(address: str, log_level: str, reach: Reach) -> Transport:
    if address == "inline":
        return InlineTransport()
    with held("Ray is imported"):  # broken off, it would stay half imported for good
        from fedray.runtime.ray import RayTransport  # only here: Ray takes a second to import

    return RayTransport(address, log_level, reach)
