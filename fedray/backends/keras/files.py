# SPDX-License-Identifier: Apache-2.0
"""A Keras model as files and arrays: what users save, load and look at. Knows no training and no flat vector.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.keras.unwarned import unwarned
from fedray.backends.spec import check_arrays
from fedray.errors import DataError, PlanError

SKIPPED = re.compile("Skipping variable loading for optimizer")
"""What Keras warns of where a file has another optimizer's state; none of it is taken in any case."""


def export_model(model: Any, weights_only: bool, as_built: Sequence[tuple[Any, NDArray[Any]]]) -> bytes:
    """Returns the content of a `.keras` file, or of a `.weights.h5` file; in it the optimizer is as if just made.

    The optimizer's own variables are running means of this party's gradients, which must not leave it.

    Args:
        model: A built, compiled model.
        weights_only: Which of the two.
        as_built: Local variables, and what stands in their place in the file.

    Raises:
        PlanError: The optimizer cannot be made anew from its configuration.
    """
    fresh = _made_anew(model.optimizer)
    local = {id(variable) for variable, _ in as_built}
    unchanged = [variable for variable in model.weights if id(variable) not in local]
    with tempfile.TemporaryDirectory() as folder, _kept(model, unchanged):
        path = Path(folder, "model.weights.h5" if weights_only else "model.keras")
        fresh.build(model.trainable_variables)
        for variable, start in zip(model.optimizer.variables, fresh.variables, strict=True):
            variable.assign(start)
        for variable, value in as_built:
            variable.assign(value)
        (model.save_weights if weights_only else model.save)(path)
        return path.read_bytes()


def _made_anew(optimizer: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a lambda, which is refused below
            return type(optimizer).from_config(optimizer.get_config())
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"the model's {type(optimizer).__name__} cannot be made anew from its configuration, as whoever loads the "
            "file would have to; give it functions that Keras can save (named, and registered with "
            "keras.saving.register_keras_serializable)"
        ) from error


def import_model(model: Any, content: bytes, taken: Sequence[Any]) -> None:
    """Takes weights from the content of a `.keras` file; runs none of its code, leaves everything else as it is.

    Args:
        model: A built, compiled model.
        content: Of the file.
        taken: The variables that are set.

    Raises:
        DataError: It holds another model.
    """
    before = [variable.numpy() for variable in taken]
    with tempfile.TemporaryDirectory() as folder, _kept(model, taken), unwarned(SKIPPED):
        path = Path(folder, "model.keras")
        path.write_bytes(content)
        try:
            model.load_weights(path)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            # Keras loads layer by layer: a file that does not fit has changed the layers before the one that shows it.
            for variable, value in zip(taken, before, strict=True):
                variable.assign(value)
            names = ", ".join(variable.path for variable in model.weights)
            raise DataError(f"the file does not hold the weights of this model ({names})") from error


@contextmanager
def _kept(model: Any, but: Iterable[Any]) -> Iterator[None]:
    """Leaves all variables as they were, but these: optimizer, metrics, counters and random generators above all."""
    set_free = {id(variable) for variable in but}
    local = [v for v in (*model.variables, *model.optimizer.variables) if id(v) not in set_free]
    values = [variable.numpy() for variable in local]
    try:
        yield
    finally:
        for variable, value in zip(local, values, strict=True):
            variable.assign(value)


def arrays(model: Any, as_built: Sequence[tuple[Any, NDArray[Any]]]) -> list[NDArray[Any]]:
    """Returns the weights in the order of Keras's `get_weights()`.

    Args:
        model: A model.
        as_built: Local variables, and what stands in their place.
    """
    instead = {id(variable): value for variable, value in as_built}
    return [np.array(instead.get(id(weight), weight.numpy())) for weight in model.weights]


def set_arrays(model: Any, values: Sequence[NDArray[Any]], but: Iterable[Any]) -> None:
    """Sets the weights from arrays in the order of Keras's `get_weights()`.

    Args:
        model: A model.
        values: The arrays.
        but: Variables that stay as they are.

    Raises:
        DataError: They do not fit; see `check_arrays`.
    """
    check_arrays(values, [tuple(w.shape) for w in model.weights], [str(w.dtype) for w in model.weights])
    own = {id(variable) for variable in but}
    for variable, value in zip(model.weights, values, strict=True):
        if id(variable) not in own:
            variable.assign(value)
