# SPDX-License-Identifier: Apache-2.0
"""What users of Keras and PyTorch type on a model: done where it has a meaning for several parties, or refused by name.

Knows what there is in place of each word that is refused. Knows no run and no round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import PlanError
from fedray.ml.nn.federation import Federation
from fedray.ml.nn.history import History
from fedray.ml.nn.optimizer import Optimizer
from fedray.ml.nn.saving import SavedModels

_FEWER_ROWS = "for a trial run on a few rows of each party say fit(first=n)"
_SIDE_BY_SIDE = "parties compute side by side, each with the threads that sf.init(threads=...) gives it"
_COMPILED = "the builder compiles the model, inside every party: say it there"
REFUSED_ARGUMENTS: Mapping[str, str] = {
    "steps_per_epoch": f"an epoch is every row once, and its rounds follow from batch_size; {_FEWER_ROWS}",
    "validation_steps": "all rows are validated on; pass fewer, as validation_data=(x.head(n), y.head(n))",
    "validation_batch_size": "validation takes batch_size; no figure depends on it",
    "steps": "all rows are taken; pass fewer, as x.head(n)",
    "workers": _SIDE_BY_SIDE,
    "use_multiprocessing": _SIDE_BY_SIDE,
    "max_queue_size": _SIDE_BY_SIDE,
    "optimizer": _COMPILED,
    "loss": _COMPILED,
    "metrics": _COMPILED,
    "learning_rate": "say fed_model.optimizer.learning_rate = ..., or say it in the builder",
    "rounds": "say epochs, and aggregate_freq for the local batches between two sums",
}
"""Argument of Keras's methods, and of others that train several parties -> what to say instead."""

_CALLBACKS = "callbacks run in fit"
_AT_DRIVER = "say it of fed_model.global_model(), the model of its framework in this process"
_IN_PARTIES = "the parties train, in fit; " + _AT_DRIVER
_WEIGHTS = "fed_model.get_weights() returns the global weights, set_weights(...) sets them everywhere; "
_MODE = "fit trains, and evaluate and predict use the model as it is for that, each by itself"
_GPUS = "a party computes on a GPU where sf.init(..., resources={'alice': {'GPU': 1}}) gives it one"
REFUSED_WORDS: Mapping[str, str] = {
    "compile": f"{_COMPILED}, and make another FLModel; fed_model.optimizer.learning_rate can be set any time",
    "add": "the builder adds layers, inside every party",
    "build": "every party builds the model, from the builder",
    "train_on_batch": "fit trains; aggregate_freq says after how many local batches parties sum",
    "test_on_batch": "evaluate takes all rows that it is given; x.head(n) are a few",
    "predict_on_batch": "predict takes all rows that it is given; x.head(n) are a few",
    "loss": "history.history['loss'] has the losses; " + _AT_DRIVER,
    "metrics_names": "[metric.name for metric in fed_model.evaluate(x, y)[0]]",
    "load_state_dict": "load_weights(path) takes a file, set_weights([...]) arrays in the framework's order",
    "zero_grad": _IN_PARTIES,
    "backward": _IN_PARTIES,
    "forward": "predict(x) predicts at the parties; " + _AT_DRIVER,
    "cuda": _GPUS,
    "cpu": _GPUS,
    "to": _GPUS,
    "device": _GPUS,
    "half": "the builder says the type of numbers",
    "float": "the builder says the type of numbers",
    "double": "the builder says the type of numbers",
    "train": _MODE,
    "eval": _MODE,
    "training": _MODE,
    **dict.fromkeys(("weights", "trainable_weights", "non_trainable_weights", "variables"), _WEIGHTS + _AT_DRIVER),
    **dict.fromkeys(("parameters", "named_parameters", "buffers", "trainable_variables"), _WEIGHTS + _AT_DRIVER),
    **dict.fromkeys(("layers", "get_layer", "inputs", "outputs", "input_shape", "output_shape"), _AT_DRIVER),
    **dict.fromkeys(("modules", "children", "named_modules", "register_forward_hook", "apply"), _AT_DRIVER),
    **dict.fromkeys(("to_json", "get_config", "export", "call", "quantize", "metrics"), _AT_DRIVER),
    "trainable": "the builder says which layers are frozen, with trainable=False",
    "requires_grad_": "the builder says which tensors are frozen, with requires_grad=False",
    "reset_states": "a whole sequence is in each row",
}
"""Attribute of a Keras model or a PyTorch module -> what to say instead."""


