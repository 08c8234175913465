# SPDX-License-Identifier: Apache-2.0
"""What a run's record says of its model and machine: settings that decide the result, and versions beside them."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fedray.security.aggregation import Aggregator
from fedray.strategies import Strategy

_PACKAGES = {"tensorflow": ("tensorflow", "keras"), "torch": ("torch", "torchmetrics"), "numpy": ()}


def described(
    aggregator: Aggregator,
    backend: str,
    strategy: Strategy,
    local: Sequence[str],
    local_metrics: bool,
    seed: int | None,
) -> dict[str, Any]:
    """Returns what a model was made with, as plain JSON.

    Args:
        aggregator: How its updates are summed.
        backend: Name of the framework.
        strategy: Its strategy.
        local: Patterns for tensors that stay in their party.
        local_metrics: Whether parties' own metrics come to the driver.
        seed: The seed that it was given, or None.
    """
    return {
        "parties": [one.name for one in aggregator.participants],
        "server": aggregator.server.name,
        "aggregator": type(aggregator).__name__,
        "on_dropout": getattr(aggregator, "on_dropout", None),
        "backend": backend,
        "strategy": {"name": strategy.name, **strategy.parameters},
        "local": list(local),
        "local_metrics": local_metrics,
        "random_seed of the model": seed,
    }


def versions(backend: str) -> dict[str, Any]:
    """Returns what is recorded beside an experiment: with other ones a result need not be the same bits.

    Args:
        backend: Name of the framework.
    """
    names = ("fedray", "numpy", *_PACKAGES.get(backend, ()))
    found = {name: _version(name) for name in names}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
