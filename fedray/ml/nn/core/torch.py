# SPDX-License-Identifier: Apache-2.0
"""A PyTorch model in pieces: `BaseModule`, `TorchModel`, `metric_wrapper`, `optim_wrapper`. Imports none itself."""

from __future__ import annotations

from typing import Any

from fedray.backends.torch import words


def __getattr__(name: str) -> Any:
    """Returns one of the four, where PyTorch is installed.

    Raises:
        PlanError: It is not; the message has the line that installs it.
        AttributeError: There is no such name here.
    """
    return words.offered(__name__, name, ("BaseModule", "TorchModel", "metric_wrapper", "optim_wrapper"))