def refuse(method: str, arguments: Mapping[str, Any]) -> None:
    """Refuses arguments that a method has not, by name.

    Args:
        method: Its name.
        arguments: What it was given beside its own.

    Raises:
        PlanError: One means something elsewhere; the message says what does that here.
        TypeError: There is one that nobody knows.
    """
    for name in arguments:
        if name == "callbacks":
            raise PlanError(f"{method}: {name} is not supported: {_CALLBACKS}")
        if name in REFUSED_ARGUMENTS:
            raise PlanError(f"{method}: {name} is not supported: {REFUSED_ARGUMENTS[name]}")
        raise TypeError(f"FLModel.{method}() got an unexpected keyword argument {name!r}")


def trial(first: int) -> str:
    """Returns what a fit on a few rows says of itself."""
    return f"first={first}: a trial run on the first {first} rows of each party, no more"


class ModelWords:
    """Words of Keras's and PyTorch's, for a class that has the model; holds nothing of its own.

    What reads the global weights lets them leave a party as `save` does, as egress kind `aggregate`.
    """

    _federation: Federation
    _files: SavedModels
    _optimizer: Optimizer
    _history: History | None
    _seed_is_open: bool

    @property
    def history(self) -> History | None:
        """The history of the last `fit`, also of one that was interrupted; None before."""
        return self._history

    def summary(self, print_fn: Callable[[str], Any] | None = None) -> None:
        """Prints the model as its framework does, from the builder, in this process; nothing leaves a party.

        Args:
            print_fn: Takes each line in place of `print`.
        """
        self._files.summary(self._federation.row, print_fn or print)

    def get_weights(self) -> list[NDArray[Any]]:
        """Returns the global weights in the framework's order, tensors that stay in their party as they were built."""
        self._seed_is_open = False
        return self._federation.arrays()

    def set_weights(self, weights: Sequence[NDArray[Any]]) -> None:
        """Sets the global weights everywhere, in the order of `get_weights`; local tensors stay as they are.

        Raises:
            DataError: Number or shapes differ from the model's.
        """
        self._seed_is_open = False
        self._federation.set_arrays(weights)

    def save_weights(self, path: str | Path) -> None:
        """Saves the global weights alone, as a stock file of the framework; see `save` for the whole model.

        Raises:
            PlanError: The path ends otherwise.
        """
        self._seed_is_open = False
        self._files.save(self._federation, path, "weights")

    def load_weights(self, path: str | Path) -> None:
        """Replaces weights, everywhere, by those of a file that `save_weights` wrote, or the framework itself.

        Keras's are read by Keras, in this process.

        Raises:
            PlanError: There is no such file.
            DataError: It holds another model's.
        """
        self._seed_is_open = False
        self._files.load_weights(self._federation, path)

    def count_params(self) -> int:
        """Returns how many numbers the global model has."""
        return sum(int(np.size(array)) for array in self.get_weights())

    def state_dict(self) -> dict[str, Any]:
        """Returns the tensors of a PyTorch model by name, with the global weights, in this process.

        Raises:
            PlanError: It is no PyTorch model.
        """
        if self._files.backend != "torch":
            raise PlanError(f"state_dict is PyTorch's, and this model has backend={self._files.backend!r}; {_WEIGHTS}")
        self._seed_is_open = False
        module = self._files.global_model(self._federation, self._optimizer.chosen)
        return dict(module.state_dict())

    if not TYPE_CHECKING:  # a type checker is to go on finding misspelt names

        def __getattr__(self, name: str) -> Any:
            if name in REFUSED_WORDS:
                raise AttributeError(f"an FLModel has no {name!r}: {REFUSED_WORDS[name]}")
            near = get_close_matches(name, dir(type(self)), n=1)
            meant = f"; is {near[0]!r} meant?" if near and not name.startswith("_") else ""
            raise AttributeError(f"an FLModel has no {name!r}{meant}")
