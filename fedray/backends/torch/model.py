# SPDX-License-Identifier: Apache-2.0
"""TorchBackend: a PyTorch model in one party.

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
from fedray.backends.rows import as_arrays, row_weights
from fedray.backends.spec import ParamSpec, check_arrays
from fedray.backends.torch import checks, files, fingerprint, start, state, stored
from fedray.backends.torch.asked import asked_for
from fedray.backends.torch.data import TorchData, bound_data, row_numbers, to_arrays, to_tensors, two_rows
from fedray.backends.torch.fitted import FittedSteps, fit
from fedray.backends.torch.flat import FlatTensors, FrozenValues, as_array
from fedray.backends.torch.noise import Noise, word
from fedray.backends.torch.probe import ModuleProbe
from fedray.backends.torch.rates import Rates
from fedray.backends.torch.schedule import PlannedScheduler
from fedray.backends.torch.steps import Stepper
from fedray.backends.torch.tasks import task_of
from fedray.errors import DataError, PlanError
from fedray.metrics import Mean, Metric, words
from fedray.strategies.strategy import Hook, State, Strategy
from fedray.tree import Tree, common_rows
from fedray.types import Vector


class TorchBackend:
    """One module behind one flat vector; see `fedray.backends.backend.Backend`.

    Args:
        builder: Returns a module with its loss and optimizer; called once, under the seed.
        seed: Everything random about building; parties with the same seed and builder have the same model.
        noise_seed: What the model draws while it trains (dropout); each party has its own.
        threads: Compute threads, while the model runs.
        local: Patterns for the names of tensors that stay in the party.
        gpus: How many GPUs the party asks for.

    Raises:
        PlanError: PyTorch is not installed, the builder's model cannot be trained here, or a pattern matches nothing.
    """

    def __init__(
        self,
        builder: Callable[[], Any],
        *,
        seed: int,
        noise_seed: int = 0,
        threads: int = 1,
        local: Sequence[str] = (),
        gpus: float = 0.0,
    ) -> None:
        torch = self._torch = start.framework()
        self._device = start.device_of(torch, gpus)
        self._noise = Noise(torch, self._device, word(noise_seed, "noise"), threads)
        self._seed, self._threads, self._patterns = seed, threads, tuple(local)
        checks.check_builder(torch, builder)
        self._compiled = self._seeded(lambda: checks.as_compiled(torch, builder()))
        self._asked = asked_for(self._compiled.metrics, start.metric_class)
        self._module = self._compiled.module.to(self._device)
        self._task = task_of(torch, self._compiled, self._device)
        self._probe = ModuleProbe(torch, self._module, self._task, self._seeded)
        self._flat: FlatTensors | None = None
        self._fitted: FittedSteps | None = None
        self._strategy: Strategy | None = None
        self._own_gradients: list[Any] | None = None  # of local tensors, between a round's gradient and its answer
        self._fingerprint = b""
        if not checks.waits_for_shape(torch, self._module):
            self._take_tensors()

    @property
    def spec(self) -> ParamSpec:
        """The tensors of the model."""
        return self._tensors().spec

    def bind(
        self,
        x: Tree,
        y: Tree | None = None,
        sample_weight: Tree | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> TorchData:
        """Takes arrays over as tensors, and tries the model on rows of zeros like them; see `Steps.bind`."""
        torch, like = self._torch, checks.number_type(self._torch, self._module)
        numbers = "float64" if like == torch.float64 else "float32"
        x = as_arrays(x, numbers)
        y = None if y is None else as_arrays(y, numbers)
        weight = row_weights(y, sample_weight, class_weight, numbers)
        rows = common_rows([tree for tree in (x, y, weight) if tree is not None])
        tensors = partial(to_tensors, torch, device=self._device, like=like)
        outputs = self._probe.outputs(x, tensors)
        if self._flat is None:
            self._take_tensors()
        nothing = to_arrays(torch, outputs, "output").map(lambda array: array[:0])
        if y is None:
            return TorchData(tensors(x), None, None, rows, nothing)
        y = self._task.labels(y, outputs)
        for one in self._asked:
            one.check_labels(y.name, one.looks_at(y.nest))
        if self._fitted is None or weight is not None:
            few = None if weight is None else tensors(two_rows(weight))
            self._try_on(TorchData(tensors(two_rows(x)), tensors(two_rows(y)), few, 2, nothing), Tree(outputs))
        return TorchData(tensors(x), tensors(y), None if weight is None else tensors(weight), rows, nothing)

    def check_strategy(self, strategy: Strategy) -> None:
        """Refuses a strategy that this model cannot be trained with; see `Steps.check_strategy`."""
        self._strategy = strategy
        checks.check_strategy(self._compiled, self._flat is not None and bool(self._flat.own), strategy)

    def weights(self) -> Vector:
        """Returns the flat vector."""
        return self._tensors().get()

    def set_weights(self, values: Vector) -> None:
        """Sets every shared tensor from the flat vector."""
        self._tensors().put(values)

    def begin_round(self, first: int, planned: int, epochs: int) -> None:
        """Says where in the run a round is; see `Steps.begin_round`."""
        self._tensors()
        self._schedule.place(first, planned, epochs)

    def train(
        self, start: Vector, data: Data, batches: Sequence[Batch], hook: Hook | None = None, state: State | None = None
    ) -> tuple[Vector, int, Snapshot]:
        """Sets the weights to `start` and trains on the batches in order; see `Steps.train`."""
        flat, bound, fitted = self._tensors(), self._bound(data), self._ready()
        held = {
            name: value if isinstance(value, int | float) else flat.words(np.asarray(value))
            for name, value in (state or {}).items()
        }
        with self._noise.drawn():
            flat.put(start)
            rows = row_numbers(self._torch, batches, self._device)
            self._stepper.train(bound, rows, fitted.training.see, hook, held)
        self._frozen.check()
        return flat.get(), sum(len(batch.rows) for batch in batches), self.snapshot()

    def gradient(self, data: Data, batches: Sequence[Batch]) -> tuple[Vector, int]:
        """Returns the mean gradient over the batches' rows and their number; keeps that of local tensors."""
        flat, bound, fitted = self._tensors(), self._bound(data), self._ready()
        with self._noise.drawn():
            rows = row_numbers(self._torch, batches, self._device)
            mean, own = self._stepper.gradient(bound, rows, fitted.training.see)
        self._frozen.check()
        self._own_gradients = own if batches else None
        values = flat.get()
        values[: flat.spec.trainable] = mean.cpu().numpy()
        return values, sum(len(batch.rows) for batch in batches)

    def apply_gradient(self, gradient: Vector) -> None:
        """Lets the optimizer apply a gradient, with the kept one of local tensors; non-trainable words are set."""
        flat, (own, self._own_gradients) = self._tensors(), (self._own_gradients, None)
        values = flat.tensor(gradient)
        with self._noise.drawn():
            self._stepper.apply(values[: flat.spec.trainable], own)
        flat.put_others(values)

    def reset_metrics(self) -> None:
        """Forgets the training metrics accumulated so far."""
        self._ready().training.reset()

    def take_metrics(self) -> list[Metric]:
        """Returns the training metrics accumulated since the last call; see `Steps.take_metrics`."""
        measured = self._ready().training
        taken = measured.read()
        measured.reset(but_apart=True)
        return taken

    def loss_so_far(self) -> Mean | None:
        """Returns the loss in the training metrics so far; see `Steps.loss_so_far`."""
        return self._ready().training.loss()

    def evaluate(self, data: Data, batches: Sequence[Batch]) -> list[Metric]:
        """Returns the metrics over the batches; training metrics are not touched."""
        bound, measured = self._bound(data), self._ready().testing
        measured.reset()
        with self._noise.drawn():
            rows = row_numbers(self._torch, batches, self._device)
            self._stepper.evaluate(bound, rows, measured.see)
        self._frozen.check()
        return measured.read()

    def finish(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Returns metrics whose states are sums over parties with their values computed by the metric itself."""
        return self._ready().testing.metrics.finish(metrics)

    def predict(self, data: Data, batches: Sequence[Batch]) -> Tree:
        """Returns the model's outputs, row by row."""
        bound = bound_data(data)
        parts = [bound.nothing]
        with self._noise.drawn():
            for rows in row_numbers(self._torch, batches, self._device):
                parts.append(to_arrays(self._torch, self._stepper.predict(bound, rows), "output"))
        leaves = zip(*(part.leaves() for part in parts), strict=True)
        return bound.nothing.rebuild([np.concatenate(leaf) for leaf in leaves])

    def learning_rate(self) -> float:
        """Returns the learning rate of the optimizer's first group of parameters."""
        return self._rates.get()

    def set_learning_rate(self, value: float) -> None:
        """Sets the learning rate of the first group, and of the others in proportion.

        Raises:
            PlanError: The optimizer follows a schedule of its own.
        """
        self._rates.set(value)

    def snapshot(self) -> Snapshot:
        """Returns all local state, in memory of its own."""
        return {
            "tensors": state.values(self._private),
            "optimizer": state.optimizer_state(self._compiled.optimizer),
            "schedule": self._schedule.state(),
            "measured": None if self._fitted is None else self._fitted.training.state(),
            "noise": self._noise.state,
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Puts back what `snapshot` returned."""
        state.set_values(self._torch, self._private, snapshot["tensors"])
        state.set_optimizer_state(self._compiled.optimizer, snapshot["optimizer"])
        self._schedule.set_state(snapshot["schedule"])
        if snapshot["measured"] is not None:
            self._ready().training.set_state(snapshot["measured"])
        self._noise.state = snapshot["noise"]
        self._own_gradients = None

    def stored(self) -> Any:
        """Returns the same as plain values; see `LocalState.stored`."""
        kept = dict(self.snapshot())
        kept["optimizer"] = stored.by_number(self._compiled.optimizer, kept["optimizer"])
        kept["schedule"] = self._schedule.stored()
        return stored.plain(kept)

    def take_stored(self, kept: Any) -> None:
        """Puts back what `stored` returned; see `LocalState.take_stored`.

        Raises:
            DataError: It is of another model.
        """
        shapes = [tuple(tensor.shape) for tensor in self._private]
        found = stored.with_tensors(self._torch, kept, self._device)
        if [tuple(tensor.shape) for tensor in found["tensors"]] != shapes:
            raise DataError("the state that was kept is of another model: its local tensors are others")
        self._schedule.take_stored(found["schedule"])
        optimizer = stored.by_parameter(self._compiled.optimizer, found["optimizer"])
        self.restore(found | {"optimizer": optimizer, "schedule": self._schedule.state()})

    def forget(self) -> None:
        """Lets the optimizer begin anew; see `LocalState.forget`."""
        self._tensors()
        state.set_optimizer_state(self._compiled.optimizer, self._beginning)

    def fingerprint(self) -> bytes:
        """Returns SHA-256 over module, roles, optimizer, loss, metrics and frozen values."""
        if not self._fingerprint:
            self._fingerprint = fingerprint.fingerprint(self._made_with, self.spec, self._frozen.hashes)
        return self._fingerprint

    def facts(self) -> ModelFacts:
        """Returns names and shapes of tensors and metrics; data with labels must have been bound."""
        fitted = self._ready()
        measured = words(fitted.training.read()), words(fitted.testing.read())
        metrics = fitted.testing.metrics
        directions = {"loss": "min"} | metrics.directions
        return ModelFacts(self.spec, *measured, directions, dict(self._frozen.hashes), metrics.apart)

    def keep_apart(self, reasons: Mapping[str, str]) -> None:
        """Lets metrics stay with their party; see `Weights.keep_apart`."""
        self._ready().keep_apart(reasons)

    def export_model(self, kind: FileKind = "model", own: bool = False, ending: str = ".pt") -> bytes:  # noqa: ARG002
        """Returns the content of a file, a `state_dict` whichever kind is asked for; see `ModelFile`."""
        self._tensors()
        rate = None if self._schedule else self.learning_rate()
        return files.written(self._torch, self._module, {} if own else self._as_built, ending, rate)

    def import_model(self, content: bytes, own: bool = False) -> None:
        """Takes tensors and learning rate from a `.pt` or `.safetensors` file; runs none of its code."""
        flat = self._tensors()
        found, rate = files.read(self._torch, content, flat.named)
        self._set(found, own)
        if rate is not None and not own and not self._schedule:
            self.set_learning_rate(rate)

    def arrays(self) -> list[NDArray[Any]]:
        """Returns the tensors in the order of `state_dict`, local ones as built."""
        if self._flat is None:
            return []
        return [as_array(self._torch, self._as_built.get(id(t), t)) for t in self._flat.named.values()]

    def set_arrays(self, values: Sequence[NDArray[Any]]) -> None:
        """Sets the tensors from arrays in the order of `state_dict`; local ones stay as they are.

        Raises:
            DataError: They do not fit; see `check_arrays`.
        """
        named = self._tensors().named
        dtypes = [str(t.dtype).removeprefix("torch.") for t in named.values()]
        check_arrays(values, [tuple(t.shape) for t in named.values()], dtypes)
        arrays = zip(named, values, strict=True)
        self._set({name: self._torch.from_numpy(np.array(value)) for name, value in arrays}, own=False)

    def _set(self, found: Mapping[str, Any], own: bool) -> None:
        """Sets what stays in the party, or all else, by name; frozen values are those to be agreed on from now on."""
        private = {id(tensor) for tensor in self._private}
        for name, tensor in self._tensors().named.items():
            if (id(tensor) in private) == own:
                state.set_values(self._torch, [tensor], [found[name]])
        self._frozen.keep()
        self._fingerprint = b""

    def _take_tensors(self) -> None:
        """Fixes the flat vector, once all shapes are known."""
        torch, compiled = self._torch, self._compiled
        flat = self._flat = FlatTensors(torch, self._module, compiled.optimizer, self._patterns)
        self._frozen = FrozenValues(torch, flat.frozen)
        self._private = state.private_tensors(torch, self._module, flat)
        self._as_built = dict(zip(map(id, self._private), state.values(self._private), strict=True))
        names = {id(tensor): name for name, tensor in flat.named.items()}
        self._made_with = fingerprint.settings(torch, compiled, names)
        self._beginning = state.optimizer_state(compiled.optimizer)  # mostly empty: only Adagrad's is there by now
        self._schedule = PlannedScheduler(torch, compiled.optimizer, compiled.scheduler)
        self._rates = Rates(compiled.optimizer, bool(self._schedule))
        self._stepper = Stepper(
            torch, self._module, self._task, flat, compiled.optimizer, self._schedule, compiled.max_grad_norm
        )
        if self._strategy is not None:
            self.check_strategy(self._strategy)

    def _try_on(self, sample: TorchData, outputs: Tree) -> None:
        """Passes two rows of zeros through loss, gradients and metrics: finds what does not fit, and what is logged."""
        aside = Noise(self._torch, self._device, word(self._seed, "try"), self._threads)
        fitted = fit(self._torch, self._module, self._stepper, sample, outputs, self._asked, aside)
        self._fitted = self._fitted or fitted

    def _seeded(self, work: Callable[[], Any]) -> Any:
        return Noise(self._torch, self._device, word(self._seed, "build"), self._threads).run(work)

    def _tensors(self) -> FlatTensors:
        if self._flat is None:
            raise PlanError("model: it learns its shape from the data; call fit or evaluate first")
        return self._flat

    def _ready(self) -> FittedSteps:
        if self._fitted is None:
            raise PlanError("model: it has seen no labels yet; call fit or evaluate first")
        return self._fitted

    def _bound(self, data: Data) -> TorchData:
        bound = bound_data(data)
        if bound.y is None:
            raise DataError("y: the model is trained and evaluated on labels, found none")
        return bound
