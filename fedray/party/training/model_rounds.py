# SPDX-License-Identifier: Apache-2.0
"""ModelRounds: one party's model in rounds without training: it is handed round, evaluated, reported on.

Knows a contributor's end and a local model. Knows no training and no other party's data. What it may tell the driver
about its own rows is decided by `local_metrics`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedray import metrics
from fedray.backends.backend import ModelFacts
from fedray.errors import EncodingError, PlanError, ServerFault
from fedray.metrics import Metric, Word
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, ModelMessage, ModelRequest, SumSet
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.set_log import SetLog
from fedray.party.training.handing import pack, statement, unpack, well_formed
from fedray.party.training.local_model import LocalModel
from fedray.party.training.orders import EvaluateOrder, settings
from fedray.party.training.sampling import cut
from fedray.protocol.crypto.keys import sign, verify
from fedray.protocol.manifest import ExactTotal, Manifest
from fedray.protocol.scheme import Contribution, RoundContext
from fedray.types import PartyName, Round


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
        evaluated: How many rounds of metrics this session has held on the model as it is now; parties allow so many.
        sets: Whose inputs the rounds summed.
        model: Hash of the global model that this party has now.
        sums: SHA-256 of the opened sums of metrics; empty where there are none.
        anew: Because of whom this party's optimizer has begun anew, or will before it trains again; None where it has
            not.
    """

    local: tuple[Metric, ...]
    overall: tuple[Metric, ...]
    done: int = 1
    renew: str = ""
    fresh: bool = False
    evaluated: int = 0
    sets: tuple[SumSet, ...] = ()
    model: bytes = b""
    sums: bytes = b""
    anew: tuple[PartyName, ...] | None = None


