# SPDX-License-Identifier: Apache-2.0
"""What a Keras optimizer does beside its step: the loss scale, what it wraps, and what it copies from the weights.

Works on the modules and objects it is handed; imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from fedray.errors import DataError

Gradients: TypeAlias = tuple[Any, list[Any]]
"""Tensors: the gradient of shared variables, [trainable], with words that no optimizer changes; those of local ones."""


def parts(optimizer: Any) -> list[Any]:
    """Returns an optimizer and those that it wraps: `LossScaleOptimizer` has one, `MultiOptimizer` several."""
    one = getattr(optimizer, "inner_optimizer", None)
    inner = list(getattr(optimizer, "optimizers", ())) if one is None else [one]
    return [optimizer, *(part for wrapped in inner for part in parts(wrapped))]


def variables(keras: Any, optimizer: Any) -> list[Any]:
    """Returns all state of an optimizer, also what Keras does not list: Nadam's product inside a LossScaleOptimizer."""
    found = [value for part in parts(optimizer) for value in vars(part).values()]
    return [*optimizer.variables, *(value for value in found if isinstance(value, keras.Variable))]


def loss_scale(tf: Any, optimizer: Any) -> Any:
    """Returns by what the optimizer multiplies the loss, a scalar tensor; None where it takes the loss as it is."""
    one = tf.ones([])
    scaled = optimizer.scale_loss(one)
    return None if scaled is one else scaled


def without_overflow(
    tf: Any, optimizer: Any, compute: Callable[[], Gradients], way_back: Callable[[], Callable[[], None]]
) -> Gradients:
    """Returns gradients computed under the party's loss scale, halved until none of them overflows.

    Keras skips a step that overflows. Here the step is everybody's: the batch is computed anew under half the scale,
    and no row is lost.

    Args:
        tf: The tensorflow module.
        optimizer: A built optimizer.
        compute: Returns the gradients under the current scale.
        way_back: Returns what puts the model and all its state back as they are when it is called.

    Raises:
        DataError: The gradient of a local variable is not finite under any scale. Shared ones are checked by whoever
            encodes them.
    """
    scale = getattr(optimizer, "dynamic_scale", None)
    if scale is None:
        return compute()
    size, back = float(scale.numpy()), way_back()
    found = compute()
    while not _finite(tf, found) and size > 1:
        size /= 2
        back()
        scale.assign(size)
        optimizer.step_counter.assign(0)
        found = compute()
    if not _finite(tf, found[1]):  # the optimizer would skip this party's step, and take the others'
        raise DataError(
            "model: the gradient of a local tensor is not finite; lower the learning rate, or check the rows"
        )
    return found


def copying(keras: Any, optimizer: Any) -> list[Any]:
    """Returns the optimizers, of one and those it wraps, that begin with a copy of the weights."""
    kind = getattr(keras.optimizers, "ScheduleFreeAdamW", ())  # Keras has it since 3.15
    return [part for part in parts(optimizer) if isinstance(part, kind)]


def follow(optimizers: Sequence[Any], variables: Sequence[Any]) -> None:
    """Lets copies of the weights follow them as long as their optimizer has taken no step.

    Keras builds an optimizer at its first step, after weights have been loaded; here it is built with the model.

    Args:
        optimizers: What `copying` returned.
        variables: The trainable variables.
    """
    for optimizer in optimizers:
        if int(optimizer.iterations):
            continue
        for variable in variables:
            place = optimizer._trainable_variables_indices.get(optimizer._var_key(variable))
            if place is not None and optimizer._momentums[place] is not None:
                optimizer._momentums[place].assign(variable)


def _finite(tf: Any, tensors: Any) -> bool:
    return all(bool(np.isfinite(tensor).all()) for tensor in tf.nest.flatten(tensors))
