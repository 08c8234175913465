# SPDX-License-Identifier: Apache-2.0
"""The names that users import, given out where PyTorch is installed. Imports it for `BaseModule` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedray.backends.torch import compiled
from fedray.backends.torch.start import check_installed, framework


def offered(module: str, name: str, names: Sequence[str]) -> Any:
    """Returns what a public module offers under a name.

    Args:
        module: Its full name.
        name: What is asked for.
        names: What it offers.

    Raises:
        PlanError: PyTorch is not installed.
        AttributeError: It offers no such name.
    """
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}; it offers {', '.join(names)}")
    check_installed("torch")
    if name == "BaseModule":
        # Modules need nothing of fedray's; the name is there for programs that derive from it.
        return framework().nn.Module
    return getattr(compiled, name)
