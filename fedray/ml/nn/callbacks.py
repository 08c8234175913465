# SPDX-License-Identifier: Apache-2.0
"""Stock Keras callbacks at the driver: which are taken, which are refused, and the small model they see.

A callback's `logs` are the aggregated metrics. Keras itself is never imported here: whoever passes a Keras callback has
imported it already. A callback that overrides a per-batch hook is called after every round, and each round then ends a
segment; the others cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fedray.errors import PlanError
from fedray.ml.nn.optimizer import Optimizer

REFUSED: Mapping[str, str] = {
    "BackupAndRestore": "the optimizer's state stays inside each party; pass checkpoint=sf.Checkpoint(folder) to fit, "
    "which keeps all of a run where it belongs and goes on from there",
    "OrbaxCheckpoint": "it saves the optimizer's state, which stays inside each party; use ModelCheckpoint",
    "ProgbarLogger": "fit draws its own bar; pass verbose=1 or 2",
    "SwapEMAWeights": "it changes the optimizer's variables, which live inside each party",
    "TensorBoard": "it reads the model's layers and graphs, which live inside each party; use CSVLogger",
}
"""Stock callbacks that cannot work from the driver, with the reason."""

# Refused where a callback overrides them: a hook that is silently never called would be worse.
UNUSED_HOOKS = (
    "on_test_batch_begin",
    "on_test_batch_end",
    "on_predict_begin",
    "on_predict_end",
    "on_predict_batch_begin",
    "on_predict_batch_end",
)
USED_HOOKS = (
    "on_train_begin",
    "on_train_end",
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_test_end",
    "set_params",
    "set_model",
)
# The last two are Keras's older names of the first two.
BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """What the proxy needs of an `FLModel`, so that a callback cannot reach anything else of it."""

    get_weights: Callable[[], list[NDArray[Any]]]
    set_weights: Callable[[Sequence[NDArray[Any]]], None]
    save: Callable[[str], None]
    save_weights: Callable[[str], None]
    optimizer: Optimizer


class ModelProxy:
    """The model as a callback sees it: the global weights, `save`, the learning rate and `stop_training`.

    Args:
        access: How the model is reached.
    """

    def __init__(self, access: ModelAccess) -> None:
        self._access = access
        self.optimizer = access.optimizer
        self.stop_training = False

    def get_weights(self) -> list[NDArray[Any]]:
        """Returns the global weights in the order of Keras's `model.get_weights()`."""
        return self._access.get_weights()

    def set_weights(self, weights: Sequence[NDArray[Any]]) -> None:
        """Sets the global weights everywhere."""
        self._access.set_weights(weights)

    def save(self, filepath: str, overwrite: bool = True) -> None:
        """Saves the global model as a stock file of its framework at the driver."""
        self._check_overwrite(overwrite)
        self._access.save(filepath)

    def save_weights(self, filepath: str, overwrite: bool = True) -> None:
        """Saves the global weights alone as a stock file of their framework at the driver."""
        self._check_overwrite(overwrite)
        self._access.save_weights(filepath)

    @staticmethod
    def _check_overwrite(overwrite: bool) -> None:
        if not overwrite:
            raise PlanError("overwrite=False: the model proxy of a callback always overwrites; pass overwrite=True")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a callback's self.model has no {name!r}: in federated training it offers get_weights, set_weights, save, "
            "save_weights, optimizer.learning_rate and stop_training"
        )


