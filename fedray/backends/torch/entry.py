# SPDX-License-Identifier: Apache-2.0
"""What the table of frameworks names: a party's PyTorch model, and the plain module at the driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from fedray.backends.torch import checks, flat, noise, start
from fedray.backends.torch.data import to_tensors
from fedray.backends.torch.model import TorchBackend
from fedray.backends.torch.tasks import called
from fedray.tree import Tree


def make(
    builder: Callable[[], Any], seed: int, noise_seed: int, threads: int, local: Sequence[str], gpus: float
) -> TorchBackend:
    """Returns the backend of one party; see `fedray.backends.make_backend`."""
    return TorchBackend(builder, seed=seed, noise_seed=noise_seed, threads=threads, local=local, gpus=gpus)


def build_at_driver(
    builder: Callable[[], Any],
    weights: Sequence[NDArray[Any]],
    rows: Tree | None = None,
    rate: float | None = None,  # noqa: ARG001 (a module has none)
) -> Any:
    """Returns the builder's module with these weights, in `eval()` mode; see `fedray.backends.build_at_driver`."""
    torch = start.framework()

    module = _built(torch, builder, rows)
    with torch.no_grad():
        for tensor, values in zip(flat.named_tensors(torch, module).values(), weights, strict=True):
            tensor.copy_(torch.from_numpy(values.copy()))
    return module


def describe_at_driver(builder: Callable[[], Any], rows: Tree | None, say: Callable[[str], Any]) -> None:
    """Says PyTorch's own text of the builder's module, and how many parameters it has.

    See `fedray.backends.describe_at_driver`.
    """
    torch = start.framework()
    module = _built(torch, builder, rows)
    say(str(module))
    if checks.waits_for_shape(torch, module):
        say("parameters: known once fit or evaluate has seen the data's shape")
        return
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, grad in sizes if grad)
    say(f"parameters: {total:,}, of which are trained: {trained:,}")


def _built(torch: Any, builder: Callable[[], Any], rows: Tree | None) -> Any:
    """Returns the builder's module in `eval()` mode, with its shapes where a row tells them."""

    def built() -> Any:
        module = checks.as_compiled(torch, builder()).module.eval()
        if rows is not None and checks.waits_for_shape(torch, module):
            with torch.no_grad():
                called(module, to_tensors(torch, rows, torch.device("cpu"), checks.number_type(torch, module)))
        return module

    return noise.seeded(torch, 0, built)
