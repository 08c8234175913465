# SPDX-License-Identifier: Apache-2.0
"""Checkpoint: where and how often a run is kept, as the user says it. Pure."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedray.errors import PlanError

_EVERY = re.compile(r"([1-9][0-9]*) ?(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}

ROUNDS_BY_TIME = 10
"""So many rounds are run between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where `fit` keeps a run, so that one that was killed goes on where it was.

    Attributes:
        path: A folder at the driver; each run has a subfolder.
        every: `"epoch"`, a number of rounds, or a time such as `"10min"`, `"90s"` or `"2h"`.
        keep: So many checkpoints stay that everybody has, once there have been so many. While a fit runs there are up
            to two more, since parties answer one later, and as many again while a party is lost. When it has ended, or
            was interrupted while all parties were there, there are no more, but for newer ones that somebody could not
            write.
        parts: Folder in which parties keep their own parts, on their machines, an absolute path; None for `parties` in
            `path`. One whose operator says where, by `party.toml` or a key folder, keeps its part there.

    Raises:
        PlanError: An argument cannot work.

    Example:
        >>> sf.Checkpoint("runs/mnist", every="10min").seconds
        600
    """

    path: str | os.PathLike[str]
    every: str | int = "epoch"
    keep: int = 2
    parts: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise PlanError(f"checkpoint: path: expected the path of a folder, found {self.path!r}")
        whole = isinstance(self.every, int) and not isinstance(self.every, bool) and self.every >= 1
        timed = isinstance(self.every, str) and (self.every == "epoch" or _EVERY.fullmatch(self.every))
        if not whole and not timed:
            raise PlanError(
                f"checkpoint: every: expected 'epoch', a number of rounds from 1 on, or a time such as '10min', found "
                f"{self.every!r}"
            )
        if not isinstance(self.keep, int) or isinstance(self.keep, bool) or self.keep < 1:
            raise PlanError(f"checkpoint: keep: expected a number of checkpoints from 1 on, found {self.keep!r}")
        if self.parts is not None and not os.fspath(self.parts).startswith(("/", "~")):
            raise PlanError(
                f"checkpoint: parts: expected an absolute path on the parties' machines, or one below a home (~), "
                f"found {self.parts!r}"
            )

    @property
    def rounds(self) -> int:
        """Rounds after which the driver has to be asked; 0 where epochs are enough."""
        if isinstance(self.every, int):
            return self.every
        return 0 if self.every == "epoch" else ROUNDS_BY_TIME

    @property
    def seconds(self) -> int | None:
        """Seconds between two checkpoints; None where time does not count."""
        match = None if isinstance(self.every, int) else _EVERY.fullmatch(self.every)
        return None if match is None else int(match[1]) * _SECONDS[match[2]]

    @property
    def named(self) -> str:
        """Folder for the parts of parties without one of their own."""
        return os.path.join(os.path.abspath(self.path), "parties") if self.parts is None else os.fspath(self.parts)


Resume: TypeAlias = bool | Literal["must"]
"""As `fit` is given it: whether an unfinished run goes on, or must."""


def check_arguments(checkpoint: object, resume: object) -> None:
    """Checks what `fit` was given.

    Args:
        checkpoint: As `fit` was given it.
        resume: As `fit` was given it.

    Raises:
        PlanError: One of them cannot work.
    """
    if resume not in (True, False, "must"):
        raise PlanError(f"resume: expected True, False or 'must', found {resume!r}")
    if checkpoint is None:
        if resume == "must":
            raise PlanError("resume='must': expected checkpoint=sf.Checkpoint(folder) beside it, found none")
    elif not isinstance(checkpoint, Checkpoint):
        raise PlanError(f"checkpoint: expected sf.Checkpoint(folder), found {type(checkpoint).__name__}")