class ModelRounds:
    """One party's model in the rounds of its aggregator.

    Args:
        context: The party this service lives in.
        contributor: Its end of the private sums.
        model: Its model.
        local_metrics: Whether this party's own metrics go to the driver.

    Attributes:
        local_metrics: The same.
    """

    def __init__(self, context: PartyContext, contributor: Contributor, model: LocalModel, local_metrics: bool) -> None:
        self._context, self._contributor, self._model = context, contributor, model
        self.local_metrics = local_metrics
        self._evaluated: tuple[int, Counter[bytes]] = (0, Counter())  # a session's number, its rounds by model

    def publish(self) -> None:
        """Sends the model, with this party's signature, to the server, before rounds begin, as everybody's start.

        It leaves as `initial` only while it is what the builder made; after that it is the global model.
        """
        model = self._model
        model.put_back()
        model.adopt(np.array(model.backend.weights()), model.known)
        message = pack(model)
        signature = sign(self._context.identity, self._statement(message))
        kind = Kind.INITIAL if model.as_built else Kind.AGGREGATE
        self._contributor.ask_server("publish the model", replace(message, signature=signature), kind)

    def pull(self, sender: PartyName, initial: bool) -> Reply:
        """Takes the model that a party has published as this party's own, by way of the server.

        Args:
            sender: Who has signed it.
            initial: Whether the driver has trained nothing yet, nor loaded anything, so that it is what a builder made.

        Returns:
            Whether this party's builder had made other weights than the sender's.

        Raises:
            PlanError: None was published.
            ServerFault: It is not what the sender has signed for this session.
        """
        model, server = self._model, self._contributor.server
        found: ModelMessage | None = self._contributor.ask_server("pull the model", ModelRequest(sender), Kind.SHAPE)
        if found is None:
            raise PlanError(f"server {server!r} was given no model by party {sender!r}; publish it first")
        # First the types: a statement is made of what values look like.
        signed = well_formed(found) and verify(self._context.roster[sender], self._statement(found), found.signature)
        if not signed:
            raise ServerFault(
                f"party {model.party!r}: the model that server {server!r} handed out is not what party {sender!r} has "
                "signed for this session: it was altered, or is another one; nothing of it was taken"
            )
        equal = np.array_equal(found.weights, model.backend.weights())
        # Not by the sender's word alone: it could say that weights of its own making came from elsewhere.
        differs = model.as_built and (found.initial or initial) and not equal
        model.as_built = model.as_built and equal
        unpack(found, model)
        return Reply(Kind.SHAPE, differs)

    def _statement(self, message: ModelMessage) -> bytes:
        return statement(self._contributor.sid, self._contributor.session, message)

    def evaluate(self, order: EvaluateOrder) -> Reply:
        """Evaluates the global model on the bound data and returns a `Report`."""
        model = self._model
        rows = np.arange(order.sizes[model.party], dtype=np.int64)
        model.backend.set_weights(model.weights)
        with model.named():
            local = model.backend.evaluate(model.data["evaluate"], cut(rows, order.batch_size))
        told = settings(order, model.class_weight["evaluate"])
        manifest = evaluate_manifest(model.facts, model.row_weights["evaluate"])
        context = RoundContext(order.number, model.hash(), told, manifest, "evaluate")
        seen = SetLog()
        answer, sums = self.exchange_metrics("evaluate", context, metrics.flatten(local), order.number, seen)
        renew = answer.reason if answer.verdict == "renew" else ""
        return self.report(local, sums, seen, done=int(sums is not None), renew=renew)

    def exchange(self, call: str, context: RoundContext, contribution: Contribution) -> Answer:
        """Takes part in one round; says of numbers that cannot be summed whose they are and what to do.

        Args:
            call: The round in words, for the ledger.
            context: What the round is about.
            contribution: This party's part.

        Raises:
            EncodingError: A number is not finite, or too large.
            ProtocolError: The round was given up, or the others went on without this party.
        """
        try:
            return self._contributor.exchange(call, context, contribution)
        except EncodingError as error:
            party = self._model.party
            found = str(error).removeprefix(f"{party}: ")
            raise type(error)(
                f"party {party!r}: {found}; look for NaN and infinity in its rows, or for training that diverges"
            ) from error

    def exchange_metrics(
        self, call: str, context: RoundContext, measured: NDArray[np.float64], planned: Round, seen: SetLog
    ) -> tuple[Answer, NDArray[np.float64] | None]:
        """Takes part in a round of metrics alone; see `exchange`.

        Args:
            call: The round in words, for the ledger.
            context: What the round is about.
            measured: float64[m], as `fedray.metrics.flatten` returns it.
            planned: Number of the round in the plan.
            seen: Where its set is noted.

        Returns:
            The answer, and the sums over all parties, float64[m]; None where nothing was opened.
        """
        session = self._contributor.session
        if self._evaluated[0] != session:
            self._evaluated = session, Counter()
        self._evaluated[1][context.model] += 1
        nothing = np.empty(0, self._model.weights.dtype)
        answer = self.exchange(call, context, Contribution(nothing, 0, measured))
        opened = answer.opened if answer.verdict == "opened" else self._contributor.missed_sum(context, answer)
        if opened is not None:
            seen.note(planned, opened.members, opened=True)
            return answer, self._contributor.read(opened, context.manifest).metrics
        if answer.verdict == "abandoned":
            seen.note(planned, self._contributor.members, opened=False)
        return answer, None

    def report(
        self,
        local: Sequence[Metric],
        sums: NDArray[np.float64] | None,
        seen: SetLog,
        *,
        done: int,
        renew: str = "",
        fresh: bool = False,
    ) -> Reply:
        """Returns the `Report` of a segment.

        Args:
            local: This party's own metrics.
            sums: float64[m], the opened sums over all parties; None where there are none.
            seen: Whose inputs the rounds summed.
            done: As in `Report`.
            renew: As in `Report`.
            fresh: As in `Report`.
        """
        finished = () if sums is None else tuple(self._model.backend.finish(metrics.rebuild(local, sums)))
        shown = tuple(local) if self.local_metrics else ()
        evaluated = self._evaluated[1][self._model.hash()] if self._evaluated[0] == self._contributor.session else 0
        told = b"" if sums is None else hashlib.sha256(np.ascontiguousarray(sums).data).digest()
        news, model = self._contributor.past.take_news(), self._model.hash()
        report = Report(shown, finished, done, renew, fresh, evaluated, seen.sets, model, told, news)
        return Reply(Kind.METRICS if shown else Kind.AGGREGATE, report)


def totals(words: Sequence[Word], row_weights: bool) -> tuple[ExactTotal, ...]:
    """Returns what a round's metrics are summed as.

    Args:
        words: The numbers of their states.
        row_weights: Whether rows have weights, with which no count need be a whole number.
    """
    return tuple(ExactTotal(word.name, whole=word.whole and not row_weights) for word in words)


def evaluate_manifest(facts: ModelFacts, row_weights: bool) -> Manifest:
    """Returns what the words of an evaluation round mean: metrics only.

    Args:
        facts: The model's metrics.
        row_weights: As in `totals`.
    """
    return Manifest((), totals(facts.evaluate_words, row_weights), weighted=False)