class CallbackList:
    """Calls the user's callbacks in order, as Keras does.

    Args:
        callbacks: Stock or user-made Keras callbacks.
        access: How they reach the model.

    Attributes:
        callbacks: The same, as a list.
        model: What they see as `self.model`.
        wants_rounds: Whether one of them is to be called after every round.

    Raises:
        PlanError: A callback cannot work here; the message names it.
    """

    def __init__(self, callbacks: Sequence[Any], access: ModelAccess) -> None:
        for callback in callbacks:
            _check(callback)
        self.callbacks = list(callbacks)
        self.model = ModelProxy(access)
        self.wants_rounds = any(_wants_rounds(callback) for callback in callbacks)

    def check(self, apart: Mapping[str, str]) -> None:
        """Refuses callbacks that look at a metric which has no value over all parties.

        Args:
            apart: Metric that stays with its parties -> why.

        Raises:
            PlanError: One of them does.
        """
        for callback in self.callbacks:
            for name, why in apart.items():
                if _looks_at(callback, name):
                    kind = type(callback).__name__
                    raise PlanError(
                        f"callbacks: {kind} looks at {name!r}, which has no value over all parties: {why}; or let "
                        f"{kind} look at another metric"
                    )

    def prepare(self, params: Mapping[str, Any], directions: Mapping[str, str]) -> None:
        """Tells the callbacks about the run that begins.

        Args:
            params: What they see as `self.params`.
            directions: Metric name -> `"max"` or `"min"`; settles `mode="auto"` of those that monitor a metric.
        """
        for callback in self.callbacks:
            _settle_mode(callback, directions)
            callback.set_params(dict(params))
            callback.set_model(self.model)

    def call(self, hook: str, *args: Any, logs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Calls one hook of every callback; returns the logs as the callbacks left them.

        Args:
            hook: Name of the method.
            *args: Its arguments before the logs, such as the epoch.
            logs: What the callbacks see, and may add to.
        """
        # One dict for all, as in Keras: a callback sees what those before it have added, and `fit` puts it into the
        # history.
        shared = dict(logs or {})
        for callback in self.callbacks:
            getattr(callback, hook)(*args, shared)
        return shared

    def not_finite(self, step: int) -> bool:
        """Tells the callbacks that the loss is NaN; returns whether one of them asked to stop (TerminateOnNaN)."""
        self.call("on_train_batch_end", step, logs={"loss": float("nan")})
        return self.model.stop_training


def as_list(callbacks: Any) -> list[Any]:
    """Returns callbacks as a list: from None, from one callback, or from several."""
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]


def _check(callback: Any) -> None:
    name = type(callback).__name__
    if isinstance(callback, type) or not all(hasattr(callback, hook) for hook in USED_HOOKS):
        raise PlanError(f"callbacks: expected instances of keras.callbacks.Callback, found {callback!r}")
    # A user's subclass of a refused callback does what its base does.
    for base in type(callback).__mro__:
        if base.__name__ in REFUSED and base.__module__.startswith("keras."):
            raise PlanError(f"callbacks: {name} is not supported: {REFUSED[base.__name__]}")
    for hook in UNUSED_HOOKS:
        if _overrides(callback, hook):
            raise PlanError(f"callbacks: {name} overrides {hook}, which fit never calls; remove that method")


def _overrides(callback: Any, hook: str) -> bool:
    # Keras marks the empty hooks of its base class with this attribute, for the same purpose.
    method = getattr(callback, hook, None)
    return method is not None and not getattr(method, "_is_default", False)


def _wants_rounds(callback: Any) -> bool:
    kind = type(callback).__name__
    # These two override a batch hook but need it only in cases that are known here or reach them by `not_finite`.
    if kind == "TerminateOnNaN" or (kind == "ModelCheckpoint" and callback.save_freq == "epoch"):
        return False
    return any(_overrides(callback, hook) for hook in BATCH_HOOKS)


def _settle_mode(callback: Any, directions: Mapping[str, str]) -> None:
    monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
    # Keras would ask the compiled metrics, which live in the parties.
    if isinstance(monitor, str) and mode == "auto":
        callback.mode = directions.get(monitor.removeprefix("val_"), "auto")


def _looks_at(callback: Any, metric: str) -> bool:
    """Returns whether a callback monitors a metric, or puts it into the name of a file (ModelCheckpoint)."""
    path = str(getattr(callback, "filepath", ""))
    return any(
        getattr(callback, "monitor", None) == name or re.search(rf"\{{{re.escape(name)}[!:}}]", path)
        for name in (metric, f"val_{metric}")
    )
