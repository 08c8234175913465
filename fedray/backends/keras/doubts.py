# SPDX-License-Identifier: Apache-2.0
"""What a Keras model is asked for that its makers can hardly mean, and what Keras says nothing of.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from fedray.backends.callables import takes_two
from fedray.errors import PlanError

_OF_PROBABILITIES = {"binary_crossentropy": "sigmoid", "binary_focal_crossentropy": "sigmoid"} | dict.fromkeys(
    ("categorical_crossentropy", "categorical_focal_crossentropy", "sparse_categorical_crossentropy"), "softmax"
)
"""Stock losses that take probabilities unless they are told otherwise -> the activation that makes them."""


def check_functions(keras: Any, model: Any) -> None:
    """Refuses losses and metrics of the user's own that cannot be called with labels and outputs.

    Raises:
        PlanError: One cannot.
    """
    config = model._compile_config.config if getattr(model, "_compile_config", None) else {}
    for word in ("loss", "metrics", "weighted_metrics"):
        for one in keras.tree.flatten(config.get(word)):
            if (inspect.isfunction(one) or inspect.ismethod(one)) and not takes_two(one):
                more = "; it returns a number for each row, or one for the batch" if word != "loss" else ""
                raise PlanError(
                    f"model {model.name!r}: {word}: expected a function of (y_true, y_pred), and {one.__name__!r} "
                    f"takes other arguments{more}"
                )


def of_outputs(keras: Any, model: Any, name_of: Callable[[Any], str]) -> tuple[str, ...]:
    """Returns what is doubtful about losses and outputs, in words for the user; nothing where all is well.

    Args:
        keras: The keras module.
        model: A model whose loss is built.
        name_of: Returns the name of the stock function that a loss computes, or an empty text.
    """
    bare = [
        f"loss {name!r} takes probabilities, and output {layer.name!r} has no activation: say activation="
        f"{_OF_PROBABILITIES[name]!r} there, or the loss with from_logits=True"
        for name, layer in _pairs(keras, model, name_of)
        if getattr(layer, "activation", None) is keras.activations.linear
    ]
    outputs = keras.tree.flatten(getattr(model, "outputs", None) or [])
    layers = [output._keras_history.operation for output in outputs if output.shape[-1] == 1]
    alone = [
        f"output {layer.name!r} is a softmax of one number, which is 1 whatever the row: say activation='sigmoid'"
        for layer in layers
        if getattr(layer, "activation", None) is keras.activations.softmax
    ]
    return (*bare, *alone)


def _pairs(keras: Any, model: Any, name_of: Callable[[Any], str]) -> Iterator[tuple[str, Any]]:
    """Yields the name of each loss that takes probabilities, and the layer whose output it gets."""
    losses = getattr(getattr(model, "_compile_loss", None), "_flat_losses", None) or []
    outputs = keras.tree.flatten(getattr(model, "outputs", None) or [])
    if len(losses) != len(outputs):  # a subclassed model, whose outputs nobody knows; or losses for some only
        return
    for one, output in zip(losses, outputs, strict=True):
        loss = inspect.unwrap(one.loss)
        if name_of(loss) in _OF_PROBABILITIES and not getattr(loss, "_fn_kwargs", {}).get("from_logits", False):
            yield name_of(loss), output._keras_history.operation
