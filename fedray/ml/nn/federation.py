# SPDX-License-Identifier: Apache-2.0
"""Federation: the driver's handle on one model's trainers and on the server that sums for them.

Knows orders, manifests and reports. Knows no epoch, no callback and no user argument.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.backends.backend import ModelFacts
from fedray.device import PYU, PYUObject
from fedray.device.pyu import issue, parcel
from fedray.errors import PlanError
from fedray.ml.nn.source import Source
from fedray.party.orders import EvaluateOrder, TrainOrder
from fedray.party.table import Slot
from fedray.party.trainer import Report, Trainer, evaluate_manifest, train_manifest
from fedray.protocol.config import Encoding
from fedray.runtime.session import Session
from fedray.security.aggregation import Aggregator
from fedray.security.sums import SumSession
from fedray.strategies import Strategy
from fedray.types import Key, PartyName, Ref

Purpose: TypeAlias = Literal["train", "evaluate"]


class Federation:
    """One trainer in each data party, one combiner at the server.

    Args:
        session: The running session.
        aggregator: Who sums, and how.
        devices: The data parties; the first one's weights are everybody's start.
        builder: The user's function that returns a compiled model.
        backend: Name of the framework.
        strategy: What happens around each mean.
        seed: Seed under which every party builds the same model.
        local_metrics: Whether the parties' own metrics come to the driver.

    Raises:
        PartyError: The builder failed in a party.
        PlanError: The model cannot be trained this way.
    """

    def __init__(
        self,
        session: Session,
        aggregator: Aggregator,
        devices: Sequence[PYU],
        builder: Callable[[], Any],
        backend: str,
        strategy: Strategy,
        seed: int,
        local_metrics: bool,
    ) -> None:
        self._session = session
        self._aggregator = aggregator
        self._devices = tuple(devices)
        self.strategy = (strategy.name, dict(strategy.parameters))
        self._sums = SumSession(session, aggregator.server.name, self.strategy, aggregator.round_timeout)
        arguments = (aggregator.server.name, self._sums.combiner, backend, builder, self.strategy, seed, local_metrics)
        self._trainers: dict[PartyName, Key] = {
            party.name: session.serve(party.name, Trainer, *arguments) for party in aggregator.participants
        }
        self._sums.add(self._trainers)
        for party, key in [*self._trainers.items(), (aggregator.server.name, self._sums.combiner)]:
            weakref.finalize(self, session.release, party, key)
        self._in_step = False
        self._sums.ask_all("ready")

    def bind(self, purpose: Purpose, source: Source, class_weight: Mapping[int, float] | None = None) -> ModelFacts:
        """Hands every trainer its own arrays, and returns what all of them say of the model.

        Raises:
            DataError: A party's arrays do not fit the model.
            PlanError: The parties' models differ.
        """
        weights = dict(class_weight) if class_weight else None
        refs = [self._ask(d, "bind", purpose, *_slots(source, d), weights) for d in self._devices]
        first, *others = self._session.get(refs)
        for device, facts in zip(self._devices[1:], others, strict=True):
            if facts != first:
                raise PlanError(
                    f"model: party {device.name!r} built another model than party {self._devices[0].name!r}; "
                    "the builder must return the same architecture everywhere"
                )
        found: ModelFacts = first
        return found

    def open(self, largest_weight: int | None = None) -> None:
        """Opens a protocol session where a fitting one is not open, and gives every party the same weights.

        Args:
            largest_weight: Most rows of one party in one round; None where no weights are averaged.

        Raises:
            ProtocolError: A party refuses the session's Config.
        """
        config = self._sums.config
        if config is None:
            self._in_step = False
        if config is None or largest_weight not in (None, config.encoding.weight_bound):
            encoding = Encoding(overflow="refuse", weight_bound=largest_weight or 1)
            self._sums.open(self._aggregator.config(self._session, encoding))
        if not self._in_step:
            self._first("publish")
            self._sums.ask_all("pull")
            self._in_step = True

    def train(
        self, facts: ModelFacts, order: Callable[[int], TrainOrder], on_round: Callable[[int], None]
    ) -> dict[PartyName, Report]:
        """Runs a segment; `order` makes its order from the protocol number of the first round."""
        draft = order(0)
        number = self._sums.announce(train_manifest(facts, draft.metric_bound), len(draft.spans), train=True)
        return self._sums.run("train", order(number), on_round)

    def evaluate(self, facts: ModelFacts, source: Source, batch_size: int) -> dict[PartyName, Report]:
        """Evaluates the global model on the arrays bound as `"evaluate"`, in one round."""
        bound = metric_bound(max(source.sizes.values()), source)
        number = self._sums.announce(evaluate_manifest(facts, bound), 1, train=False)
        return self._sums.run("evaluate", EvaluateOrder(number, batch_size, source.sizes, bound))

    def predict(self, device: PYU, x: PYUObject, batch_size: int) -> PYUObject:
        """Returns one party's predictions, which stay there."""
        payload = parcel(device, ((x, batch_size), {}), "predict")
        predictions: PYUObject = issue(device, 1, "predict", "invoke", self._trainers[device.name], "predict", payload)
        return predictions

    def arrays(self) -> list[NDArray[Any]]:
        """Returns the global weights in the framework's order."""
        return list(self._first("arrays"))

    def set_arrays(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Sets the global weights everywhere.

        Raises:
            DataError: Number or shapes differ from the model's.
        """
        self._replace("set_arrays", [np.asarray(array) for array in arrays])

    def export_model(self, weights_only: bool) -> bytes:
        """Returns the global model as a stock file of its framework, made in the first party."""
        content: bytes = self._first("export_model", weights_only)
        return content

    def import_model(self, content: bytes) -> None:
        """Replaces the global weights by those of a saved model.

        Raises:
            DataError: The file holds another model.
        """
        self._replace("import_model", content)

    def learning_rate(self) -> float:
        """Returns the first party's learning rate."""
        return float(self._first("learning_rate"))

    def _replace(self, method: str, content: Any) -> None:
        """Changes the first party's weights, and then everybody's."""
        self._first(method, content)
        self._in_step = False
        self.open()

    def _first(self, method: str, *args: Any) -> Any:
        return self._session.get([self._ask(self._devices[0], method, *args)])[0]

    def _ask(self, device: PYU, method: str, *args: Any) -> Ref:
        return self._session.ask(device.name, self._trainers[device.name], method, *args)


def metric_bound(rows: int, source: Source) -> int:
    """Returns a power of two that no metric's count over `rows` rows exceeds, so that integer totals stay exact."""
    return 1 << max(rows * source.label_words, 1).bit_length()


def _slots(source: Source, device: PYU) -> list[Slot | None]:
    return [None if part is None else part.slot() for part in source.parts(device)]
