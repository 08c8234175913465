# SPDX-License-Identifier: Apache-2.0
"""A Keras model as files and arrays: what users save, load and look at. Knows no training and no flat vector.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError


def export_model(model: Any, weights_only: bool) -> bytes:
    """Returns the content of a `.keras` file, or of a `.weights.h5` file; in it the optimizer is as if just made.

    The optimizer's own variables are running means of this party's gradients, which must not leave it.
    """
    with tempfile.TemporaryDirectory() as folder, _kept(model):
        path = Path(folder, "model.weights.h5" if weights_only else "model.keras")
        fresh = type(model.optimizer).from_config(model.optimizer.get_config())
        fresh.build(model.trainable_variables)
        for variable, start in zip(model.optimizer.variables, fresh.variables, strict=True):
            variable.assign(start)
        (model.save_weights if weights_only else model.save)(path)
        return path.read_bytes()


def import_model(model: Any, content: bytes) -> None:
    """Takes the weights from the content of a `.keras` file; runs none of its code, leaves all local state as it is.

    Raises:
        DataError: It holds another model.
    """
    with tempfile.TemporaryDirectory() as folder, _kept(model):
        path = Path(folder, "model.keras")
        path.write_bytes(content)
        try:
            model.load_weights(path)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            names = ", ".join(variable.path for variable in model.weights)
            raise DataError(f"the file does not hold the weights of this model ({names})") from error


@contextmanager
def _kept(model: Any) -> Iterator[None]:
    """Leaves what belongs to this party alone as it was: optimizer, metrics, counters, random generators."""
    averaged = [v for v in model.weights if "float" in str(v.dtype)]
    local = [v for v in (*model.variables, *model.optimizer.variables) if all(v is not other for other in averaged)]
    values = [variable.numpy() for variable in local]
    try:
        yield
    finally:
        for variable, value in zip(local, values, strict=True):
            variable.assign(value)


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
