# SPDX-License-Identifier: Apache-2.0
"""PyTorch as it starts in a party: the only file that imports it and torchmetrics, when the first model is made."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from fedray.backends.collector import uncollected
from fedray.backends.generators import BUILDING, generators_kept
from fedray.errors import PlanError

INSTALL = "pip install 'fedray[torch]'"


def framework() -> Any:
    """Returns the torch module.

    Raises:
        PlanError: It is not installed here.
    """
    check_installed("torch")
    with BUILDING, generators_kept(), uncollected("torch"):
        import torch
    return torch


def metric_class() -> Any:
    """Returns `torchmetrics.Metric`.

    Raises:
        PlanError: It is not installed here.
    """
    check_installed("torchmetrics")
    with BUILDING, generators_kept():
        import torchmetrics
    return torchmetrics.Metric


def check_installed(name: str) -> None:
    """Refuses to go on without a package of the extra.

    Args:
        name: Of the package.

    Raises:
        PlanError: It is not installed where this runs.
    """
    if find_spec(name) is None:
        raise PlanError(f"backend 'torch': the package {name} is not installed where this runs; install it: {INSTALL}")


def device_of(torch: Any, gpus: float) -> Any:
    """Returns where a party computes: on a GPU where its resources say so, else on the CPU.

    Args:
        torch: The torch module.
        gpus: How many GPUs the party asks for; of a part of one, it takes that part of the memory and no more.

    Raises:
        PlanError: It asks for one, and there is none.
    """
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise PlanError(
            f"resources: the party asks for {gpus:g} GPU, and PyTorch finds none where it runs; install a build of "
            "PyTorch for this GPU, or leave GPU out of the party's resources"
        )
    device = torch.device("cuda", 0)  # the first of those that Ray lets this process see
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus, device)
    return device
