# SPDX-License-Identifier: Apache-2.0
"""Models for `FLModel(backend="torch")`: `Compiled`, what a function that builds one returns. Imports no PyTorch."""

from __future__ import annotations

from typing import Any

from fedray.backends.torch import words


def __getattr__(name: str) -> Any:
    """Returns `Compiled`, where PyTorch is installed.

    Raises:
        PlanError: It is not; the message has the line that installs it.
        AttributeError: There is no such name here.
    """
    return words.offered(__name__, name, ("Compiled",))
