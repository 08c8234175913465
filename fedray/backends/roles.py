# SPDX-License-Identifier: Apache-2.0
"""Which tensors stay in their party: the user's patterns against a model's names. Pure; knows no framework."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from fedray.errors import PlanError

_SEPARATORS = re.compile(r"[/.]")
"""What stands between the parts of a name: Keras's `dense/kernel`, PyTorch's `dense.weight`."""

NEAR = 3
"""How many names an error about a pattern shows: enough to see a slip, few enough to read."""


def checked_patterns(local: Any) -> tuple[str, ...]:
    """Returns the patterns of `FLModel(local=...)`.

    Raises:
        PlanError: Something else than a list of texts.
    """
    if isinstance(local, str):
        raise PlanError(f"local: expected a list of patterns, found one text; write local=[{local!r}]")
    if not isinstance(local, Sequence) or not all(isinstance(pattern, str) and pattern for pattern in local):
        raise PlanError(f"local: expected a list of patterns like 'head/*', found {local!r}")
    return tuple(local)


def local_names(patterns: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    """Returns which of a model's tensors the patterns keep in their party.

    A pattern is `fnmatch`'s, case and all, against the whole name; `*` stands for any text, slashes as well. A name
    counts as beginning with a slash where that helps, so that `"*/batch_normalization*"` means layers at every depth.

    Args:
        patterns: What the user wrote.
        names: Names of the model's tensors, without the model's own.

    Raises:
        PlanError: A pattern matches nothing.
    """
    kept: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(f"/{name}", pattern)}
        if not found:
            near = _near(pattern, names)
            said = "Did you mean" if near else "Its tensors are"
            shown = ", ".join(map(repr, near or names[:NEAR])) + ("" if near or len(names) <= NEAR else ", ...")
            raise PlanError(
                f"local: pattern {pattern!r} matches none of the model's {len(names)} tensors. {said} {shown}"
                f"{'?' if near else ''}"
            )
        kept |= found
    return frozenset(kept)


def check_something_is_shared(names: Sequence[str], local: Sequence[str]) -> None:
    """Refuses a model of which nothing is left to sum.

    Args:
        names: Names of the shared tensors.
        local: Names of the local ones.

    Raises:
        PlanError: No tensor is shared.
    """
    if names:
        return
    if local:
        raise PlanError(
            f"local: the patterns keep all {len(local)} tensors that training changes in their party, and nothing is "
            "left to sum; leave at least one out"
        )
    raise PlanError("model: expected at least one weight to train, found none; leave a layer trainable")


def _near(pattern: str, names: Sequence[str]) -> list[str]:
    """Returns a few names that look like a pattern, or of which a layer does."""
    bare = "".join(letter for letter in pattern if letter not in "*?[]!").strip("/.")
    parts = {name: (name, *_SEPARATORS.split(name)) for name in names}
    pieces = sorted({piece for found in parts.values() for piece in found})
    near: list[str] = []
    for piece in get_close_matches(bare, pieces, n=NEAR):  # the closest first
        near += [name for name in names if piece in parts[name] and name not in near]
    return near[:NEAR]
