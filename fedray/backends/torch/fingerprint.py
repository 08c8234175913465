# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch model is, in one hash: equal where the same model is trained. Works on the objects it is handed."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedray.backends.torch.compiled import Compiled

_PLACE = re.compile(r" at 0x[0-9a-f]+")
"""Where an object lies in memory, which differs from process to process."""


def settings(torch: Any, compiled: Compiled, names: Mapping[int, str]) -> Any:
    """Returns what a model was made with, as plain data; taken once, before a learning rate is set.

    Args:
        torch: The torch module.
        compiled: The model.
        names: `id` of each parameter -> its name.
    """
    groups = [
        {key: _plain(torch, value) for key, value in group.items() if key != "params"}
        | {"params": [names.get(id(parameter), "") for parameter in group["params"]]}
        for group in compiled.optimizer.param_groups
    ]
    metrics = compiled.metrics
    return {
        "module": [_PLACE.sub("", repr(compiled.module)), _parts(torch, compiled.module)],
        "loss": _plain(torch, compiled.loss),
        "optimizer": [type(compiled.optimizer).__qualname__, groups],
        "metrics": _plain(torch, dict(metrics) if isinstance(metrics, Mapping) else list(metrics)),
        "scheduler": _plain(torch, compiled.scheduler),
        "max_grad_norm": compiled.max_grad_norm,
        "compile": compiled.compile,
    }


def fingerprint(made_with: Any, spec: object, frozen: Mapping[str, str]) -> bytes:
    """Returns SHA-256 over settings, roles and the values of frozen tensors.

    Args:
        made_with: What `settings` returned.
        spec: The tensors and their roles.
        frozen: Frozen tensor -> hash of its values.
    """
    text = json.dumps({"model": made_with, "spec": repr(spec), "frozen": dict(frozen)}, sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


def _plain(torch: Any, value: Any) -> Any:
    """Returns a setting as plain data: numbers and text as they are, tensors by hash, anything else by its class."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value) if isinstance(value, float) else value
    if isinstance(value, torch.Tensor):
        array = np.ascontiguousarray(value.detach().double().cpu().numpy())
        return [list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(key): _plain(torch, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(torch, one) for one in value]
    if isinstance(value, functools.partial):
        return [_plain(torch, value.func), _plain(torch, value.args), _plain(torch, value.keywords)]
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    if isinstance(value, torch.nn.Module):
        return [_parts(torch, value), {name: _plain(torch, one) for name, one in value.named_buffers()}]
    return [type(value).__qualname__, _attributes(torch, value)]


def _parts(torch: Any, module: Any) -> dict[str, Any]:
    """Returns class and settings of a module and of all inside it; not its tensors, which have roles of their own."""
    return {name: [type(part).__qualname__, _attributes(torch, part)] for name, part in module.named_modules()}


def _attributes(torch: Any, value: Any) -> dict[str, Any]:
    plain = (bool, int, float, str, list, tuple)
    found = getattr(value, "__dict__", {}).items()
    return {n: _plain(torch, one) for n, one in found if not n.startswith("_") and isinstance(one, plain)}
