# SPDX-License-Identifier: Apache-2.0
"""Files and folders that nobody but their owner can change: what ssh's StrictModes asks of its keys.

Knows owners, modes and links. Does not know what is in a file. Whoever may write a folder can put another file in the
place of one in it, and whoever may write the folder above, another folder: so all are looked at, up to the root.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePath

from fedray.errors import PlanError

OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Whatever the group and everybody else may do."""

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
"""A file that all may read; but who writes one chooses whom a party trusts."""

_MOST_LINKS = 40  # as the kernel; two that point at each other would be followed for ever


def check_system() -> None:
    """Checks that there are owners and modes to go by.

    Raises:
        PlanError: There are none.
    """
    if os.name != "posix":
        raise PlanError("key folders need a system with POSIX file modes, which keep a key from other users")


def real_folder(folder: Path, remedy: str = "") -> Path:
    """Returns a folder's own path, free of links, in which no other user can put anything else in the place of a part.

    To be used in the place of the path that was given: a link that leads elsewhere tomorrow leads nobody there.

    Args:
        folder: May be relative; itself no link, though folders above it may be.
        remedy: What to do where it is not there, for the error.

    Raises:
        PlanError: It is not there, no folder, or another user could change it, a folder above it or a link on the way.
    """
    check_system()
    parts = folder.absolute().parts
    here, pending, links = Path(parts[0]), list(reversed(parts[1:])), 0
    _check_folder(here, os.lstat(here), last=False)
    while pending:
        part = pending.pop()
        if part == "..":
            here = here.parent  # which has been looked at: `here` holds no link
            continue
        step = here / part
        try:
            found = os.lstat(step)
            target = os.readlink(step) if stat.S_ISLNK(found.st_mode) else ""
        except OSError as error:
            raise PlanError(f"{step} cannot be read: {error.strerror}{remedy and '; '}{remedy}") from None
        if not target:
            _check_folder(step, found, last=not pending)
            here = step
            continue
        links += 1
        if not pending or links > _MOST_LINKS:
            raise PlanError(f"{step} is a link; name the folder that it leads to")
        _check_owner(step, found)
        leads = PurePath(target)
        here = Path(leads.anchor) if leads.is_absolute() else here
        pending += reversed([name for name in leads.parts if name != leads.anchor])
    return here


def open_own(path: Path, flags: int, forbidden: int) -> int:
    """Returns a descriptor of a regular file, after a look at the very file that was opened.

    Args:
        path: No link. Its folder is taken to be one of `real_folder`.
        flags: Of `os.open`; a file that is made is for its owner alone.
        forbidden: What group and others must not be allowed, `OTHERS` or `OTHERS_WRITE`.

    Raises:
        PlanError: It is a link or no regular file, belongs to another user, or others may do what is forbidden.
        OSError: It cannot be opened.
    """
    check_system()
    try:
        # Without waiting: a pipe of that name would keep the party for ever.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise PlanError(f"{path} is a link; put the file itself there") from None
    try:
        # Of the open file and not of the path, which could be another file by the time it is opened.
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise PlanError(f"{path} is no regular file")
        _check_owner(path, found)
        check_mode(path, found, forbidden)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_own(path: Path, forbidden: int) -> bytes:
    """Returns the content of a file that no other user can have written; see `open_own`.

    Raises:
        PlanError: As `open_own`, or it cannot be read.
        FileNotFoundError: There is nothing of that name, not even a link that leads nowhere.
    """
    try:
        with os.fdopen(open_own(path, os.O_RDONLY, forbidden), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from None


def check_mode(path: Path, found: os.stat_result, forbidden: int) -> None:
    """Checks what other users may do with a file.

    Args:
        path: The file, for the error.
        found: What the system says of it.
        forbidden: As in `open_own`.

    Raises:
        PlanError: They may do what is forbidden.
    """
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        may, remedy = ("read or write", "600") if forbidden == OTHERS else ("write", "go-w")
        raise PlanError(f"{path} has mode {mode:03o}: other users may {may} it. Close it with: chmod {remedy} {path}")


def _check_folder(path: Path, found: os.stat_result, *, last: bool) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise PlanError(f"{path} is no folder")
    _check_owner(path, found)
    mode = stat.S_IMODE(found.st_mode)
    # In one with the sticky bit, such as /tmp, a name can be taken away by its owner only, who is looked at next.
    if mode & OTHERS_WRITE and (last or not mode & stat.S_ISVTX):
        raise PlanError(
            f"{path} has mode {mode:03o}: other users may put files into it. Close it with: chmod go-w {path}"
        )


def _check_owner(path: Path, found: os.stat_result) -> None:
    # Root can read and change everything as it is.
    if found.st_uid not in (0, os.geteuid()):
        raise PlanError(
            f"{path} belongs to another user (number {found.st_uid}), who may change it. Make it your own with: "
            f"chown {os.geteuid()} {path}"
        )
