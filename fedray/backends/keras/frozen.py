# SPDX-License-Identifier: Apache-2.0
"""FrozenTensors: what of a Keras model never changes, and therefore is in no round. Says so where it has changed.

Works on the modules and variables it is handed; imports no framework.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedray.backends.keras.layers import adapted_ids
from fedray.errors import PlanError


def frozen_ids(model: Any) -> frozenset[int]:
    """Returns the `id` of each variable that Keras's training leaves alone for good.

    Those are all weights of layers with `trainable=False`, moving statistics included, since such a layer runs as in
    inference; weights that were made to be trained and have been switched off one by one, as LoRA does; and those that
    `adapt` has set. Other non-trainable weights of a layer that is trained, moving statistics above all, change with
    every batch.
    """
    frozen = set(adapted_ids(model))
    for layer in model._flatten_layers(include_self=True, recursive=True):
        frozen |= {id(v) for v in layer._trainable_variables if not v.trainable}
        if not layer.trainable:
            frozen |= {id(v) for v in layer._non_trainable_variables}
    return frozenset(frozen - {id(v) for v in model.trainable_weights})


class FrozenTensors:
    """The frozen variables of a model, and the values that everybody has agreed on.

    Args:
        tf: The tensorflow module.
        variables: The frozen ones.
        names: Their names within the model.
    """

    def __init__(self, tf: Any, variables: Sequence[Any], names: Sequence[str]) -> None:
        self._tf, self._variables, self._names = tf, tuple(variables), tuple(names)
        self.keep()

    def keep(self) -> None:
        """Takes the values as they are for those to be agreed on."""
        self._kept = self._read()
        self._hashes: Mapping[str, str] | None = None

    @property
    def hashes(self) -> Mapping[str, str]:
        """Name -> SHA-256 of the values, in hexadecimal digits."""
        if self._hashes is None:
            contents = [np.ascontiguousarray(kept.numpy()).tobytes() for kept in self._kept]
            digests = [hashlib.sha256(content).hexdigest() for content in contents]
            self._hashes = dict(zip(self._names, digests, strict=True))
        return self._hashes

    def check(self) -> None:
        """Puts changed tensors back, and refuses to go on.

        Raises:
            PlanError: A tensor is not what it was.
        """
        now = self._read()
        changed = [name for name, a, b in zip(self._names, now, self._kept, strict=True) if _differ(a, b)]
        if changed:
            self.restore()
            raise PlanError(
                f"model: a step changed the tensor {changed[0]!r}, whose layer has trainable=False; frozen tensors are "
                "not summed, and the parties would drift apart. Make the layer trainable, and the tensor is averaged; "
                f"or keep each party's own with FLModel(local=[{changed[0]!r}])"
            )
        self._kept = now  # the same values, perhaps written anew in another place: compared once

    def restore(self) -> None:
        """Puts back the values that were agreed on."""
        for variable, kept in zip(self._variables, self._kept, strict=True):
            variable.assign(kept)
        self._kept = self._read()

    def _read(self) -> list[Any]:
        """Returns tensors that share memory with the variables until those change: no copy, and quick to compare."""
        read = self._tf.raw_ops.ReadVariableOp
        values = [variable.value for variable in self._variables]
        return [read(resource=value.handle, dtype=value.dtype) for value in values]


def _differ(now: Any, kept: Any) -> bool:
    here, there = _place(now), _place(kept)
    same_memory = here is not None and here == there
    return not same_memory and now.numpy().tobytes() != kept.numpy().tobytes()


def _place(tensor: Any) -> int | None:
    """Returns where a tensor's numbers lie, or None for a type that Python's buffers do not know (bfloat16)."""
    try:
        return np.asarray(memoryview(tensor)).ctypes.data
    except (BufferError, TypeError, ValueError):
        return None
