# SPDX-License-Identifier: Apache-2.0
"""Trainer: one party's part in the rounds of training. The plain update lives in locals here and nowhere else.

Knows no other party's data and no clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray import metrics
from fedray.backends.backend import Batch
from fedray.errors import ProtocolError, ServerFault
from fedray.metrics import Mean, Metric
from fedray.party.context import PartyContext, Reply
from fedray.party.records import Answer, PastRound
from fedray.party.rounds.contributor import Contributor
from fedray.party.training.following import Following
from fedray.party.training.local_model import LocalModel
from fedray.party.training.manifests import report_manifest, train_manifest
from fedray.party.training.model_rounds import ModelRounds
from fedray.party.training.orders import TrainOrder, rows_of, settings
from fedray.party.training.so_far import SoFar
from fedray.party.training.under_way import UnderWay
from fedray.protocol.messages import digest
from fedray.protocol.opened import OpenedSum
from fedray.protocol.rows import Rows
from fedray.protocol.scheme import Contribution, Opened, RoundContext
from fedray.strategies import State, Strategy, make_strategy
from fedray.strategies.halves import known, payload
from fedray.types import PartyName, Round, Vector

Remembered: TypeAlias = tuple[State | None, list[Metric], bytes]
"""What a trainer remembers from one segment to the next."""


class Trainer:
    """Trains inside one party. Its model, its end of the sums and its strategy are objects of their own.

    Args:
        context: The party this service lives in.
        contributor: Its end of the private sums.
        model: Its model.
        rounds: The rounds that it shares with evaluation.
        strategy: Name and parameters.

    Raises:
        PlanError: The model cannot be trained with this strategy.
    """

    def __init__(
        self,
        context: PartyContext,
        contributor: Contributor,
        model: LocalModel,
        rounds: ModelRounds,
        strategy: tuple[str, dict[str, float]],
    ) -> None:
        self._context, self._contributor, self._model, self._rounds = context, contributor, model, rounds
        self._strategy: Strategy = make_strategy(*strategy)
        with model.named():
            model.backend.check_strategy(self._strategy)
        self._following = Following(contributor, model, self._strategy)
        self._state: State | None = None
        self._measured: list[Metric] = []
        self._so_far = SoFar(rounds.local_metrics and context.config.egress != "strict")
        self._run = secrets.token_bytes(16)

    def ready(self) -> None:
        """Acknowledges that the model is there and can be trained."""

    def forget(self) -> None:
        """Forgets what the strategy has remembered: it belongs to weights that others replace."""
        self._state = None
        self._model.known, self._model.state, self._model.scales = (), None, None

    def watch(self) -> Reply | None:
        """Tells the driver, while rounds go on, this party's loss so far; see `SoFar`."""
        return self._so_far.answer()

    def remembered(self) -> Remembered:
        """Returns what a checkpoint holds: the strategy's state, the epoch's metrics so far, the run's own name."""
        return self._state, self._measured, self._run

    def remember(self, kept: Remembered) -> None:
        """Puts back what `remembered` returned."""
        self._state, self._measured, self._run = kept

    def train(self, order: TrainOrder) -> Reply:
        """Runs the rounds of a segment and returns a `Report`.

        A round that fails or is abandoned is put back: model, optimizer and random state are as they were before it.
        """
        segment = self._prepared(order)
        try:
            while segment.done < len(order.spans) and not segment.renew:
                if self._is_empty(segment):
                    segment.done += 1
                elif self._round(segment, report=segment.done == len(order.spans) - 1):
                    break
        finally:  # however it ends: the backend's own weights are what this party alone has trained
            self._model.put_back()
        if segment.sums is None and segment.done == len(order.spans):
            self._report_alone(segment)
        done, renew, fresh = segment.done, segment.renew, segment.fresh
        return self._rounds.report(self._measured, segment.sums, segment.seen, done=done, renew=renew, fresh=fresh)

    def again(self, order: TrainOrder, number: Round) -> tuple[RoundContext, Contribution]:
        """Returns what a round is about and this party's contribution to it, made once more; nothing of it is sent.

        Args:
            order: The order of its segment; no round of it before that one may have been held.
            number: The round.
        """
        segment = self._prepared(order)
        segment.done = number - order.number
        if self._contributor.past.anew:
            self._begin_anew(segment)
        batches = self._batches(segment)
        sent, weight = self._update(segment, batches)
        measured = self._measure() if segment.done == len(order.spans) - 1 else None
        return self._context_of(segment), Contribution(sent, weight, measured)

    def _prepared(self, order: TrainOrder) -> UnderWay:
        """Returns a segment that is about to begin."""
        rows = order.sizes[self._context.name]
        if order.begins_epoch:
            self._model.backend.reset_metrics()
            alike = order.sampling.method == "batch" and not self._model.row_weights["train"]
            self._measured = []
            self._so_far.begin(rows if alike else 0)
        if order.learning_rate is not None:
            self._model.backend.set_learning_rate(order.learning_rate)
        steps = order.sampling.deal(self._context.name, rows, order.epoch)
        told = settings(order, self._model.class_weight["train"])
        manifest = train_manifest(self._model.facts, self._strategy, self._model.row_weights["train"])
        return UnderWay(order, told, manifest, steps)

    def _batches(self, segment: UnderWay) -> list[Batch]:
        """Returns this party's batches of the next round, and tells the backend that it begins."""
        order = segment.order
        start, stop = order.spans[segment.done]
        self._model.backend.begin_round(order.begun + start, stop - start, order.epochs)
        return [batch for step in segment.steps[start:stop] for batch in step]

    def _round(self, segment: UnderWay, report: bool) -> bool:
        """Runs one round; returns whether the driver wants the segment to end."""
        order, place = segment.order, segment.done
        if self._contributor.past.anew:
            self._begin_anew(segment)
        batches = self._batches(segment)
        used = sum(len(batch.rows) for batch in batches)
        rows = rows_of(order, place, self._context.name, used, self._model.bound["train"], self._run)
        with self._unless_opened(segment) as kept:
            sent, weight = self._update(segment, batches)
            measured = self._measure() if report else None
            answer, opened = self._summed(segment, rows, Contribution(sent, weight, measured))
            if answer.verdict == "opened" and opened is not None and self._contributor.verified:
                kept.append(answer)
        if answer.verdict == "missed":
            return self._catch_up(segment, answer)
        segment.repeats = None
        if opened is not None:
            with self._unless_verified():
                self._take(segment, opened)
        elif answer.verdict == "renew":
            segment.renew = answer.reason
        else:
            segment.seen.note(segment.planned, self._contributor.members, opened=False)
            segment.done, segment.fresh = place + 1, False
        self._contributor.past.add(answer.verdict, self._contributor.verified, self._model.hash())
        if answer.verdict == "abandoned":
            self._check_rows(segment, used)
        if opened is not None:
            self._so_far.note(order.spans[place][1], order.sampling.steps, used, self._loss_so_far)
        return answer.stop

    def _begin_anew(self, segment: UnderWay) -> None:
        """Forgets how training has moved, beside the model: not all parties were told the same in it."""
        self._contributor.past.anew = False
        segment.local = self._state = None
        self._model.backend.forget()

    def _summed(self, segment: UnderWay, rows: Rows, contribution: Contribution) -> tuple[Answer, Opened | None]:
        """Takes part in a round, and with the same input in those that repeat it until all values fit."""
        stop = False
        while True:
            context = replace(self._context_of(segment), rows=rows)
            answer = self._rounds.exchange(f"train round {context.number}", context, contribution)
            # Whoever stopped before a repeat would leave the others without its input.
            stop = stop or answer.stop
            opened = None
            if answer.opened is not None:
                opened = self._settle(segment, answer.opened)
            if answer.opened is None or opened is not None:
                return replace(answer, stop=stop), opened

    def _context_of(self, segment: UnderWay) -> RoundContext:
        """Returns what the next round is about; its rows are left to whoever sends any."""
        model = self._model
        # What is known beside the model is a setting: equal weights are the same model, whatever came with them.
        known_hash = b"".join(digest("known", vector.tobytes()) for vector in model.known)
        bound = segment.settings + segment.done.to_bytes(8, "big") + known_hash
        # The bounds of its tensors are in the manifest: whoever was told others shares no key with the rest.
        segment.manifest = self._following.bounded(segment.manifest)
        return RoundContext(segment.number, model.hash(), bound, segment.manifest, repeats=segment.repeats)

    def _settle(self, segment: UnderWay, found: OpenedSum) -> Opened | None:
        """Returns what the sum of the next round says; None where it is to be repeated, as is noted then."""
        opened = self._following.settle(found, segment.manifest, repeats=segment.repeats is not None)
        if opened is None:
            segment.repeats = segment.number
            segment.again += 1
        return opened

    def _update(self, segment: UnderWay, batches: Sequence[Batch]) -> tuple[Vector, int]:
        """Returns this party's payload and its weight.

        Without rows it has computed nothing: it sends zeros of weight 0, and its strategy's state stays as it is.
        """
        model, strategy = self._model, self._strategy
        if not batches:
            return np.zeros(segment.manifest.size, model.weights.dtype), 0
        trainable = model.facts.spec.trainable
        weights = model.weights[:trainable]
        state = strategy.client_init(weights) if self._state is None else self._state
        state = strategy.client_begin(state, weights, known(strategy, model.known, weights))
        with model.named():
            if strategy.local == "train":
                hook, data = strategy.client_hook, model.data["train"]
                local, rows, segment.local = model.backend.train(model.weights, data, batches, hook, state)
            else:
                local, rows = model.backend.gradient(model.data["train"], batches)
        self._state, sent = strategy.client_finish(state, weights, local[:trainable])
        return payload(strategy, sent, local[trainable:]), rows

    def _take(self, segment: UnderWay, opened: Opened) -> None:
        """Makes the next model of a round's sum; the round is over."""
        self._following.advance(opened)
        segment.seen.note(segment.planned, opened.parties, opened=True)
        segment.done, segment.repeats = segment.done + 1, None
        segment.sums = opened.metrics if segment.done == len(segment.order.spans) else None
        # Not only the model before: a fit may come back to one that served long ago.
        segment.fresh = not self._context.memory.knows(self._model.hash())

    def _catch_up(self, segment: UnderWay, answer: Answer) -> bool:
        """Follows the others through rounds that were held without this party; returns whether the segment ends."""
        stop = answer.stop
        while True:
            for past in answer.missed:
                self._pass_over(segment, past.number)
                self._follow(segment, past)
            self._pass_over(segment, answer.number)
            if segment.repeats is None:
                break
            # The others sum the same inputs once more, and this party has sent none.
            answer = self._contributor.await_sum("sums that it missed", segment.number)
            stop = stop or answer.stop
        self._contributor.past.catch_up(max((past.number for past in answer.missed), default=segment.number))
        self._model.backend.set_weights(self._model.weights)
        return stop

    def _pass_over(self, segment: UnderWay, until: Round) -> None:
        """Goes on to a round in which the server says that this party may take part, or what came of which it tells.

        Every round of the plan comes to something. Whoever might leave out some of which it holds the sum could choose
        what the model learns.

        Raises:
            ServerFault: A round between here and there has a sum, or was abandoned, and the server does not say so.
        """
        while segment.done < len(segment.order.spans) and segment.number < until:
            # Rounds in which fewer than two parties have rows have numbers, and no sum.
            if segment.repeats is not None or not self._is_empty(segment):
                raise ServerFault(
                    f"party {self._context.name!r}: server {self._contributor.server!r} said to go on with round "
                    f"{until} and not what came of round {segment.number}; expected what came of each. Nothing further "
                    "is sent: the server leaves rounds out, or is of another version"
                )
            segment.done += 1

    def _is_empty(self, segment: UnderWay) -> bool:
        """Returns whether the next round is not held, since fewer than two of several parties have rows in it."""
        return self._holders(segment.order, segment.done) < 2 and len(self._contributor.members) > 1

    def _follow(self, segment: UnderWay, past: PastRound) -> None:
        """Takes over what came of one round that was held without this party."""
        order, place = segment.order, past.number - segment.order.number - segment.again
        if place >= len(order.spans):  # it is a round of metrics, or of another segment
            return
        segment.done = place
        if past.opened is None:
            segment.seen.note(segment.planned, self._contributor.members, opened=False)
            self._follow_on(segment, self._context_of(segment), ())
            segment.done, segment.repeats, segment.fresh = place + 1, None, False
            return
        context = self._context_of(segment)
        self._contributor.verify_missed(context, past.opened)
        opened = self._settle(segment, past.opened)
        if opened is not None:
            start, stop = order.spans[place]
            self._model.backend.begin_round(order.begun + start, stop - start, order.epochs)
            self._take(segment, opened)
            self._follow_on(segment, context, opened.parties)

    def _follow_on(self, segment: UnderWay, context: RoundContext, over: Sequence[PartyName]) -> None:
        """Begins anew where the others do so after a round that this party has missed, before the next one's sum."""
        self._contributor.past.follow(context, over, self._model.hash())
        if self._contributor.past.anew:
            self._begin_anew(segment)

    def _check_rows(self, segment: UnderWay, used: int) -> None:
        """Leaves after an abandoned round that used more than half of this party's rows.

        What the next round would use overlaps with what was sent, and the two sums might be compared.

        Raises:
            ProtocolError: The round used too many rows.
        """
        if 2 * used > segment.order.sizes[self._context.name]:
            raise ProtocolError(
                f"party {self._context.name!r} leaves: a round that used {used} of its "
                f"{segment.order.sizes[self._context.name]} rows was abandoned, and it has too few others to go on "
                "with; use on_dropout='recover' for rounds this long"
            )

    def _measure(self) -> NDArray[np.float64]:
        """Adds what was measured since the last segment to the epoch's metrics, and returns their states."""
        taken = self._model.backend.take_metrics()
        if self._measured:
            merged = {metric.name: metric for metric in metrics.merge([self._measured, taken])}
            taken = self._model.backend.finish([merged.get(metric.name, metric) for metric in taken])
        self._measured = taken
        return metrics.flatten(taken)

    def _loss_so_far(self) -> Mean | None:
        """Returns the loss over the epoch's rows so far, and leaves what is measured as it is."""
        parts = [one for one in self._measured if isinstance(one, Mean) and one.name == "loss"]
        parts += filter(None, [self._model.backend.loss_so_far()])
        return Mean("loss", sum(one.total for one in parts), sum(one.count for one in parts)) if parts else None

    def _report_alone(self, segment: UnderWay) -> None:
        """Sums the epoch's metrics in a round of their own, where no opened round carried them."""
        order, measured = segment.order, self._measure()
        segment.fresh = False
        manifest = report_manifest(self._model.facts, self._model.row_weights["train"])
        for number in range(segment.number, segment.number + len(order.sizes)):
            context = RoundContext(number, self._model.hash(), segment.settings, manifest, "evaluate")
            planned = number - segment.again
            answer, sums = self._rounds.exchange_metrics("report metrics", context, measured, planned, segment.seen)
            if answer.verdict == "renew":
                segment.renew = answer.reason
            if answer.verdict != "abandoned":
                segment.sums = sums
                return

    def _holders(self, order: TrainOrder, place: int) -> int:
        """Returns how many parties of the view hold rows in a round; every party computes the same from the sizes."""
        if len(self._contributor.members) == len(order.sizes):
            return len(order.sizes)  # the plan holds no round of the whole roster with fewer than two
        start, stop = order.spans[place]
        shares = [
            order.sampling.share_sizes(party, order.sizes[party], order.epoch) for party in self._contributor.members
        ]
        return sum(int(share[start:stop].sum()) > 0 for share in shares)

    @contextmanager
    def _unless_opened(self, segment: UnderWay) -> Iterator[list[Answer]]:
        """Puts model, optimizer, metrics and random state back as they were, unless an opened answer is put in."""
        state, measured, local = self._state, self._measured, segment.local
        if local is None:  # an empty one is one, too: of a step that moves no local state
            local = self._model.backend.snapshot()
        segment.local = None
        opened: list[Answer] = []
        try:
            yield opened
        finally:
            if not opened:
                segment.local = None
                self._model.backend.restore(local)
                self._model.backend.set_weights(self._model.weights)
                self._state, self._measured = state, measured

    @contextmanager
    def _unless_verified(self) -> Iterator[None]:
        """Puts local state back as it was where it is not certain over whom the sum was opened that moves the model."""
        local = None if self._contributor.verified else self._model.backend.snapshot()
        yield
        if local is not None:
            self._model.backend.restore(local)
            self._model.backend.set_weights(self._model.weights)
