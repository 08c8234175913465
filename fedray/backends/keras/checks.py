# SPDX-License-Identifier: Apache-2.0
"""What a Keras model must be, said before any training starts.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fedray.backends.keras.doubts import check_functions
from fedray.backends.keras.lambdas import WARNING, without_places
from fedray.backends.keras.optimizers import parts
from fedray.backends.keras.unwarned import unwarned
from fedray.errors import PlanError
from fedray.strategies.strategy import Strategy


def check_model(keras: Any, model: Any) -> None:
    """Refuses what cannot be trained here.

    Raises:
        PlanError: Not a compiled Keras model, or it replaces parts of Keras's training that are not used here; or a
            loss or metric is a function of something else.
    """
    if not isinstance(model, keras.Model):
        kind = type(model).__name__
        raise PlanError(f"model: expected the builder to return a compiled keras.Model, found {kind}")
    if not model.compiled:
        raise PlanError(f"model {model.name!r}: expected a compiled model; call model.compile(...) in the builder")
    for method in ("make_train_function", "make_test_function", "make_predict_function", "fit", "evaluate", "predict"):
        if is_custom(keras, model, method):
            raise PlanError(f"model {model.name!r} overrides {method}, which is not used here; override train_step")
    check_functions(keras, model)
    check_optimizer(model)


def check_optimizer(model: Any) -> None:
    """Refuses optimizers with something to do at the end of Keras's fit.

    Raises:
        PlanError: There is no optimizer, or it or one that it wraps averages its weights.
    """
    if model.optimizer is None:
        raise PlanError(
            f"model {model.name!r} is compiled without an optimizer; name one in model.compile(optimizer=...), also "
            "where a train_step of your own uses others beside it"
        )
    if any(getattr(part, "use_ema", False) for part in parts(model.optimizer)):
        raise PlanError(f"model {model.name!r}: an optimizer with use_ema=True is not supported; leave use_ema out")


def check_strategy(keras: Any, model: Any, strategy: Strategy) -> None:
    """Refuses a strategy that this model cannot be trained with, as far as it can be told before the model is built.

    Raises:
        PlanError: See `check_own_step`; or a mean of gradients is asked for where the loss of a batch is a sum.
    """
    if strategy.client_hook is not None or strategy.local == "gradient":
        check_own_step(keras, model, f"strategy {strategy.name!r}")
    if strategy.local != "gradient":
        return
    for loss in keras.tree.flatten(model.loss):
        if getattr(loss, "reduction", "mean") in (None, "none", "sum"):
            raise PlanError(
                f"model {model.name!r}: a loss with reduction={loss.reduction!r} adds up the rows of a batch, and "
                f"strategy {strategy.name!r} takes a mean over the rows of all parties; use strategy 'fed_avg_w', or "
                "reduction='sum_over_batch_size' with a learning rate as many times as high as a batch has rows"
            )


def check_own_step(keras: Any, model: Any, why: str) -> None:
    """Refuses models whose step cannot be replaced by one with a gradient in reach.

    Args:
        keras: The keras module.
        model: A compiled model.
        why: Who needs the gradient, for the message.

    Raises:
        PlanError: The model has a train_step of its own.
    """
    if is_custom(keras, model, "train_step"):
        raise PlanError(f"model {model.name!r} has a custom train_step, which {why} cannot be combined with")


def is_custom(keras: Any, model: Any, method: str) -> bool:
    """Returns whether the model replaces a method of `keras.Model`.

    Args:
        keras: The keras module.
        model: A model.
        method: Name of the method.
    """
    return getattr(getattr(model, method), "__func__", None) is not getattr(keras.Model, method)


def optimizer_config(keras: Any, model: Any) -> Any:
    """Returns the settings of a model's optimizer, to be taken as it was compiled: a learning rate may be set later.

    What it is set to is in every order; in a fingerprint that is taken anew it would tell parties apart.
    """
    return _config(keras, model.optimizer)


def model_fingerprint(keras: Any, model: Any, spec: object, optimizer: object, frozen: Mapping[str, str]) -> bytes:
    """Returns SHA-256 over the model's architecture, roles, optimizer, loss, metrics and frozen values.

    Args:
        keras: The keras module.
        model: A built, compiled model.
        spec: Its tensors and their roles.
        optimizer: As `optimizer_config` returned it.
        frozen: Frozen tensor -> hash of its values.
    """
    parts = {"class": type(model).__qualname__, "spec": repr(spec), "model": _config(keras, model)}
    parts |= {"frozen": dict(frozen), "optimizer": optimizer}
    if isinstance(parts["model"], dict) and isinstance(parts["model"].get("compile_config"), dict):
        parts["model"]["compile_config"].pop("optimizer", None)  # as it is by now
    source = model._compile_config.config if getattr(model, "_compile_config", None) else {}
    for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        parts[name] = _config(keras, source.get(name))
    text = json.dumps(parts, sort_keys=True, default=lambda value: type(value).__qualname__)
    return hashlib.sha256(text.encode()).digest()


def _config(keras: Any, value: Any) -> Any:
    try:
        with unwarned(WARNING):
            return without_places(keras.saving.serialize_keras_object(value))
    except (NotImplementedError, TypeError, ValueError):  # A class without get_config: its weights' names must do.
        return type(value).__qualname__
    except OSError:  # Keras wants to show the source of a lambda; that of one typed at a prompt is nowhere.
        return type(value).__qualname__
