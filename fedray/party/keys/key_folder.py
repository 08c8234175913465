# SPDX-License-Identifier: Apache-2.0
"""A party's own folder: its identity key, the others' public keys, its policy, its memory of models.

The folder lies on the party's machine and is read inside the party; the driver knows its path at most. Knows how the
files are written down and who may read them. Does not know what keys and policies are for.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedray.errors import PlanError
from fedray.protocol.crypto.keys import Roster, generate_identity, public_bytes
from fedray.protocol.policy import Policy
from fedray.types import PartyName

IDENTITY = "identity.key"
ROSTER = "roster.json"
POLICY = "policy.toml"
MODELS = "models.log"
"""The files of a folder. The public key lies in NAME.pub beside them, to be given to the others."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO  # whatever the group and everybody else may do
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH  # public files may be read, but who writes one chooses whom a party trusts


def new_identity(folder: Path, party: PartyName) -> Path:
    """Makes a party's identity key, readable by its owner only, and writes its public half beside it.

    Returns:
        Path of the public file.

    Raises:
        PlanError: The folder holds a key already, or the name cannot be a file's.
        OSError: The files cannot be written.
    """
    # The name becomes a file's: no path into another folder, and no hidden file.
    if party != party.strip() or party.startswith(".") or not party.isprintable() or set(party) & set("/\\"):
        raise PlanError(f"{party!r} cannot be the name of a party with a key folder: it names a file, {party}.pub")
    _check_system()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = generate_identity()
    there = sorted(path.name for path in folder.iterdir() if path.name == IDENTITY or path.suffix == ".pub")
    if there:
        raise PlanError(
            f"{folder} holds {' and '.join(there)} already; a key is never overwritten. Take another folder, or remove "
            "these files and give every other party the new public key"
        )
    content = identity.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The private key first: a public file without one would be given to others for nothing.
    _write_new(folder / IDENTITY, content, 0o600)
    public = folder / f"{party}.pub"
    _write_new(public, written_public(party, public_bytes(identity)), 0o644)
    return public


def check_folder(folder: Path) -> None:
    """Checks that a folder is there and that nobody else can put other files into it.

    Raises:
        PlanError: It is not, or somebody can.
    """
    _check_system()
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise PlanError(f"{folder} cannot be read: {error.strerror}; 'fedray keys new' makes one") from None
    if not folder.is_dir():
        raise PlanError(f"{folder} is no folder")
    # Who can write into a folder can replace a file in it, whatever the file's own mode.
    if mode & _OTHERS_WRITE:
        raise PlanError(
            f"{folder} has mode {mode:03o}: other users may put files into it. Close it with: chmod go-w {folder}"
        )


def read_identity(folder: Path) -> Ed25519PrivateKey:
    """Returns the identity key of a folder.

    Raises:
        PlanError: It is missing, others may read it, or it is no Ed25519 key. Nothing of it is quoted.
    """
    path = folder / IDENTITY
    content = _read(path, _OTHERS, f"chmod 600 {path}")
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError):  # its own message could quote what it found
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PlanError(f"{path} is no Ed25519 private key in PEM; make one with 'fedray keys new'")
    return key


def read_roster(path: Path) -> Roster:
    """Returns the roster in a file.

    Raises:
        PlanError: It is missing, others may write it, or it is no roster.
    """
    keys = _record(path, "roster").get("parties")
    if not isinstance(keys, dict):
        raise PlanError(f"{path} is no roster; make one with 'fedray keys roster'")
    return Roster.of({name: _public(path, key) for name, key in keys.items()})


def written_roster(keys: Mapping[PartyName, bytes]) -> bytes:
    """Returns the content of a roster's file.

    Raises:
        PlanError: The keys make no roster.
    """
    roster = Roster.of(keys)
    parties = {name: key.hex() for name, key in zip(roster.names, roster.keys, strict=True)}
    return _written({"fedray": "roster", "parties": parties})


def read_public(path: Path) -> tuple[PartyName, bytes]:
    """Returns the party and its public key from a public file.

    Raises:
        PlanError: It is missing, others may write it, or it is no such file.
    """
    record = _record(path, "public key")
    name = record.get("party")
    if not isinstance(name, str) or not name:
        raise PlanError(f"{path} names no party; take the file that 'fedray keys new' wrote")
    return name, _public(path, record.get("key"))


def written_public(party: PartyName, key: bytes) -> bytes:
    """Returns the content of a public file."""
    return _written({"fedray": "public key", "party": party, "key": key.hex()})


def read_policy(folder: Path) -> Policy | None:
    """Returns a folder's policy, or None where it states none.

    Raises:
        PlanError: Others may write it, or it is no policy.
    """
    path = folder / POLICY
    # No policy is a choice; one that cannot be read is an error, since the default might allow what it forbids.
    if not path.exists():
        return None
    text = _text(path)
    try:
        return Policy.of(tomllib.loads(text))
    except (PlanError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path}: {error}") from None


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file that everybody may read, whole or not at all."""
    # In the same folder, since a file can be put in another's place in one step only on one disk.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write_new(beside, content, 0o644)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _check_system() -> None:
    if os.name != "posix":
        raise PlanError("key folders need a system with POSIX file modes, which keep a key from other users")


def _read(path: Path, forbidden: int, remedy: str) -> bytes:
    """Returns a file's content, after a look at the mode of the very file that is read."""
    _check_system()
    try:
        with path.open("rb") as file:
            # Of the open file and not of the path, which could be another file by the time it is opened.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & forbidden:
                may = "read or write" if forbidden == _OTHERS else "write"
                raise PlanError(f"{path} has mode {mode:03o}: other users may {may} it. Close it with: {remedy}")
            return file.read()
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from None


def _text(path: Path) -> str:
    try:
        return _read(path, _OTHERS_WRITE, f"chmod go-w {path}").decode()
    except UnicodeDecodeError:
        raise PlanError(f"{path} is no UTF-8 text") from None


def _record(path: Path, what: str) -> dict[str, Any]:
    text = _text(path)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("fedray") != what:
        raise PlanError(f"{path} is no fedray {what} file")
    return record


def _public(path: Path, text: object) -> bytes:
    try:
        key = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise PlanError(f"{path}: a public key has 64 hexadecimal digits, found something else")
    return key


def _written(record: Mapping[str, Any]) -> bytes:
    # For people to read: they compare these files, and names may be in any script.
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def _write_new(path: Path, content: bytes, mode: int) -> None:
    # O_EXCL: never into a file, or through a link, that somebody else has put there. The mode is given here, so that a
    # key is at no moment open to others.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask says
        file.write(content)
        file.flush()
        # On the disk before anybody is told of it: a key that is lost in a power cut is lost for good.
        os.fsync(descriptor)
