# SPDX-License-Identifier: Apache-2.0
"""Beginning: the values that an optimizer's variables were built with, so that it can begin anew without being rebuilt.

Works on the modules and the optimizer it is handed; imports no framework.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedray.backends.keras.optimizers import parts, variables


class Beginning:
    """What an optimizer was built with, its learning rate apart: that is a setting, and no trace of steps.

    Args:
        keras: The keras module.
        optimizer: A built optimizer that has taken no step yet.
    """

    def __init__(self, keras: Any, optimizer: Any) -> None:
        rates = {id(getattr(part, "_learning_rate", None)) for part in parts(optimizer)}
        kept = {id(one): one for one in variables(keras, optimizer) if id(one) not in rates}
        # A moment is as large as the model, and begins with one number throughout: that number is all that is kept.
        self._first = [(one, _short(one.numpy())) for one in kept.values()]

    def put_back(self) -> None:
        """Sets every variable to its first value."""
        for variable, value in self._first:
            variable.assign(np.broadcast_to(value, variable.shape))


def _short(value: Any) -> Any:
    """Returns one number where an array holds no other, else the array."""
    first = value.reshape(-1)[:1]
    return first[0] if value.size and (value == first).all() else value
