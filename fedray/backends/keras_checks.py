# SPDX-License-Identifier: Apache-2.0
"""What a Keras model must be, and what its data must look like, said before any training starts.

Messages name shapes and ranges, never values of the party's data. Works on the objects it is handed; imports no
framework.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.keras_lambdas import without_places
from fedray.errors import DataError, PlanError

_SAME_SHAPE = (
    "binarycrossentropy binaryfocalcrossentropy categoricalcrossentropy categoricalfocalcrossentropy categoricalhinge"
    " cosinesimilarity hinge huber kldivergence logcosh meanabsoluteerror meanabsolutepercentageerror meansquarederror"
    " meansquaredlogarithmicerror poisson squaredhinge"
)
SAME_SHAPE = frozenset(_SAME_SHAPE.split())
"""Stock losses whose labels are shaped like the output, without underscores; Keras would broadcast them in silence."""

Shape = tuple[int | None, ...]


def check_model(keras: Any, model: Any) -> None:
    """Refuses what cannot be trained here.

    Raises:
        PlanError: Not a compiled Keras model, or it replaces parts of Keras's training that are not used here.
    """
    if not isinstance(model, keras.Model):
        kind = type(model).__name__
        raise PlanError(f"model: expected the builder to return a compiled keras.Model, found {kind}")
    if not model.compiled:
        raise PlanError(f"model {model.name!r}: expected a compiled model; call model.compile(...) in the builder")
    for method in ("make_train_function", "make_test_function", "make_predict_function"):
        if is_custom(keras, model, method):
            raise PlanError(f"model {model.name!r} overrides {method}, which is not used here; override train_step")
    if getattr(model.optimizer, "use_ema", False):
        raise PlanError(f"model {model.name!r}: an optimizer with use_ema=True is not supported; leave use_ema out")


def check_own_step(keras: Any, model: Any, why: str) -> None:
    """Refuses models whose step cannot be replaced by one with a gradient in reach.

    Args:
        keras: The keras module.
        model: A compiled model.
        why: Who needs the gradient, for the message.

    Raises:
        PlanError: The model has a train_step of its own, or scales its loss.
    """
    if is_custom(keras, model, "train_step"):
        raise PlanError(f"model {model.name!r} has a custom train_step, which {why} cannot be combined with")
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise PlanError(f"model {model.name!r} uses a LossScaleOptimizer, which {why} cannot be combined with")


def is_custom(keras: Any, model: Any, method: str) -> bool:
    """Returns whether the model replaces a method of `keras.Model`."""
    return getattr(getattr(model, method), "__func__", None) is not getattr(keras.Model, method)


def as_array(argument: str, values: Any, floatx: str) -> NDArray[Any]:
    """Returns one array of rows; floating-point values in Keras's default float type, as Keras's own fit does.

    Raises:
        DataError: Not an array of numbers (or text) with at least one axis.
        PlanError: Several arrays: models with several inputs or outputs are not supported.
    """
    if isinstance(values, dict | list | tuple):
        raise PlanError(f"{argument}: models with several inputs or outputs are not supported; expected one array")
    array = np.asarray(values)
    if array.ndim == 0 or array.dtype.kind not in "biufUS":
        raise DataError(f"{argument}: expected rows of numbers, found shape {array.shape}, dtype {array.dtype}")
    return array.astype(floatx, copy=False) if array.dtype.kind == "f" else array


def check_lengths(arrays: Mapping[str, NDArray[Any] | None]) -> int:
    """Returns the common number of rows.

    Raises:
        DataError: The arrays differ in length.
    """
    rows = {name: len(array) for name, array in arrays.items() if array is not None}
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{name}: {count}" for name, count in rows.items())
        raise DataError(f"expected arrays of the same length, found rows of {found}")
    return rows["x"]


def check_input(model: Any, x: NDArray[Any]) -> None:
    """Compares the data with the model's declared input, where it declares one.

    Raises:
        DataError: They differ by more than a last axis of length 1, which Keras adds or drops by itself.
        PlanError: The model has several inputs.
    """
    declared = getattr(model, "input_shape", None) if model.built and getattr(model, "inputs", None) else None
    if declared is None:
        return
    if isinstance(declared, list | dict):
        raise PlanError(f"model {model.name!r} has several inputs, which is not supported")
    expected, found = tuple(declared)[1:], x.shape[1:]
    if not _fits(expected, found):
        raise DataError(f"x: model {model.name!r} expects rows of shape {expected}, found {found}")


def check_labels(keras: Any, model: Any, y: NDArray[Any], output: Shape) -> None:
    """Compares labels with what the stock loss needs; losses of the user's own are left to say so themselves.

    Args:
        keras: The keras module.
        model: A compiled model.
        y: All labels of the party.
        output: Shape of the model's output, batch axis first.

    Raises:
        DataError: The labels are of the wrong shape, or name a class the model does not have.
    """
    loss, name = _stock_loss(keras, model.loss)
    if loss is None:
        return
    found = y.shape[1:]
    if name.startswith("sparse"):
        if not _fits(output[1:-1], found):
            raise DataError(f"y: the loss {name!r} expects one class number per output {output[1:-1]}, found {found}")
        if y.size and getattr(loss, "ignore_class", None) is None and not (y.min() >= 0 and y.max() < output[-1]):
            raise DataError(f"y: the loss {name!r} expects class numbers from 0 to {output[-1]} - 1, found others")
    elif name.replace("_", "") in SAME_SHAPE and not _fits(output[1:], found):
        hint = "; one-hot encode the class numbers, or use a sparse loss" if "categorical" in name else ""
        raise DataError(f"y: the loss {name!r} expects rows of shape {output[1:]}, found {found}{hint}")


def class_weights(class_weight: Mapping[int, float], y: NDArray[Any] | None, floatx: str) -> NDArray[Any]:
    """Returns one weight per row, float[rows], as Keras does: 1 for classes that are not mentioned.

    Raises:
        DataError: There are no labels to look at, or they are not one class per row.
        PlanError: A class is not a whole number, or a weight not a finite number of 0 or more.
    """
    if y is None or y.ndim > 2:
        raise DataError(f"class_weight: expected one class per row in y, found {None if y is None else y.shape[1:]}")
    labels = y if y.ndim == 1 else y[:, 0] if y.shape[1] == 1 else np.argmax(y, axis=1)
    classes = np.round(labels).astype(np.int64)
    weights = np.ones(len(y), floatx)
    for label, weight in class_weight.items():
        number = isinstance(label, int | np.integer) and not isinstance(label, bool)
        if not number or not isinstance(weight, int | float | np.number) or not 0 <= weight < np.inf:
            raise PlanError(f"class_weight: expected class number -> weight of 0 or more, found {label!r}: {weight!r}")
        weights[classes == label] = weight
    return weights


def model_fingerprint(keras: Any, model: Any, spec: object) -> bytes:
    """Returns SHA-256 over the model's architecture, optimizer, loss and metrics."""
    parts = {"class": type(model).__qualname__, "spec": repr(spec), "model": _config(keras, model)}
    for name in ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics"):
        source = model._compile_config.config if getattr(model, "_compile_config", None) else {}
        parts[name] = _config(keras, model.optimizer if name == "optimizer" else source.get(name))
    text = json.dumps(parts, sort_keys=True, default=lambda value: type(value).__qualname__)
    return hashlib.sha256(text.encode()).digest()


