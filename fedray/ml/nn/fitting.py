# SPDX-License-Identifier: Apache-2.0
"""The loop of one `fit`: epochs, segments, validation, history, callbacks. Everything of the run lives in `FitRun`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fedray.backends.backend import ModelFacts
from fedray.errors import NotFinite
from fedray.metrics import Metric
from fedray.ml.nn.callbacks import CallbackList, LearningRate
from fedray.ml.nn.federation import Federation, metric_bound
from fedray.ml.nn.history import History
from fedray.ml.nn.plan import FitPlan, Segment
from fedray.ml.nn.progress import EpochBar
from fedray.ml.nn.source import Source
from fedray.party.orders import TrainOrder
from fedray.party.trainer import Report
from fedray.types import PartyName

Logs: TypeAlias = dict[str, float]
"""Metric name -> value."""


@dataclass(slots=True)
class FitRun:
    """One `fit` under way.

    Attributes:
        federation: The trainers and the server.
        facts: Names and shapes of the model's tensors and metrics.
        plan: What is going to be done.
        train: Training arrays.
        validation: Validation arrays, or None.
        callbacks: The user's callbacks.
        history: What `fit` will return.
        verbose: 0, 1 or 2.
        learning_rate: What a callback has set it to.
    """

    federation: Federation
    facts: ModelFacts
    plan: FitPlan
    train: Source
    validation: Source | None
    callbacks: CallbackList
    history: History
    verbose: int
    learning_rate: LearningRate

    def execute(self) -> History:
        """Runs the plan."""
        logs: Logs = {}
        self.callbacks.call("on_train_begin")
        for epoch in range(self.plan.initial_epoch, self.plan.epochs):
            logs = self._epoch(epoch)
            if self.callbacks.model.stop_training:
                break
        self.callbacks.call("on_train_end", logs=logs)
        return self.history

    def _epoch(self, epoch: int) -> Logs:
        self.callbacks.call("on_epoch_begin", epoch)
        with EpochBar(self.verbose, f"epoch: {epoch + 1}/{self.plan.epochs}", self.plan.steps) as bar:
            logs, local = self._segments(epoch, bar)
            if self.validation is not None and self.plan.validates(epoch):
                more, more_local = self._validate(self.validation)
                logs |= more
                local = {party: local.get(party, {}) | metrics for party, metrics in more_local.items()}
            logs = self.callbacks.call("on_epoch_end", epoch, logs=logs)
            self.history.record(epoch, logs, local)
            bar.finish(logs)
        return logs

    def _segments(self, epoch: int, bar: EpochBar) -> tuple[Logs, dict[PartyName, Logs]]:
        reports: dict[PartyName, Report] = {}
        for number, segment in enumerate(self.plan.segments(epoch)):
            first = segment.rounds[0].start
            if self.callbacks.wants_rounds:
                self.callbacks.call("on_train_batch_begin", first)
            try:
                reports = self._train(segment, begins_epoch=number == 0, bar=bar)
            except NotFinite:
                if not self.callbacks.not_finite(first):
                    raise
                return {"loss": float("nan")}, {}
            if self.callbacks.wants_rounds:
                self.callbacks.call("on_train_batch_end", segment.rounds[-1].stop - 1, logs=overall(reports))
            if self.callbacks.model.stop_training:
                break
        return overall(reports), local(reports)

    def _train(self, segment: Segment, *, begins_epoch: bool, bar: EpochBar) -> dict[PartyName, Report]:
        rows = max(sum(party) for party in zip(*(r.rows for r in self.plan.rounds(segment.epoch)), strict=True))

        def order(number: int) -> TrainOrder:
            return TrainOrder(
                number,
                segment.epoch,
                tuple((r.start, r.stop) for r in segment.rounds),
                begins_epoch,
                self.plan.sampling,
                self.plan.sizes,
                metric_bound(rows, self.train),
                self.federation.strategy,
                self.learning_rate.value,
            )

        def draw(opened: int) -> None:
            bar.advance_to(segment.rounds[opened - 1].stop)

        return self.federation.train(self.facts, order, draw)

    def _validate(self, source: Source) -> tuple[Logs, dict[PartyName, Logs]]:
        self.callbacks.call("on_test_begin")
        reports = self.federation.evaluate(self.facts, source, self.plan.sampling.batch_size)
        logs = overall(reports)
        self.callbacks.call("on_test_end", logs=logs)
        prefixed = {party: _prefixed(values) for party, values in local(reports).items()}
        return _prefixed(logs), prefixed


def overall(reports: Mapping[PartyName, Report]) -> Logs:
    """Returns the metrics over all parties, the same in every party's report."""
    return _floats(next(iter(reports.values())).overall) if reports else {}


def local(reports: Mapping[PartyName, Report]) -> dict[PartyName, Logs]:
    """Returns each party's own metrics; parties that withhold them are left out."""
    return {party: _floats(report.local) for party, report in reports.items() if report.local}


def _floats(metrics: Sequence[Metric]) -> Logs:
    return {metric.name: float(metric) for metric in metrics}


def _prefixed(logs: Logs) -> Logs:
    return {f"val_{name}": value for name, value in logs.items()}
