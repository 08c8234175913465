# SPDX-License-Identifier: Apache-2.0
"""Federation: the driver's handle on one model's trainers and on the server that sums for them.

Knows orders, manifests and reports. Knows no epoch, no callback and no user argument.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.backends.backend import FileKind, ModelFacts
from fedray.device import PYU, PYUObject
from fedray.device.pyu import issue, parcel
from fedray.errors import PartyLost, ProtocolError
from fedray.ml.nn.absences import Stretch, of_outcome
from fedray.ml.nn.agreement import agreed, apart, check_whole, differ, say_doubts, split
from fedray.ml.nn.checkpoints.parts import PartyParts
from fedray.ml.nn.handing import hand_round, say_older
from fedray.ml.nn.membership import Membership, with_remedy
from fedray.ml.nn.running import RunningLoss
from fedray.ml.nn.services import Services
from fedray.ml.nn.source import Source
from fedray.party.training.manifests import report_manifest, train_manifest
from fedray.party.training.model_rounds import Report, evaluate_manifest
from fedray.party.training.orders import EvaluateOrder, TrainOrder
from fedray.protocol.config import Config, Encoding
from fedray.protocol.scheme import Fault
from fedray.rounds.notices import notices_of, unsaid
from fedray.rounds.sum_session import SumSession
from fedray.rounds.supervision import SegmentOutcome
from fedray.runtime.session import Session
from fedray.security.aggregation import Aggregator, RoundShape
from fedray.strategies import Strategy
from fedray.tree import Tree
from fedray.types import Key, PartyName

DataPurpose: TypeAlias = Literal["train", "evaluate"]

SPARE_EVALUATIONS = 2
"""So many evaluations before a party would refuse one, a new session is opened: what parties allow is counted per
session, in which a round of training metrics counts as well."""


class Federation:
    """One trainer in each data party, one `RoundServer` at the server.

    Args:
        session: The running session.
        aggregator: Who sums, and how.
        devices: The data parties; the first one's weights are everybody's start.
        builder: The user's function that returns a compiled model.
        backend: Name of the framework.
        strategy: What happens around each mean.
        seed: Seed under which every party builds the same model.
        local_metrics: Whether the parties' own metrics come to the driver.
        local: Patterns for the names of tensors that stay in their party.

    Attributes:
        strategy: Name and parameters.
        row: One row of zeros, like the rows that were bound last; None before that.
        begun: Steps of all epochs so far.
        epochs: How many have begun, but for the one under way.
        running: The loss of the one under way.

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
        local: tuple[str, ...] = (),
    ) -> None:
        self._session, self._aggregator, self._devices = session, aggregator, tuple(devices)
        self._strategy, self.strategy = strategy, (strategy.name, dict(strategy.parameters))
        server, timeout = aggregator.server.name, aggregator.round_timeout
        self._sums = SumSession(session, server, timeout, aggregator.compute)
        ends = self._sums.add([party.name for party in aggregator.participants])
        services = Services.placed(session, ends, (backend, builder, seed, local), local_metrics, self.strategy)
        self._services, self._models = services, services.models
        self._rounds, self._trainers = services.rounds, services.trainers
        for party, key in [*services, *self._sums.compute.items(), (server, self._sums.round_server)]:
            weakref.finalize(self, session.release, party, key)
        self._members = Membership(list(ends), [device.name for device in self._devices], self._sums)
        self._terms: tuple[int, RoundShape | None] = (1, None)
        self.running = RunningLoss(session, self._trainers)
        self._in_step, self._behind, self._fresh = False, False, True
        self._initial = True  # nothing was trained or loaded yet
        self._evaluated = 0
        allowed = min(session.policies[party].rounds.get("evaluate", 0) for party in ends)
        self._evaluations = max(allowed - SPARE_EVALUATIONS, 1)
        self.row: Tree | None = None
        self._said, self.begun, self.epochs = set[str](), 0, 0
        self._other_starts: tuple[str, ...] = ()
        self._row_weights: dict[DataPurpose, bool] = {}
        self._sums.ask_all(self._trainers, "ready")

    def bind(self, purpose: DataPurpose, source: Source, class_weight: Mapping[int, float] | None = None) -> ModelFacts:
        """Hands every party its own arrays, and returns what all say of the model; see `LocalModel.bind`.

        Raises:
            DataError: A party's arrays do not fit the model.
            PlanError: The parties' models differ, or their frozen tensors.
            PartyLost: A party's process has ended, and its rows with it.
            PartyTimeout: A party is still at an earlier segment.
        """
        weights = dict(class_weight) if class_weight else None
        self._row_weights[purpose] = source.sample_weight is not None or bool(weights)
        self.row = source.row()
        self._sums.await_busy()
        models, ask = self._models, partial(self._session.ask, label=self._session.statement("trial of the model"))
        refs = [ask(d.name, models[d.name], "bind", purpose, *source.parts(d), weights) for d in self._devices]
        try:
            facts = self._session.get(refs)
            reasons = apart(facts)
            if differ(facts):
                facts = self._session.get([ask(d.name, models[d.name], "keep_apart", reasons) for d in self._devices])
        except PartyLost as error:
            raise with_remedy(error) from error
        found = agreed({device.name: one for device, one in zip(self._devices, facts, strict=True)})
        say_doubts(found, self._said)
        return found

    def open(self, largest_weight: int | None = None, shape: RoundShape | None = None) -> None:
        """Opens a protocol session where a fitting one is not open, and gives every party the same weights.

        Parties that were lost are left out of a new session, and parties that were too late come back with it.

        Args:
            largest_weight: Most rows of one party in one round; None where no weights are averaged.
            shape: What the rounds of training are like; None where there is no training.

        Raises:
            ProtocolError: A party refuses the session's Config.
            PartyLost: Too few parties are left.
            PartyTimeout: Too few parties answer.
        """
        if largest_weight is not None:
            self._terms = (largest_weight, shape)
        while True:
            try:
                self._open()
                return
            except PartyLost as error:
                if error.party not in self._members.left or error.party == self._aggregator.server.name:
                    raise
                self._members.lose([error.party])
                self._sums.config = None

    def parts(self) -> PartyParts:
        """Returns what reaches the parties' own parts of checkpoints, in which each of them keeps what is its own."""
        return PartyParts(self._session, self._services.keepers(self._session, self), self._models, self._members.first)

    def resumed(self) -> None:
        """Says that everybody's part was put back: the next rounds are held in a new session, by all who are there."""
        # Not fresh: nobody here knows what was sent with the model as it is now.
        self._behind, self._fresh, self._initial, self._sums.told = True, False, False, True
        self._members.lead(self._members.left)

    @property
    def notices(self) -> tuple[str, ...]:
        """What users are to be told about the protection of the rounds."""
        return notices_of(self._sums.config) + self._other_starts

    def unsaid(self) -> tuple[str, ...]:
        """Returns those of them that were not told in this session; whoever asks tells them."""
        return unsaid(self._session, self._sums.config)

    def take_faults(self) -> tuple[Fault, ...]:
        """Returns what parties did wrong since this was last asked."""
        return self._sums.take_faults()

    def train(
        self, facts: ModelFacts, order: Callable[[int, int], TrainOrder], on_round: Callable[[int], None]
    ) -> tuple[dict[PartyName, Report], list[Stretch]]:
        """Runs a segment, in further sessions where one cannot go on; returns reports and who was missing in each.

        Args:
            facts: Names and shapes of the model.
            order: (protocol number of its first round, rounds that are over) -> the order of the rest of the segment.
            on_round: Called with the number of rounds that are over.

        Raises:
            PartyLost: Too few parties are left.
            ServerFault: Rounds were left out though nobody has asked for it.
            FedRayError: What the first failing party raised.
        """
        stretches, held = list[Stretch](), list[int]()
        while True:
            self.open()
            over = sum(held)
            draft = order(0, over)
            manifest = train_manifest(facts, self._strategy, self._row_weights["train"])
            report = report_manifest(facts, self._row_weights["train"])
            number = self._sums.announce(manifest, len(draft.spans), report=report)
            self._fresh, self._initial, expected = False, False, self._sums.parties
            drawn = partial(lambda before, done: on_round(before + done), over)
            outcome = self._run(self._trainers, "train", order(number, over), drawn)
            done = max(r.done for r in outcome.reports.values())
            stretches.append(self._stretch(range(number, number + done), expected, outcome))
            held.append(done)
            renew = any(r.renew for r in outcome.reports.values())
            behind, self._behind = self._behind or renew, True  # as it stays where the server has cut it short
            self._fresh = all(r.fresh for r in outcome.reports.values())
            self._evaluated = max(r.evaluated for r in outcome.reports.values())
            check_whole(outcome.reports, len(draft.spans), held, self._aggregator.server.name)
            self._behind = behind
            if not renew or len(draft.spans) == done:
                return outcome.reports, stretches

    def evaluate(
        self, facts: ModelFacts, source: Source, batch_size: int
    ) -> tuple[dict[PartyName, Report], list[Stretch]]:
        """Evaluates the global model on the arrays bound as `"evaluate"`; see `train`.

        Raises:
            ProtocolError: In every round another party dropped out.
        """
        stretches = list[Stretch]()
        for _ in self._devices:
            self._behind = self._behind or self._evaluated >= self._evaluations
            self.open()
            self._fresh, expected = False, self._sums.parties
            self._evaluated += 1
            number = self._sums.announce(evaluate_manifest(facts, self._row_weights["evaluate"]), 1)
            outcome = self._run(self._rounds, "evaluate", EvaluateOrder(number, batch_size, source.sizes))
            stretches.append(self._stretch(range(number, number + 1), expected, outcome))
            if all(r.done for r in outcome.reports.values()):
                return outcome.reports, stretches
            self._behind = self._behind or any(r.renew for r in outcome.reports.values())
        raise ProtocolError("evaluate: in every round another party dropped out; nothing was opened")

    def predict(self, device: PYU, x: Tree, batch_size: int) -> PYUObject:
        """Returns one party's predictions, which stay there.

        Args:
            device: The party.
            x: Its rows, a FedNdarray at each leaf.
            batch_size: Rows in one local batch.
        """
        if device.name not in self._sums.parties:  # it was too late for the last rounds, or was told something else
            self._behind = True
            self.open()
            if device.name not in self._sums.parties:
                say_older(device.name)
        parts = x.map(lambda array: array.partitions[device]).nest
        payload = parcel(device, ((parts, batch_size), {}), "predict")
        predictions: PYUObject = issue(device, 1, "predict", "invoke", self._models[device.name], "predict", payload)
        return predictions

    def arrays(self) -> list[NDArray[Any]]:
        """Returns the global weights in the framework's order."""
        return list(self._first(self._models, "arrays"))

    def set_arrays(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Sets the global weights everywhere.

        Raises:
            DataError: Number or shapes differ from the model's.
        """
        self._replace("set_arrays", [np.asarray(array) for array in arrays])

    def export_model(self, kind: FileKind, ending: str) -> bytes:
        """Returns the global model as a stock file of its framework, made in the first party.

        Args:
            kind: Whole model or weights alone.
            ending: How the file's name ends.
        """
        content: bytes = self._first(self._models, "export_model", kind, ending)
        return content

    def import_model(self, content: bytes) -> None:
        """Replaces the global weights by those of a saved model.

        Raises:
            DataError: The file holds another model.
        """
        self._replace("import_model", content)

    def save_own(self, party: PartyName, path: str) -> None:
        """Lets a party write the model with its own local tensors to a file on its machine."""
        self._session.get([self._session.ask(party, self._models[party], "save_own", path)])

    def load_own(self, party: PartyName, path: str) -> None:
        """Lets a party take its local tensors from a file on its machine."""
        self._session.get([self._session.ask(party, self._models[party], "load_own", path)])

    def local_tensors(self) -> tuple[str, ...]:
        """Returns the names of the tensors that stay in their party."""
        return tuple(self._first(self._models, "local_tensors"))

    def learning_rate(self) -> float:
        """Returns the learning rate of a party that holds the current model."""
        return float(self._first(self._models, "learning_rate"))

    def set_learning_rate(self, rate: float) -> None:
        """Sets everybody's learning rate, so that whatever a party saves has it.

        Raises:
            PlanError: The optimizers follow a schedule.
        """
        self._everywhere(self._models, "set_learning_rate", rate)

    def _replace(self, method: str, content: Any) -> None:
        """Changes one party's weights, and then everybody's; a session may have trained on those before.

        Shared tensors are handed round by way of the server, as always. Frozen ones are not, and everybody takes them
        from the content itself; whether all of them did is part of what a round is bound to. What the strategy knows
        belongs to the weights that were there, so everybody forgets it.
        """
        self._initial = False
        frozen = self._first(self._models, method, content)
        self._behind = self._fresh = True  # from here on one party has the new weights, whatever else happens
        if frozen:
            self._everywhere(self._models, method, content)
        self._everywhere(self._trainers, "forget")
        self.open()

    def _everywhere(self, services: Mapping[PartyName, Key], method: str, *args: Any) -> None:
        """Asks every party that is left, and waits for those that are not late: the others come to it in their turn."""
        calls = {party: self._session.ask(party, services[party], method, *args) for party in self._members.left}
        for party in set(calls) & set(self._sums.parties):
            try:
                self._session.get([calls[party]])
            except PartyLost:
                self._members.lose([party])

    def _run(
        self,
        services: Mapping[PartyName, Key],
        method: str,
        order: Any,
        on_round: Callable[[int], None] | None = None,
    ) -> SegmentOutcome:
        outcome = self._sums.run(services, method, order, on_round)
        difference, agree = split(outcome.reports)
        self._members.lead(agree or outcome.reports)
        self._members.lose(outcome.dead)
        self._behind = self._behind or bool(outcome.failed)  # it is handed the model before it goes on
        if difference:
            self._behind = True  # whoever goes on has the model of those who agree
            raise ProtocolError(difference)
        return outcome

    def _stretch(self, rounds: range, expected: Collection[PartyName], outcome: SegmentOutcome) -> Stretch:
        everybody, members = self._members.left, self._sums.members
        gone = {party: "it was not back" if party in everybody else "its process has ended" for party in self._models}
        left_out = {party: reason for party, reason in gone.items() if party not in expected}
        return of_outcome(rounds, outcome, members, expected, left_out)

    def _open(self) -> None:
        """Opens a session where one is needed, or where others may take part than do: a party is lost, or is back."""
        config, there = self._sums.config, self._members.there()
        agreed = config is not None and self._agrees(config)
        others = self._fresh and not set(there) == set(self._sums.members) == set(self._sums.parties)
        if not agreed or others or self._behind:
            members = there if self._fresh else self._members.as_before(there)
            self._sums.compare_histories(members)
            self._sums.open(self._config(members), members)
            self._behind = self._in_step = False
            self._evaluated = 0
        if not self._in_step:
            self._other_starts += hand_round(self._members, self._sums, self._rounds, initial=self._initial)
            self._in_step = True

    def _agrees(self, config: Config) -> bool:
        wanted = self._config(self._sums.members)
        return (config.scheme, config.encoding) == (wanted.scheme, wanted.encoding)

    def _config(self, members: Sequence[PartyName]) -> Config:
        """Returns the Config of a session that fits the run's rounds."""
        largest_weight, shape = self._terms
        return self._aggregator.config(self._session, Encoding(weight_bound=largest_weight), members, shape)

    def _first(self, services: Mapping[PartyName, Key], method: str, *args: Any) -> Any:
        """Asks a service of a party that holds the current model.

        Raises:
            PartyLost: None is left.
        """

        def ask(party: PartyName) -> Any:
            return self._session.get([self._session.ask(party, services[party], method, *args)])[0]

        return self._members.first(ask)