def _config(keras: Any, value: Any) -> Any:
    try:
        return without_places(keras.saving.serialize_keras_object(value))
    except (NotImplementedError, TypeError, ValueError):  # A class without get_config: its weights' names must do.
        return type(value).__qualname__
    except OSError:  # Keras wants to show the source of a lambda; that of one typed at a prompt is nowhere.
        return type(value).__qualname__


def _stock_loss(keras: Any, loss: Any) -> tuple[Any, str]:
    """Returns a stock loss and its name in lower case, or (None, "") for anything else."""
    if isinstance(loss, list | tuple) and len(loss) == 1:
        loss = loss[0]
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    name = loss.__name__ if inspect.isfunction(loss) else type(loss).__name__
    stock = getattr(keras.losses, name, None)
    if stock is None or (loss is not stock and type(loss) is not stock):
        return None, ""
    return loss, name if inspect.isfunction(loss) else getattr(loss, "name", name)


def _fits(expected: Shape, found: Shape) -> bool:
    """Returns whether two shapes agree but for lengths not given and a last axis of length 1."""
    short, long = sorted((expected, found), key=len)
    if len(long) == len(short) + 1 and long[-1] == 1:
        long = long[:-1]
    return len(short) == len(long) and all(None in (a, b) or a == b for a, b in zip(short, long, strict=True))
