# SPDX-License-Identifier: Apache-2.0
"""Local state of a Keras model: what stays with the party beside the shared weights, and the seeds it starts from.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from fedray.backends.backend import Backend, Batch, Data
from fedray.backends.generators import BUILDING, generators_kept
from fedray.errors import DataError

T = TypeVar("T")


def seeded(keras: Any, seed: int, work: Callable[[], T]) -> T:
    """Runs `work` under the seed, one at a time in this process; Python's and NumPy's generators stay as they were.

    It runs in a fresh thread, where Keras's counters of names and its global seed generator begin anew: the second
    model of a process is named and seeded like the first.

    Args:
        keras: The keras module.
        seed: The seed.
        work: What to run.
    """

    def run() -> T:
        keras.utils.set_random_seed(word(seed, "build"))
        return work()

    with BUILDING, generators_kept(), ThreadPoolExecutor(1) as fresh:
        return fresh.submit(run).result()


def word(seed: int, purpose: str) -> int:
    """Returns a 32-bit seed of its own for one purpose."""
    return int.from_bytes(hashlib.sha256(f"fedray keras {seed} {purpose}".encode()).digest()[:4], "big")


class KerasState:
    """Every variable that a step changes and that is not summed.

    Those are the optimizer's, metrics, counters, seed generators and local weights.

    Args:
        tf: The tensorflow module.
        others: The variables that are summed, and the frozen ones.
        noise_seed: This party's own randomness while training.
    """

    def __init__(self, tf: Any, others: Iterable[Any], noise_seed: int) -> None:
        self._tf = tf
        self._others = {variable.ref() for variable in others}
        self._noise_seed = noise_seed
        self._variables: dict[Any, Any] = {}
        self._pending: list[Any] = []
        self._first: dict[Any, Any] = {}

    def adopt(self, variables: Iterable[Any], *, traced: bool = False) -> None:
        """Takes in tf.Variables not known yet, and gives seed generators among them this party's own stream.

        Args:
            variables: The variables.
            traced: Whether only a graph has brought them to light: what was stored of them has waited until now.
        """
        for variable in variables:
            if variable.ref() in self._others or variable.ref() in self._variables:
                continue
            if "seed_generator_state" in variable.name:
                old = variable.numpy()
                own = word(self._noise_seed, f"noise {len(self._variables)} {old.tolist()}")
                variable.assign(np.asarray([own >> 1, 0], old.dtype))
            self._variables[variable.ref()] = variable
            if traced:
                self._first[variable.ref()] = np.array(variable.numpy())
            if self._pending:
                self._assign([variable], [self._pending.pop(0)])

    def __len__(self) -> int:
        return len(self._variables)

    def read(self) -> list[Any]:
        """Returns tensors that share memory with the variables until those change."""
        read = self._tf.raw_ops.ReadVariableOp
        return [read(resource=variable.handle, dtype=variable.dtype) for variable in self._variables.values()]

    def stored(self) -> list[Any]:
        """Returns arrays with the variables' values, in memory of their own."""
        return [np.array(variable.numpy()) for variable in self._variables.values()]

    def take_stored(self, values: Sequence[Any]) -> None:
        """Puts back what `stored` returned, perhaps in a process that has traced other graphs so far.

        Variables that graphs have brought to light since go back to what they began with.

        Raises:
            DataError: They are the values of other variables.
        """
        known = list(self._variables.values())
        late = known[len(values) :]
        if any(variable.ref() not in self._first for variable in late):
            raise _another_model()
        self._assign(known[: len(values)], values[: len(known)])
        self._assign(late, [self._first[variable.ref()] for variable in late])
        self._pending = list(values[len(known) :])

    @staticmethod
    def _assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
        for variable, value in zip(variables, values, strict=True):
            mine, found = (tuple(variable.shape), variable.dtype.as_numpy_dtype), np.asarray(value)
            if mine != (found.shape, found.dtype.type):
                raise _another_model()
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def after(self, step: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        """Returns a step that returns, behind its own results, what `read` returns after it: within one graph."""
        return lambda *arguments: (*step(*arguments), self.read())

    def write(self, values: Sequence[Any]) -> None:
        """Puts back what `read` returned. Variables that came later have nothing to go back to and stay."""
        for variable, value in zip(self._variables.values(), values, strict=False):
            variable.assign(value)


def _another_model() -> DataError:
    return DataError("the state that was kept is of another model: its optimizer, metrics or local tensors are others")


def try_gradient(backend: Backend, data: Data) -> None:
    """Computes a gradient of two rows for what is found out on the way, and puts everything back."""
    back = way_back(backend)
    backend.gradient(data, [Batch(np.arange(2))])
    back()


def way_back(backend: Backend) -> Callable[[], None]:
    """Returns what puts a model's weights and local state back as they are now."""
    start, kept = backend.weights(), backend.snapshot()

    def back() -> None:
        backend.restore(kept)
        backend.set_weights(start)

    return back
