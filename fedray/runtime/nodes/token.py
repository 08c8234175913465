# SPDX-License-Identifier: Apache-2.0
"""The token of a cluster: who has it may run code on every node. A file that only its owner reads."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fedray.errors import PlanError
from fedray.party.keys.own_files import OTHERS, read_own, real_folder

_LEAST = 32  # characters; ours have 64


def made(path: Path) -> None:
    """Makes a token, unless there is one already.

    Raises:
        PlanError: Others may write the folder.
        OSError: It cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    real_folder(path.parent)
    if os.path.lexists(path):
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))  # without a line's end, which not everything that reads it takes off


def check(path: Path) -> None:
    """Checks that there is a token that nobody else reads. Nothing of it is quoted.

    Raises:
        PlanError: It is missing, too short to be one, or open to others.
    """
    try:
        content = read_own(path, OTHERS)
    except FileNotFoundError:
        raise PlanError(
            f"no token at {path}; copy there the file that 'fedray head start' wrote on the head's machine, by a way "
            "that keeps it secret (scp), or name it with --token FILE"
        ) from None
    if len(content.strip()) < _LEAST:
        raise PlanError(f"{path} holds no token: expected {_LEAST} characters or more, found {len(content.strip())}")
