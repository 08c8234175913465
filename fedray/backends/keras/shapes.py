# SPDX-License-Identifier: Apache-2.0
"""Whether a party's arrays fit a Keras model's inputs, outputs and losses, said before any training starts.

Messages name shapes and ranges, never values of the party's data. Works on the objects it is handed; imports no
framework.
"""

from __future__ import annotations

import inspect
import math
import operator
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError, PlanError
from fedray.tree import Tree

_SAME_SHAPE = (
    "binary_crossentropy binary_focal_crossentropy categorical_crossentropy categorical_focal_crossentropy"
    " categorical_hinge cosine_similarity dice hinge huber kl_divergence log_cosh mean_absolute_error"
    " mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error poisson squared_hinge tversky"
)
SAME_SHAPE = frozenset(_SAME_SHAPE.split())
"""Stock losses whose labels are shaped like the output; Keras would broadcast them in silence."""

SHARES = frozenset(
    ("binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy")
)
"""Those of them whose labels are probabilities; others, such as 1 and 2, come to a number that means nothing."""

Shape = tuple[int | None, ...]


def check_inputs(model: Any, x: Tree) -> None:
    """Compares the data with the model's declared inputs, where it declares some.

    Raises:
        DataError: Inputs are missing or too many, or differ by more than a last axis of length 1, which Keras adds or
            drops by itself.
    """
    declared = list(getattr(model, "inputs", None) or ()) if model.built else []
    if not declared:
        return
    form = Tree(getattr(model, "_inputs_struct", declared))
    named = {tensor.name: tensor for tensor in declared}
    if x.same_form(form):
        expected = form.leaves()
    elif len(x.leaves()) == len(declared) == 1:
        expected = declared
    elif isinstance(x.nest, dict) and not isinstance(form.nest, dict) and set(x.nest) == set(named):
        expected = [named[key] for key in sorted(x.nest)]
    else:
        wanted = "x" if len(declared) == 1 else ", ".join(Tree(form.nest, "x").names())
        by_name = (
            "" if isinstance(form.nest, dict) or wanted == "x" else f" (or a dict with the keys {', '.join(named)})"
        )
        found = ", ".join(x.names()) or "no array"
        raise DataError(f"x: model {model.name!r} expects {wanted}{by_name}, found {found}")
    for (name, array), tensor in zip(x.named(), expected, strict=True):
        wanted_shape, found_shape = tuple(tensor.shape)[1:], array.shape[1:]
        if not fits(wanted_shape, found_shape):
            raise DataError(f"{name}: model {model.name!r} expects rows of shape {wanted_shape}, found {found_shape}")


def like_outputs(model: Any, labels: Tree, outputs: Tree) -> Tree:
    """Returns labels, or weights of rows, nested as the model's outputs are, in their order.

    Args:
        model: A compiled model; outputs in a list go by its `output_names` too, as in Keras.
        labels: What the user gave.
        outputs: What the model returns.

    Raises:
        DataError: They are not one for each output.
    """
    names = list(getattr(model, "output_names", None) or ()) if isinstance(outputs.nest, list | tuple) else []
    found = labels.leaves()
    if isinstance(labels.nest, dict) and names and set(labels.nest) == set(names):
        found = [labels.nest[name] for name in names]
    elif not labels.same_form(outputs) and not len(found) == len(outputs.leaves()) == 1:
        expected = ", ".join(Tree(outputs.nest, labels.name).names())
        by_name = f" (or a dict with the keys {', '.join(names)})" if names else ""
        given = ", ".join(labels.names()) or "no array"
        raise DataError(f"{labels.name}: model {model.name!r} expects {expected}{by_name}, found {given}")
    return Tree(outputs.nest, labels.name).rebuild(found)


