# SPDX-License-Identifier: Apache-2.0
"""Checkpoints by their numbers: what their files are called, and which of them may go. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_NAME = re.compile(r"([0-9]{6})\.json")


def name_of(number: int) -> str:
    """Returns the name of a checkpoint's files, without an ending."""
    return f"{number:06d}"


def numbers_of(names: Iterable[str]) -> list[int]:
    """Returns the numbers of the checkpoints that have files of these names, in order, whole or not."""
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def removable(numbers: Collection[int], stay: Collection[int]) -> list[int]:
    """Returns which checkpoints may be removed: those below the newest that stays, and none that stays.

    Args:
        numbers: What there is.
        stay: Which ones stay.
    """
    newest = max(stay, default=0)
    return sorted(number for number in numbers if number < newest and number not in stay)
