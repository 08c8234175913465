# SPDX-License-Identifier: Apache-2.0
"""LocalModel: one party's model between the rounds. Built, handed around as a whole, evaluated, asked for predictions.

Knows no other party's data and no training. What it may tell the driver about its own rows is decided by
`local_metrics`.
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
from fedray.backends.backend import Data, FileKind, ModelFacts
from fedray.errors import DataError, EncodingError, PlanError
from fedray.metrics import Metric, from_words, to_words, word_names
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer
from fedray.party.rounds.contributor import Contributor
from fedray.party.training.orders import EvaluateOrder, settings
from fedray.party.training.sampling import cut
from fedray.protocol.scheme import Contribution, Manifest, RoundContext
from fedray.tree import Tree
from fedray.types import Key, PartyName, Value, Vector


@dataclass(frozen=True, slots=True)
class Report:
    """What a party tells the driver at the end of a segment.

    Attributes:
        local: This party's own metrics; empty where they are withheld.
        overall: The metrics over all parties, finished from the opened sums.
        done: Rounds of the segment that are over.
        renew: Why no further round can be held in this session, or empty.
        fresh: Whether nothing has been sent yet that was computed with the model as it is now. Only then may another
            session go on with other parties: two sums on one model over different parties differ by one party's part.
    """

    local: tuple[Metric, ...]
    overall: tuple[Metric, ...]
    done: int = 1
    renew: str = ""
    fresh: bool = False


class LocalModel(Contributor):
    """Holds one party's model and the global vector it was last given.

    Args:
        context: The party this service lives in.
        server: The party that sums.
        round_server: Key of its round_server.
        backend: Name of the framework.
        builder: The user's function that returns a compiled model.
        seed: Seed under which every party builds the same model.
        local_metrics: Whether this party's own metrics go to the driver.
    """

    def __init__(
        self,
        context: PartyContext,
        server: PartyName,
        round_server: Key,
        backend: str,
        builder: Any,
        seed: int,
        local_metrics: bool,
    ) -> None:
        super().__init__(context, server, round_server)
        noise = hashlib.sha256(f"{seed} {context.name}".encode()).digest()
        with self._named():
            threads = context.config.threads
            self._backend = make_backend(backend, builder, seed, int.from_bytes(noise[:8], "big"), threads)
        self._data: dict[str, Data] = {}
        self._class_weight: dict[str, dict[int, float]] = {}
        self._take_over(np.empty(0, np.float32))
        self._as_built = True
        self._local_metrics = local_metrics

    def bind(
        self, purpose: str, x: Value, y: Value, sample_weight: Value | None, class_weight: dict[int, float] | None
    ) -> Reply:
        """Takes the arrays that the next segments of a purpose run over; builds a model that waited for their shape.

        Args:
            purpose: `"train"` or `"evaluate"`.
            x: An array, or lists, tuples and dicts of arrays.
            y: The same of labels.
            sample_weight: One number per row, or as `y`.
            class_weight: Class number -> weight.

        Returns:
            `ModelFacts`, in which nothing depends on the numbers in the arrays.

        Raises:
            DataError: Rows, labels or weights do not fit each other or the model.
        """
        with self._named():
            weight = None if sample_weight is None else Tree(sample_weight, "sample_weight")
            self._data[purpose] = self._backend.bind(Tree(x, "x"), Tree(y, "y"), weight, class_weight)
        self._class_weight[purpose] = dict(class_weight or {})
        self._facts = self._backend.facts()
        return Reply(Kind.SHAPE, self._facts)

    def ready(self) -> None:
        """Acknowledges that the model is there."""

    def publish(self) -> None:
        """Sends the model to the server, before rounds begin, as everybody's starting point.

        It leaves as `initial` only while it is what the builder made; after that it is the global model.
        """
        self._adopt(np.array(self._backend.weights()))
        self._send("publish the model", ("model", self._global), Kind.INITIAL if self._as_built else Kind.AGGREGATE)

    def pull(self) -> None:
        """Takes the server's model as this party's own."""
        answer: Answer = self._send("pull the model", ("pull",), Kind.SHAPE)
        if answer.values is None:
            raise PlanError(f"server {self._server!r} has no model yet; publish it first")
        self._as_built = self._as_built and np.array_equal(answer.values, self._backend.weights())
        self._adopt(np.array(answer.values))

    def export_model(self, kind: FileKind) -> Reply:
        """Returns the global model, or its weights alone, as the bytes of a stock file of its framework."""
        return Reply(Kind.AGGREGATE, self._backend.export_model(kind))

    def import_model(self, content: bytes) -> None:
        """Replaces the weights by those in a saved model.

        Raises:
            DataError: The file holds another model.
        """
        self._as_built = False
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
        self._as_built = False
        with self._named():
            self._backend.set_arrays(arrays)

    def learning_rate(self) -> Reply:
        """Returns the optimizer's learning rate."""
        return Reply(Kind.SHAPE, self._backend.learning_rate())

    def evaluate(self, order: EvaluateOrder) -> Reply:
        """Evaluates the global model on the bound data and returns a `Report`."""
        rows = np.arange(order.sizes[self._context.name], dtype=np.int64)
        self._backend.set_weights(self._global)
        with self._named():
            local = self._backend.evaluate(self._data["evaluate"], cut(rows, order.batch_size))
        manifest = evaluate_manifest(self._facts, order.metric_bound)
        told = settings(order, self._class_weight["evaluate"])
        context = RoundContext(order.number, self._model_hash(), told, manifest, "evaluate")
        nothing = np.empty(0, self._global.dtype)
        measured = to_words(metrics.flatten(local), order.metric_bound)
        answer = self._exchange("evaluate", context, Contribution(nothing, 0, measured))
        sums = None if answer.metrics is None else from_words(answer.metrics, order.metric_bound)
        done = int(answer.verdict in ("opened", "missed"))
        return self._report(local, sums, done, answer.reason if answer.verdict == "renew" else "")

    def predict(self, x: Value, batch_size: int) -> Value:
        """Returns the model's outputs for this party's rows, nested as the model has them; they stay in the party."""
        with self._named():
            data = self._backend.bind(Tree(x, "x"))
            return self._backend.predict(data, cut(np.arange(data.rows, dtype=np.int64), batch_size)).nest

    def _exchange(self, call: str, context: RoundContext, contribution: Contribution) -> Answer:
        """Exchanges, and says of numbers that cannot be summed whose they are and what to do."""
        try:
            return self.exchange(call, context, contribution)
        except EncodingError as error:
            found = str(error).removeprefix(f"{self._context.name}: ")
            raise type(error)(
                f"party {self._context.name!r}: {found}; look for NaN and very large numbers in its rows, or lower the "
                "learning rate"
            ) from error

    def _report(
        self, local: Sequence[Metric], sums: NDArray[np.float64] | None, done: int, renew: str, fresh: bool = False
    ) -> Reply:
        finished = () if sums is None else tuple(self._backend.finish(metrics.rebuild(local, sums)))
        shown = tuple(local) if self._local_metrics else ()
        return Reply(Kind.METRICS if shown else Kind.AGGREGATE, Report(shown, finished, done, renew, fresh))

    def _adopt(self, values: Vector) -> None:
        self._take_over(values)
        self._backend.set_weights(values)

    def _take_over(self, values: Vector) -> None:
        self._global, self._hash = values, b""

    def _model_hash(self) -> bytes:
        """Returns SHA-256 over the model's description and the global vector; a vector is hashed once."""
        if not self._hash:
            model = hashlib.sha256(self._backend.fingerprint())
            model.update(np.ascontiguousarray(self._global).data)
            self._hash = model.digest()
        return self._hash

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Puts this party's name before the text of an error about its data or its numbers."""
        try:
            yield
        except (DataError, PlanError) as error:
            raise type(error)(f"party {self._context.name!r}: {error}") from error


def evaluate_manifest(facts: ModelFacts, metric_bound: int) -> Manifest:
    """Returns what the words of an evaluation round mean: metrics only."""
    return Manifest((), word_names(facts.evaluate_words), metric_bound, weighted=False)
