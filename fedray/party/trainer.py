# SPDX-License-Identifier: Apache-2.0
"""Trainer: one party's model, and its part in the rounds. The plain update lives in locals here and nowhere else.

Knows no other party's data and no clock. What it may tell the driver about its own rows is decided by `local_metrics`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray import metrics
from fedray.backends import make_backend
from fedray.backends.backend import Batch, Data, ModelFacts
from fedray.errors import DataError, EncodingError, PlanError, ProtocolError
from fedray.metrics import Metric
from fedray.party.batches import cut
from fedray.party.context import PartyContext, Reply
from fedray.party.contributor import Contributor
from fedray.party.egress import Kind
from fedray.party.orders import Answer, EvaluateOrder, TrainOrder, settings
from fedray.protocol.scheme import Contribution, Manifest, RoundContext, Tensor
from fedray.strategies import State, Strategy, make_strategy
from fedray.types import Key, PartyName, Value, Vector


@dataclass(frozen=True, slots=True)
class Report:
    """What a party tells the driver at the end of a segment.

    Attributes:
        local: This party's own metrics; empty where they are withheld.
        overall: The metrics over all parties, finished from the opened sums.
    """

    local: tuple[Metric, ...]
    overall: tuple[Metric, ...]


class Trainer(Contributor):
    """Trains, evaluates and predicts inside one party.

    Args:
        context: The party this service lives in.
        server: The party that sums.
        combiner: Key of its combiner.
        backend: Name of the framework.
        builder: The user's function that returns a compiled model.
        strategy: Name and parameters.
        seed: Seed under which every party builds the same model.
        local_metrics: Whether this party's own metrics go to the driver.
    """

    def __init__(
        self,
        context: PartyContext,
        server: PartyName,
        combiner: Key,
        backend: str,
        builder: Any,
        strategy: tuple[str, dict[str, float]],
        seed: int,
        local_metrics: bool,
    ) -> None:
        super().__init__(context, server, combiner)
        self._strategy: Strategy = make_strategy(*strategy)
        with self._named():
            self._backend = make_backend(backend, builder, seed, self._noise_seed(seed), context.config.threads)
        self._data: dict[str, Data] = {}
        self._state: State = {}
        self._global: Vector = np.empty(0, np.float32)
        self._measured: list[Metric] = []
        self._local_metrics = local_metrics

    # The model as a whole.

    def bind(
        self, purpose: str, x: Value, y: Value, sample_weight: Value | None, class_weight: dict[int, float] | None
    ) -> Reply:
        """Takes the arrays that the next segments of a purpose run over; builds a model that waited for their shape.

        Returns:
            `ModelFacts`, in which nothing depends on the numbers in the arrays.

        Raises:
            DataError: Rows, labels or weights do not fit each other or the model.
        """
        with self._named():
            self._data[purpose] = self._backend.bind(x, y, sample_weight, class_weight)
        self._facts = self._backend.facts()
        return Reply(Kind.SHAPE, self._facts)

    def ready(self) -> None:
        """Acknowledges that the model is there."""

    def publish(self) -> None:
        """Sends the model to the server, before rounds begin, as everybody's starting point."""
        self._adopt(np.array(self._backend.weights()))
        self._tell_server("publish the starting weights", ("initial", self._global), Kind.INITIAL)

    def pull(self) -> None:
        """Takes the server's model as this party's own."""
        answer: Answer = self._tell_server("pull the model", ("pull",), Kind.SHAPE)
        if answer.values is None:
            raise PlanError(f"server {self._server!r} has no model yet; publish it first")
        self._adopt(np.array(answer.values))

    def export_model(self, weights_only: bool) -> Reply:
        """Returns the global model, or its weights alone, as the bytes of a stock file of its framework."""
        return Reply(Kind.AGGREGATE, self._backend.export_model(weights_only))

    def import_model(self, content: bytes) -> None:
        """Replaces the weights by those in a saved model.

        Raises:
            DataError: The file holds another model.
        """
        with self._named():
            self._backend.import_model(content)

    def arrays(self) -> Reply:
        """Returns the global weights as arrays, in the framework's order."""
        return Reply(Kind.AGGREGATE, self._backend.arrays())

    def set_arrays(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Sets the weights from arrays in the framework's order.

        Raises:
            DataError: Their number or shapes are not the model's.
        """
        with self._named():
            self._backend.set_arrays(arrays)

    def learning_rate(self) -> Reply:
        """Returns the optimizer's learning rate."""
        return Reply(Kind.SHAPE, self._backend.learning_rate())

    # Rounds.

    def train(self, order: TrainOrder) -> Reply:
        """Runs the rounds of a segment and returns a `Report`.

        A round that fails is put back: model, optimizer and random state are as they were before it.
        """
        if order.begins_epoch:
            self._backend.take_metrics()
            self._measured = []
        if order.learning_rate is not None:
            self._backend.set_learning_rate(order.learning_rate)
        shared, manifest = settings(order), train_manifest(self._facts, order.metric_bound)
        steps = order.sampling.deal(self._context.name, order.sizes[self._context.name], order.epoch)
        last, overall = len(order.spans) - 1, np.empty(0)
        for place, (start, stop) in enumerate(order.spans):
            batches = [batch for step in steps[start:stop] for batch in step]
            bound = shared + place.to_bytes(8, "big")
            context = RoundContext(order.number + place, self._model_hash(), bound, manifest)
            with self._put_back_on_error():
                answer = self._round(context, batches, report=place == last)
            overall = opened_metrics(answer)
            if answer.stop:
                break
        # Training has left this party's own weights in the model: nobody may evaluate, predict with, or ask for those.
        self._backend.set_weights(self._global)
        return self._report(self._measured, overall)

    def evaluate(self, order: EvaluateOrder) -> Reply:
        """Evaluates the global model on the bound data and returns a `Report`."""
        rows = np.arange(order.sizes[self._context.name], dtype=np.int64)
        with self._named():
            local = self._backend.evaluate(self._data["evaluate"], cut(rows, order.batch_size))
            manifest = evaluate_manifest(self._facts, order.metric_bound)
            context = RoundContext(order.number, self._model_hash(), settings(order), manifest, "evaluate")
            measured = Contribution(np.empty(0, self._global.dtype), 0, metrics.flatten(local))
            answer = self.exchange("evaluate", context, measured)
        return self._report(local, opened_metrics(answer))

    def predict(self, x: Value, batch_size: int) -> NDArray[Any]:
        """Returns the model's outputs for this party's rows; they stay in the party."""
        with self._named():
            data = self._backend.bind(x)
            return self._backend.predict(data, cut(np.arange(data.rows, dtype=np.int64), batch_size))

    def _round(self, context: RoundContext, batches: Sequence[Batch], report: bool) -> Answer:
        self._state = self._strategy.open(self._state, self._global)
        local, rows = self._global, 0
        if batches and self._strategy.local == "train":
            local, rows = self._backend.train(
                self._global, self._data["train"], batches, self._strategy.hook, self._state
            )
        elif batches:
            local, rows = self._backend.gradient(self._data["train"], batches)
        self._state, payload = self._strategy.close(self._state, self._global, local)
        measured = self._measure() if report else np.zeros(len(context.manifest.metrics))
        with self._named():
            answer = self.exchange(f"train round {context.number}", context, Contribution(payload, rows, measured))
        if answer.values is None:
            raise ProtocolError(f"round {context.number}: the server opened it without a result")
        if self._strategy.local == "gradient":
            self._backend.apply_gradient(answer.values)
            self._global = self._backend.weights()
        else:
            self._global = answer.values
        return answer

    def _measure(self) -> NDArray[np.float64]:
        """Adds what was measured since the last segment to the epoch's metrics, and returns their words."""
        taken = self._backend.take_metrics()
        if self._measured:
            merged = {metric.name: metric for metric in metrics.merge([self._measured, taken])}
            taken = self._backend.finish([merged.get(metric.name, metric) for metric in taken])
        self._measured = taken
        return metrics.flatten(taken)

    def _report(self, local: Sequence[Metric], sums: NDArray[np.float64]) -> Reply:
        finished = self._backend.finish(metrics.rebuild(local, sums))
        shown = tuple(local) if self._local_metrics else ()
        return Reply(Kind.METRICS if shown else Kind.AGGREGATE, Report(shown, tuple(finished)))

    @contextmanager
    def _put_back_on_error(self) -> Iterator[None]:
        """Leaves model, optimizer, metrics and random state as they were, if the round inside fails."""
        state, measured, local = self._state, self._measured, self._backend.snapshot()
        try:
            yield
        except BaseException:
            self._backend.restore(local)
            self._backend.set_weights(self._global)
            self._state, self._measured = state, measured
            raise

    def _adopt(self, values: Vector) -> None:
        self._global, self._state = values, {}
        self._backend.set_weights(values)

    def _tell_server(self, call: str, message: tuple[Any, ...], kind: Kind) -> Any:
        return self._context.get(self._context.send(call, self._server, self._combiner, message, kind), None)

    def _noise_seed(self, seed: int) -> int:
        digest = hashlib.sha256(f"{seed} {self._context.name}".encode()).digest()
        return int.from_bytes(digest[:8], "big")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Puts this party's name before the text of an error about its data or its numbers."""
        try:
            yield
        except (DataError, EncodingError, PlanError) as error:
            raise type(error)(f"party {self._context.name!r}: {error}") from error

    def _model_hash(self) -> bytes:
        return hashlib.sha256(self._backend.fingerprint() + self._global.tobytes()).digest()


def opened_metrics(answer: Answer) -> NDArray[np.float64]:
    """Returns the metric sums of an opened round.

    Raises:
        ProtocolError: The server left them out.
    """
    if answer.metrics is None:
        raise ProtocolError("the server opened a round without its metrics")
    return answer.metrics


def train_manifest(facts: ModelFacts, metric_bound: int) -> Manifest:
    """Returns what the words of a training round mean."""
    tensors = zip(facts.spec.names, facts.spec.shapes, facts.spec.dtypes, strict=True)
    return Manifest(tuple(Tensor(*tensor) for tensor in tensors), facts.train_words, metric_bound)


def evaluate_manifest(facts: ModelFacts, metric_bound: int) -> Manifest:
    """Returns what the words of an evaluation round mean: metrics only."""
    return Manifest((), facts.evaluate_words, metric_bound, weighted=False)
