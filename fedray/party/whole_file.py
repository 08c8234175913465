# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all, also after a power cut. Knows nothing of what is in them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fedray.errors import PlanError


def replace_file(path: str | os.PathLike[str], content: bytes, mode: int | None = None) -> None:
    """Puts a file in the place of the one of that name, if there is one, in one step.

    Args:
        path: The file. A link is followed: what it leads to is replaced.
        content: What is to be in it.
        mode: Who may do what with it; None for what the umask says.

    Raises:
        PlanError: There is something of that name that is no file.
        OSError: It cannot be written; what was there is as it was.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():  # a pipe or a device would be lost, and be a file from then on
        raise PlanError(f"{path} is no file; name one, or a new one")
    # In the same folder, since a file can be put in another's place in one step only on one disk; under a name of its
    # own, since two may be writing.
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        write_new(beside, content, mode)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    settle(target.parent)


def write_new(path: Path, content: bytes, mode: int | None) -> None:
    """Writes a file that is not there yet, and has it on the disk.

    Args:
        path: The file.
        content: What is to be in it.
        mode: As in `replace_file`.

    Raises:
        OSError: It is there already, or cannot be written.
    """
    # O_EXCL: never into a file, or through a link, that somebody else has put there. The mode is given here, so that a
    # key is at no moment open to others.
    asked = 0o666 if mode is None else mode
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, asked)
    with os.fdopen(descriptor, "wb") as file:
        if mode is not None:
            os.fchmod(descriptor, mode)  # whatever the umask says
        file.write(content)
        file.flush()
        # On the disk before anybody is told of it, and before it takes another's place: a key that is lost in a power
        # cut is lost for good.
        os.fsync(descriptor)


def why(error: Exception) -> str:
    """Returns why something could not be written, in words and without its path."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def settle(folder: Path) -> None:
    """Puts the names in a folder on the disk, so that a new file is still there after a power cut."""
    if os.name != "posix":  # where a folder cannot be opened, the system sees to it
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
