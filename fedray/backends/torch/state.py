# SPDX-License-Identifier: Apache-2.0
"""Local state of a PyTorch model: what stays with the party beside the shared tensors. Imports no framework."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fedray.backends.torch.flat import FlatTensors


def private_tensors(torch: Any, module: Any, flat: FlatTensors) -> list[Any]:
    """Returns the tensors that a step may change and that are neither summed nor frozen.

    Those are local ones, buffers of integers, and buffers that `state_dict` leaves out.

    Args:
        torch: The torch module.
        module: The model's module.
        flat: Its shared, frozen and local tensors.
    """
    others = {id(tensor) for tensor in (*flat.variables, *flat.frozen.values())}
    every = {id(t): t for t in (*flat.named.values(), *module.buffers()) if isinstance(t, torch.Tensor)}
    return [tensor for place, tensor in every.items() if place not in others]


def values(tensors: Sequence[Any]) -> list[Any]:
    """Returns the values of tensors, in memory of their own."""
    return [tensor.detach().clone() for tensor in tensors]


def set_values(torch: Any, tensors: Sequence[Any], kept: Sequence[Any]) -> None:
    """Puts back what `values` returned.

    Args:
        torch: The torch module.
        tensors: The tensors.
        kept: Their values.
    """
    with torch.no_grad():
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.copy_(value)


@contextmanager
def buffers_kept(torch: Any, module: Any) -> Iterator[None]:
    """Leaves all buffers of a module as they were, and its mode."""
    buffers, training = list(module.buffers()), module.training
    kept = values(buffers)
    try:
        yield
    finally:
        set_values(torch, buffers, kept)
        module.train(training)


def optimizer_state(optimizer: Any) -> dict[Any, dict[str, Any]]:
    """Returns what an optimizer remembers of each parameter, in memory of its own."""
    return {parameter: _copied(state) for parameter, state in optimizer.state.items()}


def set_optimizer_state(optimizer: Any, state: Mapping[Any, Mapping[str, Any]]) -> None:
    """Puts back what `optimizer_state` returned."""
    optimizer.state.clear()
    for parameter, remembered in state.items():
        optimizer.state[parameter] = _copied(remembered)


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.detach().clone() if hasattr(value, "detach") else copy.deepcopy(value)
        for key, value in state.items()
    }
