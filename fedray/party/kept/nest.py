# SPDX-License-Identifier: Apache-2.0
"""Plain values, taken apart into JSON and arrays, and put together again bit by bit. Pure.

Plain are None, truth values, numbers, text, bytes, arrays of numbers, and lists, tuples and dicts of such. Nothing
else is written: reading runs no code, whatever a file says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError

NamedArrays: TypeAlias = dict[str, NDArray[Any]]
"""Name of an array -> it, of at least one axis."""

_KINDS = "biuf"  # complex numbers and text have no place in safetensors


def taken_apart(value: Any) -> tuple[Any, NamedArrays]:
    """Returns what stands for a value in JSON, and the arrays that it names.

    Raises:
        DataError: Something in it is not plain.
    """
    arrays: NamedArrays = {}
    return _plain(value, arrays), arrays


def put_together(plain: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Returns the value that `taken_apart` took apart; its arrays are those that are handed over.

    Args:
        plain: What stands for it.
        arrays: Name -> array.

    Raises:
        DataError: It is none of that.
    """
    try:
        return _whole(plain, arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError("expected what fedray writes for a plain value, found something else") from error


def _plain(value: Any, arrays: NamedArrays) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _array(value, arrays)
    if isinstance(value, float):  # 0.1 is written so that it is read as the same float; JSON has no word for NaN
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [_plain(one, arrays) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(one, arrays) for one in value]}
    if isinstance(value, Mapping):
        return {"pairs": [[_plain(key, arrays), _plain(one, arrays)] for key, one in value.items()]}
    raise DataError(
        f"a value of type {type(value).__name__} cannot be kept: expected numbers, text, arrays, and lists, tuples and "
        "dicts of such"
    )


def _array(value: Any, arrays: NamedArrays) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS:
        raise DataError(f"an array of {array.dtype} cannot be kept: expected numbers of NumPy's own types")
    name = str(len(arrays))
    # In one byte order and one piece, as the file has it; a single number has no axis there.
    arrays[name] = np.array(array, array.dtype.newbyteorder("<"), order="C").reshape(-1)
    return {"number" if isinstance(value, np.generic) else "array": name, "shape": list(array.shape)}


def _whole(plain: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if plain is None or type(plain) in (bool, int, float, str):
        return plain
    if isinstance(plain, list):
        return [_whole(one, arrays) for one in plain]
    if "array" in plain:
        return arrays[plain["array"]].reshape(plain["shape"])
    if "number" in plain:
        return arrays[plain["number"]].reshape(())[()]
    ((kind, held),) = plain.items()
    if kind == "float":
        return float(held)
    if kind == "bytes":
        return bytes.fromhex(held)
    if kind == "tuple":
        return tuple(_whole(one, arrays) for one in held)
    if kind == "pairs":
        return {_whole(key, arrays): _whole(one, arrays) for key, one in held}
    raise ValueError(kind)
