# SPDX-License-Identifier: Apache-2.0
"""Checks the arguments of `init` and turns them into what each party is told. Pure, but for drawing a seed."""

from __future__ import annotations

import getpass
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from fedray.errors import PlanError
from fedray.party.door.egress import DRIVER, POLICIES
from fedray.protocol.crypto.names import check_name
from fedray.protocol.policy import Policy
from fedray.types import PartyConfig, PartyName

KeyFolders: TypeAlias = str | os.PathLike[str] | Mapping[PartyName, str | os.PathLike[str]]
"""One folder with a folder for each party, or party -> its folder."""

Placement: TypeAlias = Literal["own", "anywhere"]
"""Whether parties run on their own nodes only, or wherever Ray puts them."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_log = logging.getLogger("fedray")
_SEEDS = 2**63  # what fits into a signed integer of 64 bits, which every framework's generator takes


@dataclass(frozen=True, slots=True)
class Reach:
    """How a session uses a cluster that it joins.

    Attributes:
        placement: Where its parties may run.
        insecure: Whether it may reach other machines without token or TLS.
    """

    placement: Placement = "own"
    insecure: bool = False


def checked_reach(placement: Placement, insecure: bool) -> Reach:
    """Returns how a session uses a cluster.

    Raises:
        PlanError: An argument is wrong.
    """
    if placement not in get_args(Placement):
        raise PlanError(f"placement: expected 'own' or 'anywhere', found {placement!r}")
    # A text such as "no" would count as true, and open what it was meant to keep shut.
    if not isinstance(insecure, bool):
        raise PlanError(f"insecure: expected True or False, found {insecure!r}")
    return Reach(placement, insecure)


def holder(session: str) -> str:
    """Returns who holds a party, for another driver that finds it taken: the session, and whose program it is.

    Args:
        session: The session's number.
    """
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # in a container whose user has no name
        user = f"user {os.geteuid()}"
    return f"session {session[:8]} of {user}@{socket.gethostname()} (process {os.getpid()})"


def warn_of_rules(configs: Mapping[PartyName, PartyConfig], in_force: Mapping[PartyName, Mapping[str, Any]]) -> None:
    """Warns of each party whose operator has narrowed what this driver asked for.

    Args:
        configs: What the driver told each party.
        in_force: What its operator has laid down, for parties that have a `party.toml`.
    """
    for party, rules in in_force.items():
        asked = {"egress": configs[party].egress, "threads": configs[party].threads}
        other = [
            f"{name} is {rules[name]!r} and not {value!r}" for name, value in asked.items() if rules[name] != value
        ]
        if other:
            _log.warning("%s: %s, by the party.toml of its machine", party, ", ".join(other))


def checked_names(parties: Sequence[PartyName]) -> tuple[PartyName, ...]:
    """Returns the parties' names.

    Raises:
        PlanError: They are not a list of different names that `check_name` takes.
    """
    # A string is a sequence, too: 'alice' would become five parties.
    if isinstance(parties, str) or not isinstance(parties, Sequence) or not parties:
        raise PlanError(f"parties: expected a list of names such as ['alice', 'bob'], found {parties!r}")
    for name in parties:
        try:
            check_name(name)
        except PlanError as error:
            raise PlanError(f"parties: {error}") from None
        if name == DRIVER:
            raise PlanError(f"parties: {DRIVER!r} is what the ledger calls this process; choose another name")
    repeated = sorted({name for name in parties if parties.count(name) > 1})
    if repeated:
        raise PlanError(f"parties: expected different names, found {', '.join(map(repr, repeated))} more than once")
    return tuple(parties)


def checked_settings(
    names: tuple[PartyName, ...],
    seed: int | None,
    egress: Literal["default", "strict"],
    resources: Mapping[PartyName, Mapping[str, float]] | None,
    log_level: str,
    threads: int | None,
    policies: Mapping[PartyName, Policy] | None = None,
    keys: KeyFolders | None = None,
) -> dict[PartyName, PartyConfig]:
    """Returns what each party is told; a seed that is not given is drawn from the operating system.

    Args:
        names: The parties, as `checked_names` returns them.
        seed: As in `fedray.init`, and so are all the others.
        egress: What may leave a party.
        resources: What each party's process asks of the cluster.
        log_level: Level of the parties' logger.
        threads: Compute threads per party.
        policies: What parties accept of sums.
        keys: Where parties keep their keys.

    Raises:
        PlanError: An argument is wrong.
    """
    if seed is not None and not (_is_int(seed) and 0 <= seed < _SEEDS):
        raise PlanError(f"seed: expected an integer from 0 to 2**63 - 1, found {seed!r}")
    if egress not in POLICIES:
        raise PlanError(f"egress: expected one of {', '.join(map(repr, POLICIES))}, found {egress!r}")
    if log_level not in LOG_LEVELS:
        raise PlanError(f"log_level: expected one of {', '.join(map(repr, LOG_LEVELS))}, found {log_level!r}")
    if threads is not None and not (_is_int(threads) and threads >= 1):
        raise PlanError(f"threads: expected a positive integer, found {threads!r}")
    asked = _checked_resources(names, resources or {})
    stated, folders = _checked_policies(names, policies or {}), _checked_keys(names, keys)
    # Drawn here and told to all: parties that drew their own could not build the same model.
    drawn = int.from_bytes(os.urandom(8)) % _SEEDS if seed is None else seed
    return {
        name: PartyConfig(
            *(name, names, drawn, egress, threads or 1, log_level, asked.get(name)),
            keys=folders.get(name, ""),
            policy=stated.get(name),
        )
        for name in names
    }


def checked_address(address: str | None) -> str:
    """Returns the address, `"auto"` for None.

    Raises:
        PlanError: It is not an address.
    """
    if address is None:
        return "auto"
    if not isinstance(address, str) or not (address in ("local", "inline", "auto") or ":" in address):
        raise PlanError(
            f"address: expected 'local', 'inline', 'auto', 'host:port', 'ray://host:port' or None, found {address!r}"
        )
    return address


def _checked_resources(
    names: tuple[PartyName, ...], resources: Mapping[PartyName, Mapping[str, float]]
) -> dict[PartyName, dict[str, float]]:
    if not isinstance(resources, Mapping):
        raise PlanError(f"resources: expected e.g. {{'alice': {{'CPU': 1}}}}, found {resources!r}")
    for party, wanted in resources.items():
        if party not in names:
            raise PlanError(f"resources: unknown party {party!r}; this session has {', '.join(map(repr, names))}")
        if not isinstance(wanted, Mapping):
            raise PlanError(f"resources: expected e.g. {{{party!r}: {{'CPU': 1}}}}, found {wanted!r} for {party!r}")
        for kind, amount in wanted.items():
            if not isinstance(kind, str) or isinstance(amount, bool) or not isinstance(amount, int | float):
                raise PlanError(f"resources: {party!r} asks for {kind!r}: {amount!r}; expected a name and a number")
            if not 0 <= amount < float("inf"):
                raise PlanError(f"resources: {party!r} asks for {amount!r} {kind}; expected a number from 0 on")
    return {party: dict(wanted) for party, wanted in resources.items()}


def _checked_policies(names: tuple[PartyName, ...], policies: Mapping[PartyName, Policy]) -> dict[PartyName, Any]:
    """Returns each party's policy as plain settings."""
    if not isinstance(policies, Mapping):
        raise PlanError(f"policies: expected e.g. {{'alice': sf.Policy(n_min=4)}}, found {type(policies).__name__}")
    for party, policy in policies.items():
        if party not in names:
            raise PlanError(f"policies: unknown party {party!r}; this session has {', '.join(map(repr, names))}")
        if not isinstance(policy, Policy):
            raise PlanError(f"policies: expected an sf.Policy for {party!r}, found {type(policy).__name__}")
    return {party: policy.settings() for party, policy in policies.items()}


