# SPDX-License-Identifier: Apache-2.0
"""A party's own folder: its identity key, the others' public keys, its policy, its memory of models.

The folder lies on the party's machine and is read inside the party; the driver knows its path at most. Knows how the
files are written down and who may read them. Does not know what keys and policies are for.
"""

from __future__ import annotations

import json
import os
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
from fedray.party.door.commitment import KEY_BYTES
from fedray.party.keys.own_files import OTHERS, OTHERS_WRITE, check_mode, check_system, read_own, real_folder
from fedray.party.whole_file import settle, write_new
from fedray.protocol.crypto.keys import Roster, generate_identity, public_bytes
from fedray.protocol.crypto.names import check_name
from fedray.protocol.policy import Policy
from fedray.types import PartyName

IDENTITY = "identity.key"
ROSTER = "roster.json"
POLICY = "policy.toml"
MODELS = "models.log"
LEDGERS = "ledger"
REPLAY = "replay.key"
"""The files of a folder. The public key lies in NAME.pub beside them, to be given to the others."""


def new_identity(folder: Path, party: PartyName) -> Path:
    """Makes a party's identity key, readable by its owner only, and writes its public half beside it.

    Returns:
        Path of the public file.

    Raises:
        PlanError: The folder holds a key already, other users could change it, or the name is none.
        OSError: The files cannot be written.
    """
    check_name(party)
    check_system()
    _make(folder)
    # Before the key is made: in a folder that others may change it would be refused by the party.
    folder = real_folder(folder)
    identity = generate_identity()
    there = sorted(path.name for path in folder.iterdir() if path.name == IDENTITY or path.suffix == ".pub")
    if there:
        raise PlanError(
            f"{folder} holds {' and '.join(there)} already; a key is never overwritten. Take another folder, or remove "
            "these files and give every other party the new public key"
        )
    content = identity.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The private key first: a public file without one would be given to others for nothing.
    write_new(folder / IDENTITY, content, 0o600)
    public = folder / f"{party}.pub"
    write_new(public, written_public(party, public_bytes(identity)), 0o644)
    return public


_LOST = (
    "put it back from your backup. With a new one ('fedray keys new', in another folder) this party is another one to "
    "all others, who have to build their rosters anew"
)


def read_identity(folder: Path) -> Ed25519PrivateKey:
    """Returns the identity key of a folder.

    Raises:
        PlanError: It is missing, others may read it, or it is no Ed25519 key. Nothing of it is quoted.
    """
    path = folder / IDENTITY
    try:
        content = read_own(path, OTHERS)
    except FileNotFoundError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}; {_LOST}") from None
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError):  # its own message could quote what it found
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PlanError(f"{path} is no Ed25519 private key in PEM; {_LOST}")
    return key


def read_roster(path: Path) -> Roster:
    """Returns the roster in a file.

    Raises:
        PlanError: It is missing, others may write it, or it is no roster.
    """
    keys = _record(path, _read(path, OTHERS_WRITE), "roster").get("parties")
    if not isinstance(keys, dict):
        raise PlanError(f"{path} is no roster; make one with 'fedray keys roster'")
    found = {name: _public(path, key) for name, key in keys.items()}
    try:
        return Roster.of(found)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from None


def written_roster(keys: Mapping[PartyName, bytes]) -> bytes:
    """Returns the content of a roster's file.

    Raises:
        PlanError: The keys make no roster.
    """
    roster = Roster.of(keys)
    parties = {name: key.hex() for name, key in zip(roster.names, roster.keys, strict=True)}
    return _written({"fedray": "roster", "parties": parties})


def read_public(path: Path, *, own: bool = False) -> tuple[PartyName, bytes]:
    """Returns the party and its public key from a public file.

    Args:
        path: The file. One that came from another party may be another user's, and a link.
        own: Whether it is of the reader's own key folder, and so neither.

    Raises:
        PlanError: It is missing, others than its owner may write it, or it is no such file.
    """
    record = _record(path, _read(path, OTHERS_WRITE) if own else _given(path), "public key")
    # Somebody else has written it: a name that turns the line of a terminal round would show their fingerprint beside
    # a name that is not theirs.
    try:
        check_name(record.get("party"))
    except PlanError as error:
        raise PlanError(f"{path}: {error}; take the file that 'fedray keys new' wrote") from None
    return record["party"], _public(path, record.get("key"))


def replay_key(folder: Path) -> bytes:
    """Returns the key that commitments to contributions are made with, 32 bytes; it is made where there is none.

    Args:
        folder: One of `real_folder`, for this process alone.

    Raises:
        PlanError: Others may read it, it is a link, or it is none.
        OSError: It cannot be written.
    """
    path = folder / REPLAY
    try:
        key = read_own(path, OTHERS)
    except FileNotFoundError:
        key = os.urandom(KEY_BYTES)
        write_new(path, key, 0o600)
        settle(folder)
    if len(key) != KEY_BYTES:
        raise PlanError(
            f"{path} is no key: expected {KEY_BYTES} bytes, found {len(key)}. Restore it; with another one no "
            "commitment to a past contribution can be opened"
        )
    return key


def written_public(party: PartyName, key: bytes) -> bytes:
    """Returns the content of a public file."""
    return _written({"fedray": "public key", "party": party, "key": key.hex()})


def read_policy(folder: Path) -> Policy | None:
    """Returns a folder's policy, or None where it states none.

    Raises:
        PlanError: Others may write it, or it is no policy.
    """
    path = folder / POLICY
    try:
        text = _text(path, read_own(path, OTHERS_WRITE))
    except FileNotFoundError:
        # No policy is a choice; one that cannot be read is an error, since the default might allow what it forbids. A
        # link that leads nowhere is there, and is refused as every link.
        return None
    try:
        return Policy.of(tomllib.loads(text))
    except (PlanError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path}: {error}") from None


def _read(path: Path, forbidden: int) -> bytes:
    """Returns the content of a file that has to be there."""
    try:
        return read_own(path, forbidden)
    except FileNotFoundError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from None


def _given(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            check_mode(path, os.fstat(file.fileno()), OTHERS_WRITE)
            return file.read()
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from None


def _make(folder: Path) -> None:
    """Makes a folder for its owner, and those above it that are missing, whatever the umask says."""
    for missing in reversed([each for each in folder.absolute().parents if not os.path.lexists(each)]):
        missing.mkdir()
        missing.chmod(0o755)
    folder.mkdir(mode=0o700, exist_ok=True)


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise PlanError(f"{path} is no UTF-8 text") from None


def _record(path: Path, content: bytes, what: str) -> dict[str, Any]:
    text = _text(path, content)
    try:
        record = json.loads(text, object_pairs_hook=_once)
    except _Repeated as repeated:
        raise PlanError(f"{path} holds {repeated} twice; only one of the two can be right") from None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("fedray") != what:
        raise PlanError(f"{path} is no fedray {what} file")
    return record


class _Repeated(Exception):  # noqa: N818 (becomes an error where the file's name is known)
    """A name that stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON takes the last of two equal names and says nothing, where a reader has compared the first.
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise _Repeated(ascii(name))
        record[name] = value
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