def check_labels(keras: Any, model: Any, y: Tree, outputs: Tree) -> None:
    """Compares labels with what each stock loss needs; losses of the user's own are left to say so themselves.

    Which loss belongs to which output, however it was written, is what Keras itself makes of it.

    Args:
        keras: The keras module.
        model: A compiled model with a loss.
        y: All labels of the party, nested as the outputs.
        outputs: What the model returns, batch axis first.

    Raises:
        DataError: The labels are of the wrong shape, or name a class the model does not have.
        PlanError: The losses are not the outputs'.
    """
    compiled = model._compile_loss
    if not compiled.built:
        try:
            compiled.build(y.nest, outputs.nest)
        except (KeyError, TypeError, ValueError) as error:
            text = " ".join(str(error.args[0] if error.args else error).split())
            raise PlanError(f"model {model.name!r}: its loss does not fit its outputs: {text}") from error
    for one in compiled._flat_losses:
        name = y.name + "".join(f"[{key!r}]" for key in one.path)
        labels, output = (reduce(operator.getitem, one.path, nest) for nest in (y.nest, outputs.nest))
        loss = inspect.unwrap(one.loss)  # those of several outputs count their rows
        stock = stock_name(keras, loss)
        _check_labels(loss, stock, name, labels, tuple(output.shape))
        if not stock and output.shape[1:] == (*labels.shape[1:], 1):
            _check_own(loss, name, labels, output)


def _check_labels(loss: Any, name: str, argument: str, y: NDArray[Any], output: Shape) -> None:
    found = y.shape[1:]
    if name.startswith("sparse"):
        if not fits(output[1:-1], found):
            raise DataError(
                f"{argument}: the loss {name!r} expects one class number per output {output[1:-1]}, found {found}"
            )
        if y.size and getattr(loss, "ignore_class", None) is None and not (y.min() >= 0 and y.max() < output[-1]):
            raise DataError(
                f"{argument}: the loss {name!r} expects class numbers from 0 to {output[-1]} - 1, found others"
            )
    elif name in SAME_SHAPE and not fits(output[1:], found):
        hint = "; one-hot encode the class numbers, or use a sparse loss" if "categorical" in name else ""
        raise DataError(f"{argument}: the loss {name!r} expects rows of shape {output[1:]}, found {found}{hint}")
    elif name in SHARES and y.size and not (y.min() >= 0 and y.max() <= 1):
        raise DataError(
            f"{argument}: the loss {name!r} expects 0, 1 or a number between them, found others; of 1 and 2 make "
            "y - 1, of -1 and 1 make (y + 1) / 2, and for other numbers take another loss"
        )


def _check_own(loss: Any, argument: str, y: NDArray[Any], output: NDArray[Any]) -> None:
    """Refuses labels without the output's last axis where a loss of the user's own sets each against all outputs.

    Keras adds the axis for functions and not for classes, whose `y_true - y_pred` then has a number for each pair of
    rows. Tried on made-up rows.
    """
    labels = np.resize([0, 1, 1], (3, *y.shape[1:])).astype(y.dtype)
    said = np.linspace(0.1, 0.8, 3 * math.prod(output.shape[1:])).reshape(3, *output.shape[1:]).astype(output.dtype)
    try:
        as_given, in_column = (float(loss(true, said)) for true in (labels, labels[..., None]))
    except Exception:  # It asks for something else of labels, and will say so.
        return
    if abs(as_given - in_column) > 1e-5 * abs(in_column):
        raise DataError(
            f"{argument}: the loss {type(loss).__name__!r} sets each row's labels against all rows' outputs; "
            f"expected rows of shape {output.shape[1:]}, found {y.shape[1:]}; reshape them, e.g. y.reshape(-1, 1)"
        )


def stock_name(keras: Any, loss: Any) -> str:
    """Returns the name of the stock function that a loss computes, or an empty text.

    Strings, functions, classes and instances of any name are all such a function in the end, but for what a user wrote.
    """
    function = getattr(loss, "fn", None)
    name = getattr(function, "__name__", "")
    unchanged = type(loss).call is keras.losses.MeanSquaredError.call
    return name if unchanged and function is not None and getattr(keras.losses, name, None) is function else ""


def fits(expected: Shape, found: Shape) -> bool:
    """Returns whether two shapes agree but for lengths not given and a last axis of length 1."""
    short, long = sorted((expected, found), key=len)
    if len(long) == len(short) + 1 and long[-1] == 1:
        long = long[:-1]
    return len(short) == len(long) and all(None in (a, b) or a == b for a, b in zip(short, long, strict=True))
