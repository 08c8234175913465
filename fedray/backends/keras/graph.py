# SPDX-License-Identifier: Apache-2.0
"""The traced functions of the Keras backend: one graph call per round, whatever the number of local batches.

A round's graph sets the weights from the flat vector, loops over the batches, and reads the flat vector back. Batches
are row numbers; rows are gathered inside the graph from tensors that stay in the party. Batch sizes are not part of any
signature, so nothing is traced twice.

Works on the modules and the model it is handed; imports no framework. Knows no metrics' meaning and no strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedray.backends.keras.flat import FlatVariables
from fedray.backends.keras.optimizers import loss_scale, parts
from fedray.strategies.strategy import Hook

Tensors = tuple[Any, ...]


class Graphs:
    """Builds the functions to be traced for one model.

    Args:
        tf: The tensorflow module.
        model: A built, compiled Keras model.
        flat: Its variables as one vector.
        train_logs: Names of values that a custom train_step returns and no metric keeps.
        test_logs: The same of a custom test_step.

    Attributes:
        untouched: Which trainable variables, shared ones before local ones, the loss does not depend on; None before
            the first gradient. Keras leaves those alone; a gradient of zeros would let weight decay shrink them.
    """

    def __init__(
        self, tf: Any, model: Any, flat: FlatVariables, train_logs: Sequence[str], test_logs: Sequence[str]
    ) -> None:
        self._tf = tf
        self._model = model
        self._flat = flat
        self._train_logs = train_logs
        self._test_logs = test_logs
        self.untouched: frozenset[int] | None = None

    def train(self, start: Any, data: Tensors, rows: Any, ends: Any) -> tuple[Any, Any]:
        """Keras's own train_step on every batch; returns the flat vector after it, and sums of logs.

        Args:
            start: float[size], the flat vector to begin with.
            data: The party's tensors, rows on the first axis.
            rows: int64[m], the row numbers of all batches, end to end.
            ends: int64[k], where each batch ends in `rows`.
        """
        step = self._compiled(self._model.train_step)
        self._flat.put(start)
        sums = self._logged_loop(step, self._train_logs, data, rows, ends)
        return self._flat.get(), sums

    def train_with(self, hook: Hook) -> Callable[..., tuple[Any, Any]]:
        """Returns `train` with a step that lets the hook change each gradient; takes the hook's state as well.

        Gradients of local variables pass by the hook, which knows of the shared ones only.
        """

        def train(start: Any, data: Tensors, rows: Any, ends: Any, state: Mapping[str, Any]) -> tuple[Any, Any]:
            def step(batch: Tensors, size: Any) -> Tensors:  # noqa: ARG001
                gradient, own = self._gradient(batch)
                self._apply(hook(state, gradient, self._flat.get_trainable()), own)
                return ()

            self._flat.put(start)
            self._loop(step, data, rows, ends, ())
            return self._flat.get(), self._tf.zeros([0])

        return train

    def gradient(self, data: Tensors, rows: Any, ends: Any) -> tuple[Any, list[Any]]:
        """Returns mean gradients over all rows: [size], values in non-trainable words, and local ones; see `train`."""
        tf, flat = self._tf, self._flat

        def step(batch: Tensors, size: Any, total: Any, *own: Any) -> Tensors:
            gradient, parts = self._gradient(batch)
            summed = (sum_ + part * tf.cast(size, part.dtype) for sum_, part in zip(own, parts, strict=True))
            return (total + gradient * tf.cast(size, flat.dtype), *summed)

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in flat.own]
        total, *own = self._loop(step, data, rows, ends, (tf.zeros([flat.spec.trainable], flat.dtype), *zeros))
        count = tf.maximum(tf.size(rows, tf.int64), 1)
        mean = tf.concat([total / tf.cast(count, flat.dtype), flat.get_others()], 0)
        return mean, [part / tf.cast(count, part.dtype) for part in own]

    def apply_gradient(self, gradient: Any, own: Sequence[Any] | None = None) -> None:
        """Lets the optimizer apply a flat gradient and those of local variables, if any; sets non-trainable words."""
        words = self._flat.spec.trainable
        self._apply(gradient[:words], own)
        self._flat.put_others(gradient[words:])

    def evaluate(self, data: Tensors, rows: Any, ends: Any) -> Any:
        """Keras's own test_step on every batch; returns sums of logs; see `train`."""
        return self._logged_loop(self._compiled(self._model.test_step), self._test_logs, data, rows, ends)

    def predict(self, data: Tensors, rows: Any) -> Any:
        """Keras's own predict_step on one batch, of x alone."""
        return self._model.predict_step(pack(self._gathered(data, rows)))

    def forward(self, x: Any, training: bool) -> Any:
        """Calls the model as Keras's train_step and test_step do."""
        return self._model(x, training=training) if self._model._call_has_training_arg else self._model(x)

    def loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> Any:
        """Returns the loss on one batch, whatever form its override has; see `keras.Model.compute_loss`."""
        return self._model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)

    def _gradient(self, batch: Tensors) -> tuple[Any, list[Any]]:
        """One forward and backward pass of Keras's standard train_step, metrics included.

        The gradient is that of the loss, whatever scale the optimizer wants it computed under: parties may have scales
        of their own, and a hook adds what is not scaled.

        Returns:
            The gradient of shared variables, [trainable], and those of local ones.
        """
        tf, model, flat = self._tf, self._model, self._flat
        x, y, sample_weight = (*batch, None, None)[:3]
        scale = loss_scale(tf, model.optimizer)
        with tf.GradientTape() as tape:
            y_pred = self.forward(x, training=True)
            loss = self.loss(x, y, y_pred, sample_weight, training=True)
            scaled = loss if scale is None else model.optimizer.scale_loss(loss)
        # Keras's own tracker: a model may list another metric of that name, which it updates itself.
        model._loss_tracker.update_state(loss, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0])
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        gradients = tape.gradient(scaled, [*flat.trainable, *flat.own])
        self.untouched = frozenset(place for place, gradient in enumerate(gradients) if gradient is None)
        shared = flat.join_gradients(gradients[: len(flat.trainable)])
        own = flat.own_gradients(gradients[len(flat.trainable) :])
        if scale is not None:
            shared, own = shared / tf.cast(scale, shared.dtype), [part / tf.cast(scale, part.dtype) for part in own]
        return shared, own

    def _gathered(self, data: Tensors, rows: Any) -> Tensors:
        """Returns these rows of every tensor, in the order of `rows`."""
        picked: Tensors = self._tf.nest.map_structure(lambda tensor: self._tf.gather(tensor, rows), data)
        return picked

    def _apply(self, gradient: Any, own: Sequence[Any] | None) -> None:
        """Lets the optimizer take one step; local variables have no part in it where they have no gradient."""
        tf, flat, optimizer = self._tf, self._flat, self._model.optimizer
        if own is None and any(getattr(part, "gradient_accumulation_steps", None) for part in parts(optimizer)):
            own = [tf.zeros(v.shape, v.dtype) for v in flat.own]  # this step may be for what earlier rounds piled up
        gradients = flat.split_gradient(gradient) + list(own or ())
        scale = loss_scale(tf, optimizer)
        if scale is not None:  # the optimizer divides by it
            gradients = [part * tf.cast(scale, part.dtype) for part in gradients]
        kept = [None if place in (self.untouched or ()) else part for place, part in enumerate(gradients)]
        variables = flat.trainable + (flat.own if own is not None else [])
        optimizer.apply_gradients(zip(kept, variables, strict=True))

    def _compiled(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """XLA only where the user compiled the model with it: on a CPU it is several times slower."""
        return self._tf.function(step, jit_compile=True, autograph=False) if self._model.jit_compile else step

    def _logged_loop(self, step: Any, logs: Sequence[str], data: Tensors, rows: Any, ends: Any) -> Any:
        tf = self._tf

        def logged(batch: Tensors, size: Any, sums: Any) -> Tensors:
            values = flat_logs(step(pack(batch)))
            if not logs:
                return (sums,)
            means = tf.stack([tf.reduce_mean(tf.cast(values[name], tf.float32)) for name in logs])
            return (sums + means * tf.cast(size, tf.float32),)

        return self._loop(logged, data, rows, ends, (tf.zeros([len(logs)]),))[0]

    def _loop(self, step: Callable[..., Tensors], data: Tensors, rows: Any, ends: Any, carried: Tensors) -> Tensors:
        """Runs `step(batch, size, *carried)` on rows[0:ends[0]], rows[ends[0]:ends[1]], ..."""
        tf = self._tf

        def body(number: Any, start: Any, *carried: Any) -> Tensors:
            stop = ends[number]
            picked = rows[start:stop]
            return (number + 1, stop, *step(self._gathered(data, picked), stop - start, *carried))

        first = (tf.constant(0), tf.constant(0, tf.int64), *carried)
        done = tf.while_loop(lambda number, *_: number < tf.size(ends), body, first, parallel_iterations=1)
        return tuple(done[2:])


def pack(batch: Tensors) -> Any:
    """Returns what Keras's fit hands to train_step: x, or (x,) where x is a list, (x, y), or (x, y, sample_weight)."""
    return batch if len(batch) > 1 or isinstance(batch[0], list | tuple) else batch[0]


def flat_logs(logs: Any) -> dict[str, Any]:
    """Returns the values a step returned, with nested dicts (of the compiled metrics' container) opened."""
    flat: dict[str, Any] = {}
    for name, value in (logs if isinstance(logs, Mapping) else {}).items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat
