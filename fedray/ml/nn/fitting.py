# SPDX-License-Identifier: Apache-2.0
"""The loop of one `fit`: epochs, segments, validation, history, callbacks. Everything of the run lives in `FitRun`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fedray.backends.backend import ModelFacts
from fedray.errors import NotFinite
from fedray.metrics import Mean, Metric
from fedray.ml.nn.absences import Absences, Stretch, notices
from fedray.ml.nn.callbacks import CallbackList
from fedray.ml.nn.checkpoints.fit_keeping import FitKeeping
from fedray.ml.nn.checkpoints.position import Position
from fedray.ml.nn.federation import Federation
from fedray.ml.nn.history import FaultRecord, History, MetricValue, Reset
from fedray.ml.nn.optimizer import Optimizer
from fedray.ml.nn.plan import FitPlan, Segment
from fedray.ml.nn.progress import EpochBar
from fedray.ml.nn.source import Source
from fedray.party.training.model_rounds import Report
from fedray.party.training.orders import TrainOrder
from fedray.security.aggregation import RoundShape
from fedray.types import PartyName

_log = logging.getLogger("fedray")

Logs: TypeAlias = dict[str, MetricValue]
"""Metric name -> value."""


@dataclass(slots=True)
class FitRun:
    """One `fit` under way.

    Attributes:
        federation: The trainers and the server.
        facts: Names and shapes of the model's tensors and metrics.
        plan: What is going to be done.
        validation: Validation arrays, or None.
        callbacks: The user's callbacks.
        history: What `fit` will return.
        verbose: 0, 1 or 2.
        optimizer: The learning rate, which callbacks may set.
        keeping: Its checkpoints, where there are any.
        absences: Who is away.
    """

    federation: Federation
    facts: ModelFacts
    plan: FitPlan
    validation: Source | None
    callbacks: CallbackList
    history: History
    verbose: int
    optimizer: Optimizer
    keeping: FitKeeping | None = None
    absences: Absences = field(init=False)
    _there: tuple[PartyName, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.absences = Absences(self.history.dropouts)
        self._there = self.plan.parties

    def execute(self) -> History:
        """Runs the plan."""
        try:
            return self._execute()
        except (Exception, KeyboardInterrupt):
            if self.keeping is not None:
                self.keeping.break_off(self.history)
            raise
        finally:
            if self.keeping is not None:
                self.keeping.leave()

    def _execute(self) -> History:
        logs: Logs = {}
        self.federation.take_faults()  # those of before, e.g. of an evaluation, belong to no epoch of this fit
        start = self._begin()
        for epoch in range(start.epoch, self.plan.epochs):
            if self.callbacks.model.stop_training:
                break
            logs = self._epoch(epoch, start.segments if epoch == start.epoch else 0)
        self.callbacks.call("on_train_end", logs=logs)
        if self.keeping is not None:
            self.keeping.finish(self._there, self.history)
        return self.history

    def _begin(self) -> Position:
        """Returns where the run begins; one that goes on has everything back by then."""
        keeping, start = self.keeping, Position(self.plan.initial_epoch)
        if keeping is not None:
            keeping.prepare(self.callbacks.callbacks)
        self.callbacks.call("on_train_begin")
        if keeping is None:
            return start
        keeping.fill(self.history, self.absences.away, self.callbacks.callbacks, self.optimizer)
        if keeping.start is None:
            self._keep(start.epoch, 0, self.federation.begun)
            return start
        self.callbacks.model.stop_training = keeping.start.stopped
        return keeping.start

    def _keep(self, epoch: int, segments: int, begun: int) -> None:
        """Keeps the run as it is.

        Args:
            epoch: Which epoch comes next, or is under way.
            segments: How many of its segments are over.
            begun: Steps before it.
        """
        if self.keeping is not None:
            stopped = segments == 0 and self.callbacks.model.stop_training
            self.keeping.capture(
                Position(epoch, segments, begun, self.federation.epochs, stopped),
                self._there,
                self.history,
                self.absences.away,
                self.callbacks.callbacks,
                self.optimizer,
            )

    def _due(self, segment: Segment | None, *, ends_epoch: bool) -> bool:
        rounds = 0 if segment is None else len(segment.rounds)
        return self.keeping is not None and self.keeping.due(rounds, ends_epoch=ends_epoch)

    def _epoch(self, epoch: int, over: int) -> Logs:
        """Runs an epoch, but for those of its segments that are over."""
        if not over:
            self.callbacks.call("on_epoch_begin", epoch)
        with EpochBar(self.verbose, f"epoch: {epoch + 1}/{self.plan.epochs}", self.plan.steps) as bar:
            logs, local = self._segments(epoch, over, bar)
            if self.validation is not None and self.plan.validates(epoch):
                more, more_local = self._validate(epoch, self.validation, bar)
                logs |= more
                told = (party for party in self.plan.parties if party in local or party in more_local)
                local = {party: local.get(party, {}) | more_local.get(party, {}) for party in told}
            bar.close(complete=not self.callbacks.model.stop_training)
            logs = self.callbacks.call("on_epoch_end", epoch, logs=logs)
            self.history.record(epoch, logs, local)
            bar.figures(logs)
        if self._due(next(iter(self.plan.segments(epoch)[-1:]), None), ends_epoch=True):
            self._keep(epoch + 1, 0, self.federation.begun)
        return logs

    def _segments(self, epoch: int, over: int, bar: EpochBar) -> tuple[Logs, dict[PartyName, Logs]]:
        segments = self.plan.segments(epoch)
        reports: dict[PartyName, Report] = {}
        begun = self.federation.begun
        for place, segment in enumerate(segments[over:], start=over):
            first = segment.rounds[0].start
            if self.callbacks.wants_rounds:
                self.callbacks.call("on_train_batch_begin", first)
            try:
                reports = self._train(segment, begun, begins_epoch=not place, bar=bar)
            except NotFinite:
                if not self.callbacks.not_finite(first):
                    raise
                self.federation.open()
                return {"loss": float("nan")}, {}
            self.federation.begun = begun + (self.plan.steps if segment.ends_epoch else segment.rounds[-1].stop)
            if not segment.ends_epoch:  # nothing more of the parties' is opened for a bar: this was, for a callback
                bar.running(overall(reports))
            if self.callbacks.wants_rounds:
                self.callbacks.call("on_train_batch_end", segment.rounds[-1].stop - 1, logs=overall(reports))
            if self.callbacks.model.stop_training:
                break
            if not segment.ends_epoch and self._due(segment, ends_epoch=False):
                self._keep(epoch, place + 1, begun)
        self.federation.epochs += 1
        if not overall(reports):
            self._notice(
                f"epoch {epoch + 1}: no training metrics were opened over any rows, so there are none of this epoch"
            )
        return overall(reports), local(reports)

    def _train(self, segment: Segment, begun: int, *, begins_epoch: bool, bar: EpochBar) -> dict[PartyName, Report]:
        def order(number: int, over: int) -> TrainOrder:
            return TrainOrder(
                number,
                segment.epoch,
                tuple((r.start, r.stop) for r in segment.rounds[over:]),
                begins_epoch and over == 0,
                self.plan.sampling,
                self.plan.sizes,
                self.federation.strategy,
                self.optimizer.chosen,
                begun,
                self.federation.epochs,
            )

        def draw(over: int) -> None:
            if self.verbose == 1 and (loss := self.federation.running.look()) is not None:
                bar.running({"loss": loss})
            bar.advance_to(segment.rounds[over - 1].stop if over else segment.rounds[0].start)

        if begins_epoch:
            self.federation.running.begin()

        reports, stretches = self.federation.train(self.facts, order, draw)
        self._there = tuple(party for party in self.plan.parties if party in reports)
        self._tell(segment.epoch, stretches, bar)
        return reports

    def _tell(self, epoch: int, stretches: Sequence[Stretch], bar: EpochBar) -> None:
        for rounds in stretches:
            for news in self.absences.take(epoch, rounds):
                bar.note(news)
            if rounds.anew is not None:
                self.history.resets.append(Reset(epoch, rounds.first, rounds.anew))
            for text in notices(rounds, f"epoch {epoch + 1}"):
                self._notice(text)
        self.history.faults += [
            FaultRecord(epoch, one.number, one.party, one.what, one.evidence) for one in self.federation.take_faults()
        ]

    def _notice(self, text: str) -> None:
        self.history.notices.append(text)
        _log.warning(text)

    def _validate(self, epoch: int, source: Source, bar: EpochBar) -> tuple[Logs, dict[PartyName, Logs]]:
        self.callbacks.call("on_test_begin")
        reports, stretches = self.federation.evaluate(self.facts, source, self.plan.sampling.batch_size)
        self._tell(epoch, stretches, bar)
        logs = overall(reports)
        self.callbacks.call("on_test_end", logs=logs)
        prefixed = {party: _prefixed(values) for party, values in local(reports).items()}
        return _prefixed(logs), prefixed


def overall(reports: Mapping[PartyName, Report]) -> Logs:
    """Returns the metrics over all parties, the same in every report that has them; none where no row is in them."""
    found = next((report.overall for report in reports.values() if report.overall), ())
    return {} if _of_no_rows(found) else values(found)


def local(reports: Mapping[PartyName, Report]) -> dict[PartyName, Logs]:
    """Returns each party's own metrics by name; see `own_metrics`."""
    return {party: values(own) for party, own in own_metrics(reports).items()}


