# SPDX-License-Identifier: Apache-2.0
"""The functions of one model as graphs, each traced once. Works on the objects it is handed; imports no framework."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from fedray.backends.keras.state import KerasState
from fedray.strategies.strategy import Hook

Function: TypeAlias = Callable[..., Any]


class Traces:
    """Traces what is asked for the first time; a model that is compiled to run eagerly does so.

    Args:
        tf: The tensorflow module.
        model: A built, compiled Keras model.
        local: Its local state, which learns of the variables that tracing brings to light.
        seeded: Runs work under the model's seed.
    """

    def __init__(self, tf: Any, model: Any, local: KerasState, seeded: Callable[[Callable[[], Any]], Any]) -> None:
        self._tf, self._model, self._local, self._seeded = tf, model, local, seeded
        self._traced: dict[Any, Function] = {}

    def get(self, key: Any, function: Function, *specs: Any) -> Function:
        """Returns the function as one graph, the same one for the same key.

        Args:
            key: What makes two functions the same.
            function: What to trace.
            *specs: Shapes and dtypes of its arguments.
        """
        if key not in self._traced:
            eager = self._model.run_eagerly
            self._traced[key] = function if eager else self._seeded(lambda: self._trace(function, specs))
        return self._traced[key]

    def forget(self) -> None:
        """Has everything traced anew: a constant of the graphs has changed."""
        self._traced.clear()

    def _trace(self, function: Function, specs: tuple[Any, ...]) -> Function:
        known = -1
        while known < len(self._local):  # once more where the graph may return local state that it did not know of
            known = len(self._local)
            traced: Any = self._tf.function(function, autograph=False).get_concrete_function(*specs)
            self._local.adopt(traced.variables, traced=True)
        return traced  # type: ignore[no-any-return]  # a tf ConcreteFunction


def identity(hook: Hook) -> Any:
    """Returns what makes two hooks the same, so that one made anew with the same settings is not traced again."""
    if isinstance(hook, partial):
        return hook.func, hook.args, tuple(sorted(hook.keywords.items()))
    return hook
