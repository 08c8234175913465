# SPDX-License-Identifier: Apache-2.0
"""RegressionWords: kernel and bias of a regression end to end, the shared ones first. Knows no rows and no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.roles import check_something_is_shared, local_names
from fedray.backends.spec import Param, ParamSpec, check_arrays
from fedray.types import Vector

ORDER = ("kernel", "bias")
"""The framework's own order of arrays."""


class RegressionWords:
    """Where kernel and bias are in one vector of all words, of which the flat vector is the beginning.

    Args:
        features: Numbers in a row.
        outputs: Numbers that come out for a row.
        dtype: Type of all words.
        local: Patterns for what stays in the party; nothing is ever frozen.

    Attributes:
        spec: The tensors and their roles.

    Raises:
        PlanError: A pattern fits no tensor, or they leave nothing to sum.
    """

    def __init__(self, features: int, outputs: int, dtype: str, local: Sequence[str]) -> None:
        both = (Param("kernel", (features, outputs), dtype, True), Param("bias", (outputs,), dtype, True))
        own = local_names(local, ORDER)
        shared = tuple(param for param in both if param.name not in own)
        kept = tuple(param for param in both if param.name in own)
        self.spec = ParamSpec(shared + tuple(replace(param, role="local") for param in kept))
        check_something_is_shared(self.spec.names, sorted(own))
        self._all = ParamSpec(shared + kept)

    def shared(self, words: Vector) -> Vector:
        """Returns the flat vector."""
        return words[: self.spec.size]

    def own(self, words: Vector) -> Vector:
        """Returns the words of local tensors."""
        return words[self.spec.size :]

    def tensors(self, words: Vector) -> dict[str, NDArray[Any]]:
        """Returns views of the tensors by name, in the framework's own order."""
        found = dict(zip(self._all.names, self._all.unpack(words), strict=True))
        return {name: found[name] for name in ORDER}

    def packed(self, tensors: Mapping[str, NDArray[Any]]) -> Vector:
        """Returns all words from the tensors by name.

        Raises:
            DataError: A shape is another.
        """
        return self._all.pack([tensors[name] for name in self._all.names])

    def from_arrays(self, values: Sequence[NDArray[Any]]) -> Vector:
        """Returns all words from arrays in the framework's own order.

        Raises:
            DataError: They do not fit; see `check_arrays`.
        """
        named = {param.name: param for param in self.spec.params}
        check_arrays(values, [named[name].shape for name in ORDER], [named[name].dtype for name in ORDER])
        return self.packed(dict(zip(ORDER, map(np.asarray, values), strict=True)))
