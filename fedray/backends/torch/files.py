# SPDX-License-Identifier: Apache-2.0
"""A PyTorch model's tensors as files: `.pt`, a `state_dict`, and `.safetensors`. Runs no code of a file.

Works on the modules and objects it is handed; imports no framework.
"""

from __future__ import annotations

import io
import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fedray.backends.torch.start import check_installed
from fedray.errors import DataError

_RATE = "learning_rate"
_HEADER = 8
"""Bytes at the start of a `.safetensors` file that say how long its header is."""


def written(torch: Any, module: Any, values: Mapping[int, Any], ending: str, rate: float | None) -> bytes:
    """Returns the content of a file.

    The learning rate travels beside the tensors, where `load_state_dict` does not look for any.

    Args:
        torch: The torch module.
        module: The model; its own `state_dict` says which names there are.
        values: What stands in the place of some of its tensors, by `id` of the tensor.
        ending: `".pt"` or `".safetensors"`.
        rate: Of the optimizer; None where that follows a schedule.
    """
    found = module.state_dict(keep_vars=True)
    state = OrderedDict(
        (name, values.get(id(value), value).detach().to("cpu", copy=True).contiguous())
        for name, value in found.items()
        if isinstance(value, torch.Tensor)
    )
    if ending == ".safetensors":
        check_installed("safetensors")
        from safetensors.torch import save

        return _ordered(bytes(save(state, {"format": "pt"} | ({} if rate is None else {_RATE: repr(rate)}))))
    state._metadata = found._metadata  # type: ignore[attr-defined]  # the versions of its layers, as PyTorch writes them
    if rate is not None:
        state._metadata[""] = {**state._metadata.get("", {}), _RATE: rate}  # type: ignore[attr-defined]
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def read(torch: Any, content: bytes, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], float | None]:
    """Returns the tensors of a file by name, and its learning rate; nothing in it is run.

    Args:
        torch: The torch module.
        content: Of a `.pt` or `.safetensors` file.
        tensors: The model's, whose names and shapes the file has to have.

    Raises:
        DataError: It holds another model, or is something else.
    """
    try:
        state, rate = _zipped(torch, content) if content[:2] == b"PK" else _safe(content)
        if not isinstance(state, Mapping):
            raise ValueError("no names")
        found = {name: state[name] for name in tensors}
        if any(_form(found[name]) != _form(tensor) for name, tensor in tensors.items()):
            raise ValueError("shapes or kinds of numbers differ")
    except Exception as error:  # of many kinds, from three libraries
        names = ", ".join(tensors)
        raise DataError(f"the file does not hold the weights of this model ({names})") from error
    return found, rate


def _zipped(torch: Any, content: bytes) -> tuple[Mapping[str, Any], float | None]:
    # weights_only: PyTorch makes tensors and plain containers of it, and refuses everything else.
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state, _rate(getattr(state, "_metadata", {}).get("", {}))


def _safe(content: bytes) -> tuple[Mapping[str, Any], float | None]:
    check_installed("safetensors")
    from safetensors.torch import load

    state = load(content)  # which has checked the header
    header = json.loads(content[_HEADER : _HEADER + int.from_bytes(content[:_HEADER], "little")])
    return state, _rate(header.get("__metadata__", {}))


def _ordered(content: bytes) -> bytes:
    """Returns a `.safetensors` file with its header in order: the library writes what it is told beside it in any."""
    stop = _HEADER + int.from_bytes(content[:_HEADER], "little")
    header = json.dumps(json.loads(content[_HEADER:stop]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _HEADER)  # tensors begin at a multiple of eight
    return len(header).to_bytes(_HEADER, "little") + header + content[stop:]


def _form(tensor: Any) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.is_floating_point(), tensor.is_complex()


def _rate(beside: Mapping[str, Any]) -> float | None:
    with suppress(KeyError, TypeError, ValueError):
        rate = float(beside[_RATE])
        return rate if math.isfinite(rate) and rate >= 0 else None
    return None