def own_metrics(reports: Mapping[PartyName, Report]) -> dict[PartyName, tuple[Metric, ...]]:
    """Returns each party's own metrics; parties that withhold them, or have no rows in them, are left out."""
    return {p: report.local for p, report in reports.items() if report.local and not _of_no_rows(report.local)}


def _of_no_rows(metrics: Sequence[Metric]) -> bool:
    """Returns whether metrics are over no rows: frameworks say 0.0 of nothing, which is a wrong number."""
    return any(isinstance(one, Mean) and one.name == "loss" and not one.count for one in metrics)


def values(metrics: Sequence[Metric]) -> Logs:
    """Returns what the metrics come to, by name."""
    return {metric.name: metric.result() for metric in metrics}


def _prefixed(logs: Logs) -> Logs:
    return {f"val_{name}": value for name, value in logs.items()}


def plan_shape(plan: FitPlan) -> RoundShape:
    """Returns what an aggregator needs to know of the rounds of a plan."""
    rounds = plan.rounds(plan.initial_epoch)
    sizes = tuple(plan.sizes.values())
    share = max((rows / size for r in rounds for rows, size in zip(r.rows, sizes, strict=True) if size), default=0.0)
    largest = max((rows for r in rounds for rows in r.rows), default=0)
    batches = max(plan.aggregate_freq, -(-largest // plan.sampling.batch_size))
    return RoundShape(batches, share, (len(rounds) + 1) * (plan.epochs - plan.initial_epoch))
