# SPDX-License-Identifier: Apache-2.0
"""One thing that is kept: NAME.safetensors with its arrays, then NAME.json with all else and the hash of both.

The second is the mark that the first is whole, and is written last; each is put there in one step. A file that was cut
off, altered or left over does not fit its hash, and is refused. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedray.errors import DataError
from fedray.party.kept.nest import NamedArrays, put_together
from fedray.party.whole_file import replace_file

VERSION = 1

OWN = 0o600  # what a party keeps is made of its rows


def write(
    folder: Path, name: str, what: str, record: Mapping[str, Any], content: tuple[Any, NamedArrays] | None = None
) -> None:
    """Writes one thing for good; what was there under that name is replaced, or stays as it was.

    Args:
        folder: Where; it is there.
        name: Its name, without an ending.
        what: What it is, in words; whoever reads it says what is expected.
        record: Plain JSON, for people and for who reads nothing else.
        content: A value that `fedray.party.kept.nest` has taken apart; None for nothing.

    Raises:
        OSError: It cannot be written.
    """
    said: dict[str, Any] = {"fedray": what, "version": VERSION, "record": dict(record)}
    if content is not None:
        from safetensors.numpy import save

        tensors = save(content[1])
        said |= {"content": content[0], "arrays": hashlib.sha256(tensors).hexdigest()}
        replace_file(folder / f"{name}.safetensors", tensors, OWN)
    written = json.dumps(said | {"mark": _mark(said)}, indent=1, ensure_ascii=True, allow_nan=False).encode()
    replace_file(folder / f"{name}.json", written + b"\n", OWN)


def read_record(folder: Path, name: str, what: str) -> dict[str, Any]:
    """Returns the record of one thing, without a look at its arrays.

    Args:
        folder: Where.
        name: As in `write`.
        what: What it has to be.

    Raises:
        DataError: It is damaged, or something else.
        OSError: It cannot be read.
    """
    record: dict[str, Any] = _read(folder / f"{name}.json", what)["record"]
    return record


def read(folder: Path, name: str, what: str) -> tuple[dict[str, Any], Any]:
    """Returns record and content of one thing; see `read_record`.

    Raises:
        DataError: It is damaged, or something else.
        OSError: It cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    said = _read(folder / f"{name}.json", what)
    path = folder / f"{name}.safetensors"
    tensors = path.read_bytes()
    if hashlib.sha256(tensors).hexdigest() != said["arrays"]:
        raise _damaged(path)
    try:
        # Copied: the arrays are views of read-only bytes.
        arrays = {key: np.array(array) for key, array in load(tensors).items()}
    except SafetensorError as error:
        raise _damaged(path) from error
    return said["record"], put_together(said["content"], arrays)


def remove(folder: Path, name: str) -> None:
    """Removes one thing, if it is there; its mark first, so that what is left is nothing.

    Raises:
        OSError: It cannot be removed.
    """
    for ending in ("json", "safetensors"):
        (folder / f"{name}.{ending}").unlink(missing_ok=True)


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        said = json.loads(path.read_bytes())
        mark = said.pop("mark")
        whole = mark == _mark(said)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise _damaged(path) from None
    if not whole:
        raise _damaged(path)
    found: dict[str, Any] = said
    if (found.get("fedray"), found.get("version")) != (what, VERSION):
        raise DataError(
            f"{path}: expected a {what} of version {VERSION}, found {found.get('fedray')!r} of version "
            f"{found.get('version')!r}; read it with the version of fedray that wrote it"
        )
    return found


def _mark(said: Mapping[str, Any]) -> str:
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged: it was cut off or altered; remove it, or restore it from a backup")
