# SPDX-License-Identifier: Apache-2.0
"""KerasBackend: a compiled Keras model in one party.

Knows no strategy, no protocol and no other party. What it cannot do with a model it says when the model or the data is
handed over, not in the middle of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.backend import Batch, Data, FileKind, ModelFacts, Snapshot
from fedray.backends.keras import checks, files, layers, rates, shapes
from fedray.backends.keras.beginning import Beginning
from fedray.backends.keras.constraints import check_shared
from fedray.backends.keras.data import KerasData, RowNumbers, bound_data, to_tensors, two_rows
from fedray.backends.keras.fitted import Fitted, fit
from fedray.backends.keras.flat import FlatVariables
from fedray.backends.keras.frozen import FrozenTensors
from fedray.backends.keras.graph import Graphs
from fedray.backends.keras.optimizers import copying, follow, variables, without_overflow
from fedray.backends.keras.probe import Probe
from fedray.backends.keras.schedule import PlannedSchedule
from fedray.backends.keras.start import frameworks
from fedray.backends.keras.state import KerasState, seeded, try_gradient, way_back
from fedray.backends.keras.traces import Traces, identity
from fedray.backends.rows import as_arrays, row_weights
from fedray.backends.spec import ParamSpec
from fedray.errors import DataError, PlanError
from fedray.metrics import Mean, Metric
from fedray.strategies.strategy import Hook, State, Strategy
from fedray.tree import Tree, common_rows
from fedray.types import Vector


class KerasBackend:
    """One model behind one flat vector; see `fedray.backends.backend.Backend`.

    Args:
        builder: Returns a compiled Keras model; called once, under the seed.
        seed: Everything random about building; parties with the same seed and builder have the same model.
        noise_seed: What the model draws while it trains (dropout); each party has its own.
        threads: Compute threads of the process; takes effect before TensorFlow's first operation only.
        local: Patterns for the names of weights that stay in the party.

    Raises:
        PlanError: The builder's model cannot be trained here, or a pattern matches nothing.
    """

    def __init__(
        self, builder: Callable[[], Any], *, seed: int, noise_seed: int = 0, threads: int = 1, local: Sequence[str] = ()
    ) -> None:
        self._tf, self._keras = frameworks(threads)
        self._seed = seed
        self._noise_seed = noise_seed
        self._patterns = tuple(local)
        self._flat: FlatVariables | None = None
        self._fitted: Fitted | None = None
        self._rows = RowNumbers(self._tf)
        self._log_sums = np.zeros(0)
        self._log_rows = 0
        self._as_built: list[tuple[Any, NDArray[Any]]] = []  # local weights with their first values
        self._own_gradients: list[Any] | None = None  # of local weights, between a round's gradient and its answer
        self._strategy: Strategy | None = None
        self._model = self._seeded(builder)
        checks.check_model(self._keras, self._model)
        self._fingerprint, self._optimizer = b"", checks.optimizer_config(self._keras, self._model)
        layers.check_stateless(self._model)
        self._probe = Probe(self._tf, self._model, self._seeded)
        if self._model.built:
            self._seeded(self._take_variables)

    @property
    def spec(self) -> ParamSpec:
        """The weights, and what the words of the flat vector are."""
        return self._variables().spec

    def bind(
        self,
        x: Tree,
        y: Tree | None = None,
        sample_weight: Tree | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> KerasData:
        """Takes arrays over as tensors; builds a model that has waited for them; see `Steps.bind`."""
        floatx = self._keras.config.floatx()
        x = as_arrays(x, floatx)
        shapes.check_inputs(self._model, x)
        outputs = self._outputs_for(x)
        if y is not None:
            y = as_arrays(y, floatx)
            y = shapes.like_outputs(self._model, y, outputs) if self._needs_labels else y
        if sample_weight is not None and self._needs_labels and sample_weight.nested:
            sample_weight = shapes.like_outputs(self._model, sample_weight, outputs)
        weight = row_weights(y, sample_weight, class_weight, floatx)
        trees = tuple(tree for tree in (x, y, weight) if tree is not None)
        rows = common_rows(trees)
        if y is not None and self._needs_labels:
            check = partial(shapes.check_labels, self._keras, self._model, y, outputs)
            check() if self._fitted else self._seeded(check)
        self._try_on(trees)
        return to_tensors(self._tf, trees, rows)

    def check_strategy(self, strategy: Strategy) -> None:
        """Refuses a strategy that this model cannot be trained with, now or once it is built; see `Steps`."""
        self._strategy = strategy
        checks.check_strategy(self._keras, self._model, strategy)
        check_shared(self._keras, self._model, self._flat, strategy)

    def weights(self) -> Vector:
        """Returns the flat vector, read-only."""
        flat = self._variables()
        return _view(self._traces.get("get", flat.get)())

    def set_weights(self, values: Vector) -> None:
        """Sets every shared weight from the flat vector."""
        flat = self._variables()
        self._traces.get("put", flat.put, self._vector_spec)(self._vector(values))
        follow(self._copying, flat.trainable + flat.own)

    def begin_round(self, first: int, planned: int, epochs: int) -> None:  # noqa: ARG002 (schedules count batches)
        """Says where in the run a round is; see `Steps.begin_round`."""
        self._variables()
        self._schedule.place(first, planned)

    def train(
        self, start: Vector, data: Data, batches: Sequence[Batch], hook: Hook | None = None, state: State | None = None
    ) -> tuple[Vector, int, Snapshot]:
        """Sets the weights to `start` and trains; the new flat vector is read-only; see `Steps.train`."""
        bound, rows, ends, count = self._arguments(data, batches)
        self._schedule.take(len(batches))
        if self._copying:
            self.set_weights(start)
        arguments: tuple[Any, ...] = (self._vector(start), bound.tensors, rows, ends)
        specs: tuple[Any, ...] = (self._vector_spec, bound.specs, self._rows_spec, self._rows_spec)
        if hook is None:
            function = self._traces.get(("train", bound.kind), self._local.after(self._ready().steps.train), *specs)
        else:
            checks.check_own_step(self._keras, self._model, "a strategy that changes gradients")
            held = {name: self._tf.constant(value, self._dtype) for name, value in (state or {}).items()}
            specs += ({name: self._tf.TensorSpec(value.shape, self._dtype) for name, value in held.items()},)
            key = ("train", bound.kind, identity(hook), tuple(held))
            function = self._traces.get(key, self._local.after(self._ready().steps.train_with(hook)), *specs)
            arguments += (held,)
        flat, sums, local = function(*arguments)
        self._frozen.check()
        if self._log_sums.size:
            self._log_sums = self._log_sums + sums.numpy()
        self._log_rows += count
        return _view(flat), count, self._snapshot(local)

    def gradient(self, data: Data, batches: Sequence[Batch]) -> tuple[Vector, int]:
        """Returns the mean gradient over the batches' rows and their number; keeps that of local weights."""
        checks.check_own_step(self._keras, self._model, "a strategy that averages gradients")
        bound, rows, ends, count = self._arguments(data, batches)
        specs = (bound.specs, self._rows_spec, self._rows_spec)
        function = self._traces.get(("gradient", bound.kind), self._ready().steps.gradient, *specs)
        compute = partial(function, bound.tensors, rows, ends)
        mean, own = without_overflow(self._tf, self._model.optimizer, compute, partial(way_back, self))
        self._frozen.check()
        self._own_gradients = list(own) if count else None
        return _view(mean), count

    def apply_gradient(self, gradient: Vector) -> None:
        """Lets the optimizer apply a gradient, with the kept one of local weights; non-trainable words are set."""
        steps, (own, self._own_gradients) = self._ready().steps, (self._own_gradients, None)
        if steps.untouched is None:  # a party that has had no rows takes the others' step all the same
            try_gradient(self, self._sample)
        if own:
            like = [self._tf.TensorSpec(part.shape, part.dtype) for part in own]
            function = self._traces.get("apply all", steps.apply_gradient, self._vector_spec, like)
            function(self._vector(gradient), own)
        else:
            self._traces.get("apply", steps.apply_gradient, self._vector_spec)(self._vector(gradient))

    def reset_metrics(self) -> None:
        """Forgets the training metrics accumulated so far."""
        self._ready().metrics.reset()
        self._log_sums, self._log_rows = np.zeros(len(self._ready().trained.logs)), 0

    def take_metrics(self) -> list[Metric]:
        """Returns the training metrics accumulated since the last call; see `Steps.take_metrics`."""
        fitted = self._ready()
        taken = fitted.trained.read(self._log_sums, self._log_rows)
        fitted.metrics.reset(but_apart=True)
        self._log_sums, self._log_rows = np.zeros(len(fitted.trained.logs)), 0
        return taken

    def loss_so_far(self) -> Mean | None:
        """Returns the loss in the training metrics so far; see `Steps.loss_so_far`."""
        return self._ready().trained.loss(self._log_sums, self._log_rows)

    def evaluate(self, data: Data, batches: Sequence[Batch]) -> list[Metric]:
        """Returns the metrics over the batches; training metrics are not touched."""
        fitted = self._ready()
        bound, rows, ends, count = self._arguments(data, batches)
        specs = (bound.specs, self._rows_spec, self._rows_spec)
        function = self._traces.get(("evaluate", bound.kind), fitted.steps.evaluate, *specs)
        kept = fitted.metrics.values()
        try:
            fitted.metrics.reset()
            sums = function(bound.tensors, rows, ends).numpy()
            self._frozen.check()
            return fitted.tested.read(sums, count)
        finally:
            fitted.metrics.set_values(kept)

    def finish(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Returns metrics whose states are sums over parties with their values computed by the stock metric."""
        return self._ready().metrics.finish(metrics)

    def predict(self, data: Data, batches: Sequence[Batch]) -> Tree:
        """Returns the model's outputs, row by row."""
        bound = bound_data(data)
        specs = (bound.specs[:1], self._rows_spec)
        function = self._traces.get(("predict", repr(specs)), self._predictor.predict, *specs)
        parts = [self._probe.nothing(bound.specs[0])]
        for batch in batches:
            found = function(bound.tensors[:1], self._tf.constant(batch.rows, self._tf.int64))
            parts.append(Tree(found).map(lambda tensor: tensor.numpy()))
        leaves = zip(*(part.leaves() for part in parts), strict=True)
        return parts[-1].rebuild([np.concatenate(leaf) for leaf in leaves])

    def snapshot(self) -> Snapshot:
        """Returns all local state; tensors that share memory with the variables until those change."""
        return self._snapshot(self._local.read())

    def restore(self, snapshot: Snapshot) -> None:
        """Puts back what `snapshot` returned."""
        self._local.write(snapshot["variables"])
        self._log_sums, self._log_rows = snapshot["logs"]
        self._own_gradients = None

    def stored(self) -> Any:
        """Returns the same as plain values; see `LocalState.stored`."""
        return {"variables": self._local.stored(), "logs": (self._log_sums, self._log_rows)}

    def take_stored(self, stored: Any) -> None:
        """Puts back what `stored` returned; see `LocalState.take_stored`."""
        self._local.take_stored(stored["variables"])
        (self._log_sums, self._log_rows), self._own_gradients = stored["logs"], None

    def forget(self) -> None:
        """Lets the optimizer begin anew; see `LocalState.forget`."""
        self._variables()
        self._beginning.put_back()

    def fingerprint(self) -> bytes:
        """Returns SHA-256 over architecture, roles, optimizer, loss, metrics and frozen values."""
        if not self._fingerprint:
            told = self.spec, self._optimizer, self._fixed()
            self._fingerprint = checks.model_fingerprint(self._keras, self._model, *told)
        return self._fingerprint

    def learning_rate(self) -> float:
        """Returns the optimizer's current learning rate; see `Steps.learning_rate`."""
        return rates.rate_of(self._model.optimizer)

    def set_learning_rate(self, value: float) -> None:
        """Sets the optimizer's learning rate; see `Steps.set_learning_rate`."""
        rates.set_rate(self._model.optimizer, value)

    def facts(self) -> ModelFacts:
        """Returns names and shapes of tensors and metrics; data must have been bound."""
        fitted = self._ready()
        measured = fitted.trained.words, fitted.tested.words, fitted.metrics.directions
        return ModelFacts(self.spec, *measured, self._fixed(), fitted.metrics.apart, fitted.doubts)

    def keep_apart(self, reasons: Mapping[str, str]) -> None:
        """Lets metrics stay with their party; see `Weights.keep_apart`."""
        self._ready().metrics.keep_apart(reasons)

    def export_model(self, kind: FileKind = "model", own: bool = False, ending: str = "") -> bytes:  # noqa: ARG002
        """Returns the compiled model as a `.keras` file, or its weights as a `.weights.h5`; see `ModelFile`."""
        self._variables()
        return files.export_model(self._model, kind == "weights", () if own else self._as_built)

    def import_model(self, content: bytes, own: bool = False) -> None:
        """Takes weights and learning rate from the content of a `.keras` file; runs none of its code."""
        flat = self._variables()
        files.import_model(self._model, content, flat.local if own else flat.variables + flat.frozen)
        if not own:
            rates.take_rate(self._model.optimizer, content)
        self._agree_anew()

    def arrays(self) -> list[NDArray[Any]]:
        """Returns the weights in the order of Keras's `get_weights()`, local ones as built."""
        return files.arrays(self._model, self._as_built)

    def set_arrays(self, values: Sequence[NDArray[Any]]) -> None:
        """Sets the weights from arrays in the order of Keras's `get_weights()`; local ones stay as they are."""
        files.set_arrays(self._model, values, [variable for variable, _ in self._as_built])
        self._agree_anew()

    def _agree_anew(self) -> None:
        """Takes frozen values that were set from outside for those to be agreed on."""
        if layers.take_over(self._model):
            self._traces.forget()
        self._frozen.keep()
        self._fingerprint = b""

    def _fixed(self) -> dict[str, str]:
        """Returns hashes of all that no round changes and everybody has to have the same."""
        return {**self._frozen.hashes, **layers.known_hashes(self._model)}

    def _variables(self) -> FlatVariables:
        if self._flat is None:
            raise PlanError(f"model {self._model.name!r} learns its shape from the data; call fit or evaluate first")
        return self._flat

    def _ready(self) -> Fitted:
        if self._fitted is None:
            raise PlanError(f"model {self._model.name!r} has seen no labels yet; call fit or evaluate first")
        return self._fitted

    @property
    def _dtype(self) -> Any:
        return self._variables().dtype

    def _take_variables(self) -> None:
        """Fixes the flat vector and builds the optimizer, once the model is built."""
        flat = self._flat = FlatVariables(self._tf, self._model, self._patterns)
        self._frozen = FrozenTensors(self._tf, flat.frozen, [param.name for param in flat.spec.of("frozen")])
        self._as_built = [(variable, variable.numpy()) for variable in flat.local]
        self._model.optimizer.build(self._model.trainable_variables)
        self._schedule = PlannedSchedule(self._tf, self._keras, self._model.optimizer)
        checks.check_optimizer(self._model)  # once more: one that picks optimizers by variable knows them all only now
        self._copying = copying(self._keras, self._model.optimizer)
        self._beginning = Beginning(self._keras, self._model.optimizer)
        check_shared(self._keras, self._model, flat, self._strategy)
        self._local = KerasState(
            self._tf, [*(v.value for v in flat.variables + flat.frozen), *self._schedule.variables], self._noise_seed
        )
        self._local.adopt(v.value for v in (*self._model.variables, *variables(self._keras, self._model.optimizer)))
        self._traces = Traces(self._tf, self._model, self._local, self._seeded)
        self._predictor = Graphs(self._tf, self._model, self._flat, (), ())

    def _outputs_for(self, x: Tree) -> Tree:
        """Returns what the model gives for no rows of this form; builds the flat vector where need be."""
        outputs = self._probe.outputs(x)
        if self._flat is None:
            self._seeded(self._take_variables)
        return outputs

    def _try_on(self, trees: Sequence[Tree]) -> None:
        """Passes two rows through the loss once: finds what does not fit, and builds what is unbuilt."""
        if self._fitted is None and (len(trees) > 1 or not self._needs_labels):
            flat = self._variables()
            sample = self._sample = to_tensors(self._tf, tuple(map(two_rows, trees)), 2)
            self._fitted = self._seeded(lambda: fit(self._tf, self._keras, self._model, flat, sample.tensors))
            self._local.adopt(v.value for v in self._ready().metrics.variables)
            self._log_sums = np.zeros(len(self._ready().trained.logs))

    @property
    def _needs_labels(self) -> bool:
        """Whether the labels go into a stock loss; a step or loss of the user's own says itself what it needs."""
        custom = (checks.is_custom(self._keras, self._model, method) for method in ("train_step", "compute_loss"))
        return self._model.loss is not None and not any(custom)

    def _seeded(self, work: Callable[[], Any]) -> Any:
        return seeded(self._keras, self._seed, work)

    def _snapshot(self, variables: Sequence[Any]) -> Snapshot:
        return {"variables": variables, "logs": (self._log_sums, self._log_rows)}

    def _arguments(self, data: Data, batches: Sequence[Batch]) -> tuple[KerasData, Any, Any, int]:
        """Returns the data set, all row numbers end to end, where each batch ends, and how many rows that are."""
        bound = bound_data(data)
        if self._needs_labels and len(bound.tensors) == 1:
            raise DataError(f"y: model {self._model.name!r} is trained and evaluated on labels, found none")
        return bound, *self._rows.of(batches)

    def _vector(self, values: Vector) -> Any:
        size = self._variables().size
        if values.shape != (size,):
            raise DataError(f"weights: expected {size} words, found shape {values.shape}")
        return self._tf.constant(values, self._dtype)

    @property
    def _vector_spec(self) -> Any:
        return self._tf.TensorSpec([self._variables().size], self._dtype)

    @property
    def _rows_spec(self) -> Any:
        return self._tf.TensorSpec([None], self._tf.int64)


def _view(tensor: Any) -> Vector:
    """Returns a tensor's memory as a read-only array; a copy would be the round's largest."""
    return np.asarray(memoryview(tensor))
