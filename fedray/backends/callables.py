# SPDX-License-Identifier: Apache-2.0
"""Whether a function that the user hands over can be called as a framework calls it. Imports no framework."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def takes_two(function: Callable[..., Any]) -> bool:
    """Returns whether a function can be called with two arguments; of one that hides it, that it can."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True