def _checked_keys(names: tuple[PartyName, ...], keys: KeyFolders | None) -> dict[PartyName, str]:
    """Returns the path of each party's key folder, on the party's own machine."""
    if keys is None:
        return {}
    if not isinstance(keys, str | os.PathLike | Mapping):
        raise PlanError(f"keys: expected a folder with one folder per party, or one for each party, found {keys!r}")
    # Joined here as text and opened only in the party: the folder is on its machine, not on the driver's.
    for_each = keys if isinstance(keys, Mapping) else {name: os.path.join(_path(keys, "keys"), name) for name in names}
    strangers = [party for party in for_each if party not in names]
    if strangers:
        raise PlanError(f"keys: unknown party {strangers[0]!r}; this session has {', '.join(map(repr, names))}")
    missing = [name for name in names if name not in for_each]
    if missing:
        raise PlanError(
            f"keys: {', '.join(map(repr, missing))} without a folder. Where one party has keys of its own, all need "
            "them: nobody's roster names a key that is made anew for each session. 'fedray keys new' makes one"
        )
    return {name: _path(folder, f"keys of {name!r}") for name, folder in for_each.items()}


def _path(value: object, what: str) -> str:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    # A relative path would mean the folder in which a party's process happens to start, which Ray chooses.
    if not isinstance(path, str) or not path.startswith(("/", "~")):
        raise PlanError(
            f"{what}: expected an absolute path on the party's machine, or one below its home (~), found {value!r}"
        )
    return path


def _is_int(value: object) -> bool:
    # In Python True is an integer; as a seed or a number of threads it is a mistake.
    return isinstance(value, int) and not isinstance(value, bool)
