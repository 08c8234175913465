# SPDX-License-Identifier: Apache-2.0
"""What `fedray doctor` finds on one machine: software, memory, its parties' files, its certificates.

Looks and changes nothing. Knows no cluster. What may be told to a driver elsewhere holds no path of a party's data.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias

from fedray.errors import FedRayError
from fedray.party.house import in_force
from fedray.party.house.turns import home
from fedray.party.keys.key_folder import ROSTER, read_identity, read_roster
from fedray.runtime.nodes import certificates, token
from fedray.runtime.nodes.launch import RAY_SETTINGS, Security, on_loopback

Health: TypeAlias = Literal["good", "doubtful", "bad"]

_PACKAGES = ("fedray", "ray", "numpy", "tensorflow", "keras", "torch")
_MUST_AGREE = ("Python", "fedray", "ray")
_LEAST_MEMORY = 2 << 30  # bytes; a party with TensorFlow takes half a GB before it holds any data
_LEAST_SHARED = 1 << 30
_LEAST_DISK = 100 << 20  # bytes; a ledger takes some KB a round
_SHARED = "/dev/shm"  # noqa: S108 (looked at, not written to)
_LEAST_FILES = 4096  # Ray's own advice


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What.
        health: How it is.
        found: What was found.
        remedy: What to do; empty where all is good.
    """

    check: str
    health: Health
    found: str
    remedy: str = ""


