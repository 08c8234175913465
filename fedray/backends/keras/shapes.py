# SPDX-License-Identifier: Apache-2.0
"""Whether a party's arrays fit a Keras model's inputs, outputs and losses, said before any training starts.

Messages name shapes and ranges, never values of the party's data. Works on the objects it is handed; imports no
framework.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from fedray.errors import DataError
from fedray.tree import Tree

_SAME_SHAPE = (
    "binarycrossentropy binaryfocalcrossentropy categoricalcrossentropy categoricalfocalcrossentropy categoricalhinge"
    " cosinesimilarity hinge huber kldivergence logcosh meanabsoluteerror meanabsolutepercentageerror meansquarederror"
    " meansquaredlogarithmicerror poisson squaredhinge"
)
SAME_SHAPE = frozenset(_SAME_SHAPE.split())
"""Stock losses whose labels are shaped like the output, without underscores; Keras would broadcast them in silence."""

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


def losses_of(model: Any, outputs: Tree) -> list[Any]:
    """Returns what the model was compiled with as the loss of each output; None where there is none, or it is unclear.

    Args:
        model: A compiled model.
        outputs: What it returns.
    """
    loss, count = model.loss, len(outputs.leaves())
    if not isinstance(loss, dict | list | tuple):
        return [loss] * count
    if len(loss) == count == 1:
        return [loss[next(iter(loss))] if isinstance(loss, dict) else loss[0]]
    if isinstance(loss, dict):
        names = sorted(outputs.nest) if isinstance(outputs.nest, dict) else getattr(model, "output_names", ())
        return [loss.get(name) for name in names] if len(names) == count else [None] * count
    flat = outputs.nested and len(outputs.nest) == count
    return list(loss) if flat and len(loss) == count else [None] * count


def check_labels(keras: Any, losses: Sequence[Any], y: Tree, outputs: Tree) -> None:
    """Compares labels with what each stock loss needs; losses of the user's own are left to say so themselves.

    Args:
        keras: The keras module.
        losses: The loss of each output.
        y: All labels of the party, nested as the outputs.
        outputs: What the model returns, batch axis first.

    Raises:
        DataError: The labels are of the wrong shape, or name a class the model does not have.
    """
    for loss, (name, labels), output in zip(losses, y.named(), outputs.leaves(), strict=True):
        _check_labels(keras, loss, name, labels, tuple(output.shape))


def _check_labels(keras: Any, given: Any, argument: str, y: NDArray[Any], output: Shape) -> None:
    loss, name = _stock_loss(keras, given)
    if loss is None:
        return
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
    elif name.replace("_", "") in SAME_SHAPE and not fits(output[1:], found):
        hint = "; one-hot encode the class numbers, or use a sparse loss" if "categorical" in name else ""
        raise DataError(f"{argument}: the loss {name!r} expects rows of shape {output[1:]}, found {found}{hint}")


def _stock_loss(keras: Any, loss: Any) -> tuple[Any, str]:
    """Returns a stock loss and its name in lower case, or (None, "") for anything else."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    name = loss.__name__ if inspect.isfunction(loss) else type(loss).__name__
    stock = getattr(keras.losses, name, None)
    if stock is None or (loss is not stock and type(loss) is not stock):
        return None, ""
    return loss, name if inspect.isfunction(loss) else getattr(loss, "name", name)


def fits(expected: Shape, found: Shape) -> bool:
    """Returns whether two shapes agree but for lengths not given and a last axis of length 1."""
    short, long = sorted((expected, found), key=len)
    if len(long) == len(short) + 1 and long[-1] == 1:
        long = long[:-1]
    return len(short) == len(long) and all(None in (a, b) or a == b for a, b in zip(short, long, strict=True))
