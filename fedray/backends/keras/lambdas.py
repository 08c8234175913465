# SPDX-License-Identifier: Apache-2.0
"""What a lambda in a model is, for the model's fingerprint. Knows how Keras writes one down, and what it says then.

Keras writes the whole code object, with the name of its file and its lines. Those say nothing of the model, and differ
between parties that find a file's lines under different names, and between two kernels of one notebook.
"""

from __future__ import annotations

import base64
import marshal
import re
from collections.abc import Mapping, Sequence
from types import CodeType
from typing import Any

WARNING = re.compile(r"The object being serialized includes a `?lambda")
"""What Keras warns of when it writes one down; a fingerprint is never loaded again."""


def without_places(config: Any) -> Any:
    """Returns a serialized Keras object in which each lambda is what it computes, not where it stands."""
    if isinstance(config, Mapping):
        dump = _dump_in(config)
        if dump is not None and (code := _code(dump[0])) is not None:
            return [_parts(code), *map(without_places, dump[1:])]
        return {name: without_places(part) for name, part in config.items()}
    return [without_places(part) for part in config] if isinstance(config, list | tuple) else config


def _dump_in(config: Mapping[Any, Any]) -> Sequence[Any] | None:
    """Returns code, defaults and closure of a lambda, in whichever form; None if it is something else."""
    inner = config["config"] if config.get("class_name") == "__lambda__" else config  # an activation's lacks the frame
    if inner.keys() == {"code", "defaults", "closure"}:  # of a layer
        return [inner["code"], inner["defaults"], inner["closure"]]
    dump = inner.get("value") if inner.keys() == {"value"} else None
    return dump if isinstance(dump, list | tuple) and len(dump) == 3 else None


def _code(text: object) -> CodeType | None:
    try:
        content = base64.decodebytes(text.encode()) if isinstance(text, str) else b""
    except ValueError:
        return None
    if content[:1] not in (b"c", b"\xe3"):  # how code begins
        return None
    found = marshal.loads(content)  # noqa: S302 (Keras wrote it a moment ago, in this process)
    return found if isinstance(found, CodeType) else None


def _parts(code: CodeType) -> list[Any]:
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    constants = [_parts(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return [code.co_code.hex(), code.co_exceptiontable.hex(), counts, names, constants]


def _constant(value: object) -> str:
    """Returns a constant as text; the order of a set's members depends on the process."""
    return f"{{{', '.join(sorted(map(repr, value)))}}}" if isinstance(value, frozenset) else repr(value)
