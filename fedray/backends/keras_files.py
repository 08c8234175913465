# SPDX-License-Identifier: Apache-2.0
"""A Keras model as files and arrays: what users save, load and look at. Knows no training and no flat vector.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError


def export_model(model: Any, weights_only: bool) -> bytes:
    """Returns the content of a `.keras` file, or of a `.weights.h5` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.weights.h5" if weights_only else "model.keras")
        (model.save_weights if weights_only else model.save)(path)
        return path.read_bytes()


def import_model(model: Any, content: bytes) -> None:
    """Takes weights and optimizer state from the content of a `.keras` file; runs none of its code.

    Raises:
        DataError: It holds another model.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        path.write_bytes(content)
        try:
            model.load_weights(path)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            names = ", ".join(variable.path for variable in model.weights)
            raise DataError(f"the file does not hold the weights of this model ({names})") from error


def arrays(model: Any) -> list[NDArray[Any]]:
    """Returns the weights in the order of Keras's `get_weights()`."""
    return [np.array(weight) for weight in model.get_weights()]


def set_arrays(model: Any, values: Sequence[NDArray[Any]]) -> None:
    """Sets the weights from arrays in the order of Keras's `get_weights()`.

    Raises:
        DataError: Their number or a shape is not the model's.
    """
    expected, found = [tuple(w.shape) for w in model.weights], [tuple(np.shape(v)) for v in values]
    if expected != found:
        raise DataError(f"weights: expected arrays of shapes {expected}, found {found}")
    model.set_weights(list(values))