def versions() -> dict[str, str]:
    """Returns the versions of what has to be the same on every machine, of what is installed here."""
    found = {"Python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}
    return {name: version for name, version in found.items() if version}


def software() -> list[Finding]:
    """Returns those versions as a finding, and whether there is a framework."""
    there = versions()
    found = [Finding("versions", "good", ", ".join(f"{name} {version}" for name, version in there.items()))]
    if not any(name in there for name in ("tensorflow", "torch")):
        found.append(
            Finding("framework", "doubtful", "neither tensorflow nor torch", "install what the model is made of")
        )
    return found


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[Finding]:
    """Returns how the versions on another machine differ from those on this one.

    Args:
        there: As `versions` returns them, on the other machine.
        here: On this one.
    """
    found = []
    for name in sorted(set(there) & set(here)):
        if there[name] != here[name]:
            # Ray lets no node in whose Ray or Python is another one, and messages of two versions of fedray differ.
            # What frameworks of two versions compute differs a little, and nobody would be told.
            health: Health = "bad" if name in _MUST_AGREE else "doubtful"
            said = f"{there[name]} there, {here[name]} here"
            found.append(Finding(f"{name} version", health, said, f"install one version of {name} on every machine"))
    return found or [Finding("same versions", "good", "as on this machine")]


def settings(environment: Mapping[str, str]) -> Finding:
    """Returns whether a node was started with the settings of Ray that fedray needs.

    Args:
        environment: Of a process of the node.
    """
    other = {name: environment.get(name) for name, value in RAY_SETTINGS.items() if environment.get(name) != value}
    if not other:
        return Finding("Ray's settings", "good", "as 'fedray head start' and 'fedray party start' make them")
    listed = ", ".join(f"{name} is {value or 'not set'}" for name, value in other.items())
    remedy = "start the node with 'fedray head start' or 'fedray party start', or set them as deploy/README.md says"
    return Finding("Ray's settings", "doubtful", listed, remedy)


def machine() -> list[Finding]:
    """Returns what the machine has: memory, shared memory, processors, accelerators, files."""
    found = []
    memory = _available_memory()
    if memory is not None:
        enough = memory >= _LEAST_MEMORY
        found.append(_measured("memory", enough, f"{_gb(memory)} available", "end other programs, or add memory"))
    if os.path.isdir(_SHARED):
        shared = os.statvfs(_SHARED)
        free = shared.f_bavail * shared.f_frsize
        remedy = f"mount it larger: mount -o remount,size=4G {_SHARED}, or --shm-size of a container"
        found.append(_measured("shared memory", free >= _LEAST_SHARED, f"{_SHARED} has {_gb(free)} free", remedy))
    found.append(_room("room in FEDRAY_HOME", home()))
    found.append(Finding("processors", "good", f"{_cores()}"))
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    found.append(Finding("accelerators", "good", f"{devices} of NVIDIA" if devices else "none"))
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    remedy = f"ulimit -n {min(65536, most) if most > 0 else 65536}, or LimitNOFILE= in the unit"
    found.append(_measured("open files", files >= _LEAST_FILES or files < 0, f"at most {files}", remedy))
    return found


def parties() -> list[Finding]:
    """Returns how the files of this machine's parties are: `party.toml`, keys, roster, and each of their data."""
    above = home() / "parties"
    folders = sorted(path.parent for path in above.glob(f"*/{in_force.FILE}")) if above.is_dir() else []
    files = [folder / in_force.FILE for folder in folders]
    # At a node, it is the file that the node was started with.
    if in_force.VARIABLE in os.environ:
        files = [Path(os.environ[in_force.VARIABLE])]
    return [finding for file in files for finding in _party(file)]


def secured(security: Security, ip: str | None) -> list[Finding]:
    """Returns how a cluster's token and a node's certificate are.

    Args:
        security: Where they are.
        ip: The node's own address; None for a driver.
    """
    found = []
    if security.token is None:
        remedy = f"copy the head's token file to {home() / 'token'}, chmod 600; 'fedray head start' makes it there"
        found.append(Finding("token", "bad", "none", remedy))
    else:
        found.append(_tried("token", security.token, _token))
    if security.tls is None and ip is not None and on_loopback(ip):
        return [*found, Finding("TLS", "good", "none, and nothing leaves this machine")]
    if security.tls is None:
        found.append(Finding("TLS", "bad", "none", "'fedray tls init' and 'fedray tls issue', then --tls DIR"))
        return found
    checked = _tried("TLS", security.tls, lambda folder: f"good until {certificates.check(folder, ip):%Y-%m-%d}")
    if checked.health == "good" and certificates.check(security.tls, ip) - datetime.now(UTC) < certificates.SOON:
        remedy = f"it runs out soon; {certificates.renewal(security.tls, ip)}"
        checked = Finding("TLS", "doubtful", checked.found, remedy)
    return [*found, checked]


def _party(path: Path) -> list[Finding]:
    try:
        rules = in_force.read(path)
    except FedRayError as error:
        return [Finding(f"{path.parent.name}: party.toml", "bad", str(error), "mend that line or file")]
    name = rules.name
    found = [Finding(f"{name}: party.toml", "good", f"egress {rules.egress}, paths {rules.paths}")]
    if rules.keys is not None:
        found.append(_tried(f"{name}: keys", Path(os.path.expanduser(rules.keys)), _keys))
        found.append(_room(f"{name}: room for the ledger", Path(os.path.expanduser(rules.keys))))
    if rules.checkpoints is not None:
        found.append(_writable(f"{name}: checkpoints", Path(os.path.expanduser(rules.checkpoints))))
    if rules.threads is not None and rules.threads > _cores():
        said = f"at most {rules.threads}, and the machine has {_cores()} processors"
        found.append(Finding(f"{name}: threads", "doubtful", said, "lower threads under [limits]"))
    for data, file in rules.data.items():
        there = os.access(os.path.expanduser(file), os.R_OK)
        said = "can be read" if there else "cannot be read, or is not there"
        remedy = f"mend its path under [data] in {name}'s party.toml, or give the user of the party leave to read it"
        found.append(Finding(f"{name}: data {data!r}", "good" if there else "bad", said, "" if there else remedy))
    return found


def _writable(check: str, folder: Path) -> Finding:
    """Returns whether a folder can be written to, or made."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Finding(check, "good", "can be written to" if nearest == folder else "will be made")
    said = "cannot be written to" if nearest == folder else f"is not there, and {nearest} cannot be written to"
    return Finding(check, "bad", said, "mend its path, or give the user of the party leave to write there")


def _room(check: str, folder: Path) -> Finding:
    """Returns whether there is room on the disk of a folder, or where it would be made."""
    disk = os.statvfs(next(one for one in (folder, *folder.absolute().parents) if os.path.exists(one)))
    free = disk.f_bavail * disk.f_frsize
    # A party that cannot write down what leaves it lets nothing leave. Without the path: a driver may be told.
    return _measured(check, free >= _LEAST_DISK, f"{_gb(free)} free", "make room on the disk that it is on")


def _keys(folder: Path) -> str:
    read_identity(folder)
    return f"an identity, and a roster of {len(read_roster(folder / ROSTER).names)}"


def _token(file: Path) -> str:
    token.check(file)
    return f"{file}"


def _tried(check: str, path: Path, look: Callable[[Path], str]) -> Finding:
    try:
        return Finding(check, "good", look(path))
    except FedRayError as error:
        # Our errors end with what to do.
        return Finding(check, "bad", str(error), "as the message says")


def _measured(check: str, enough: bool, found: str, remedy: str) -> Finding:
    return Finding(check, "good" if enough else "doubtful", found, "" if enough else remedy)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _available_memory() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None


def _gb(amount: int) -> str:
    return f"{amount / (1 << 30):.1f} GB"


def as_plain(finding: Finding) -> Mapping[str, str]:
    """Returns a finding as plain text by name, for JSON."""
    return {"check": finding.check, "health": finding.health, "found": finding.found, "remedy": finding.remedy}
