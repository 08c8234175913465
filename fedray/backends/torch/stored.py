# SPDX-License-Identifier: Apache-2.0
"""Local state of a PyTorch model as plain values, for a file, and back. Imports no framework.

A tensor becomes its array, a parameter its number in the optimizer. A scheduler is not written down, since it may hold
functions: it goes from its start to where it was, by the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedray.errors import DataError

_TENSOR = "torch tensor"


def plain(value: Any) -> Any:
    """Returns a value with arrays in the place of tensors, marked as such.

    Raises:
        DataError: A tensor is of a type that NumPy does not have.
    """
    if hasattr(value, "detach"):
        try:
            return {_TENSOR: np.array(value.detach().cpu().numpy())}
        except TypeError as error:
            raise DataError(
                f"a tensor of {value.dtype} cannot be kept: expected numbers of NumPy's own types"
            ) from error
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(one) for one in value) if type(value) in (list, tuple) else tuple(map(plain, value))
    return value


def with_tensors(torch: Any, value: Any, device: Any) -> Any:
    """Returns what `plain` was given; tensors are on a device.

    Args:
        torch: The torch module.
        value: What `plain` returned.
        device: Where tensors are put, but for the states of generators.
    """
    if isinstance(value, Mapping):
        if value.keys() == {_TENSOR}:
            made = torch.from_numpy(np.array(value[_TENSOR]))
            return made if made.dtype == torch.uint8 else made.to(device)
        return {key: with_tensors(torch, one, device) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(with_tensors(torch, one, device) for one in value)
    return value


def by_number(optimizer: Any, state: Mapping[Any, Any]) -> dict[int, Any]:
    """Returns what an optimizer remembers, by the number of the parameter.

    Args:
        optimizer: The optimizer.
        state: Parameter -> what it remembers of it.
    """
    return {number: state[one] for number, one in enumerate(_parameters(optimizer)) if one in state}


def by_parameter(optimizer: Any, numbered: Mapping[int, Any]) -> dict[Any, Any]:
    """Returns what `by_number` was given.

    Raises:
        DataError: The optimizer has fewer parameters.
    """
    parameters = _parameters(optimizer)
    if any(number >= len(parameters) for number in numbered):
        raise DataError("the state that was kept is of another model: its optimizer has other parameters")
    return {parameters[number]: state for number, state in numbered.items()}


def _parameters(optimizer: Any) -> list[Any]:
    return [one for group in optimizer.param_groups for one in group["params"]]
