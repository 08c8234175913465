# SPDX-License-Identifier: Apache-2.0
"""Sums and averages of the user's own values, one round each. The driver's side; it sees what was opened only."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedray.device import PYU, PYUObject
from fedray.device.interfaces import live
from fedray.errors import DataError, PartyLost, PlanError, ProtocolError, type_of
from fedray.party.records import Missing, SumSet
from fedray.party.rounds import summable
from fedray.party.rounds.value_client import SumOrder, SumReport, ValueClient
from fedray.party.table import Slot
from fedray.protocol.config import Config, Encoding
from fedray.protocol.manifest import LEAST_BOUND, ExactTotal, Manifest, Tensor
from fedray.protocol.scheme import Fault
from fedray.rounds.absent import absent
from fedray.rounds.notices import log_unsaid
from fedray.rounds.sum_session import SumSession
from fedray.rounds.supervision import REMEDY
from fedray.runtime.session import Session
from fedray.types import Key, PartyName

_log = logging.getLogger("fedray")

GONE = f", and its value is gone with it. Sum the others' with an aggregator of their own, or: {REMEDY}"

MOST_BYTES = 1 << 26
"""Bytes of a party's message up to which floats are summed exactly, by default: some 400,000 of them at few parties."""
WEIGHT_STEPS = 1 << 30
"""Integer steps into which the largest of fractional weights is divided."""
WEIGHT_RANGE = 64
"""Weights whose largest one is from 2^-64 to 2^64 are taken as they are, others in a unit of their own."""


class Summing(Protocol):
    """What sums of values need of an aggregator.

    Attributes:
        server: The party that sums.
        participants: The contributing parties, in roster order.
        compute: Compute parties, where shares are summed by them.
        round_timeout: Seconds that one exchange of a round may take.
    """

    server: PYU
    participants: tuple[PYU, ...]
    compute: tuple[PartyName, ...]
    round_timeout: float

    def config(self, session: Session, encoding: Encoding) -> Config:
        """Returns the Config that the server proposes."""


class ValueSums:
    """The sums of one aggregator; its session is opened with the first of them.

    Args:
        aggregator: Who sums, and how.

    Attributes:
        dropouts: Who was missing from the last sum.
        faults: Who did wrong in it.
    """

    def __init__(self, aggregator: Summing) -> None:
        self._aggregator = aggregator
        self._session: Session | None = None
        self.dropouts: tuple[Missing, ...] = ()
        self.faults: tuple[Fault, ...] = ()

    def open(
        self,
        data: Sequence[PYUObject],
        weights: Sequence[float | PYUObject] | None,
        largest_weight: float | None,
        bound: float | None,
    ) -> Any:
        """Returns the sum (without weights) or the average of one value per participant.

        Args:
            data: One object of every participant, in any order.
            weights: One per object, in the same order; None for a sum.
            largest_weight: What no weight exceeds, or None; with `bound`, needed where parties hold the weights.
            bound: Largest absolute value of a float, for a fixed point of one word each; None to sum them exactly.

        Raises:
            PlanError: Objects or weights are not one of each participant, a number is out of range, or there are too
                many floats to sum them exactly.
            DataError: A party's value cannot be summed, or differs in shape from the others'.
            EncodingError: A value is not finite, or beyond `bound` or 2^160.
            PartyLost: A party's process has ended.
            ProtocolError: A party was too late, and nothing was opened.
        """
        values = self._by_party("data", data)
        session = live(data[0])
        most, unit, given = self._weights(data, weights, largest_weight, compact=bound is not None)
        sums, services = self._services(session)
        # Each party first says what its value looks like, and shows nothing of it: shapes that differ must be found
        # before anything is encoded.
        offers = [
            session.ask(party, services[party], "offer", held.slot(), given[party], most)
            for party, held in values.items()
        ]
        self.dropouts = self.faults = ()
        try:
            nest, tensors = self._agreed(dict(zip(values, session.get(offers), strict=True)))
            if bound is None:
                manifest = self._exact(tensors, averaged=weights is not None)
            else:
                bounded = [replace(tensor, bound=None if tensor.integer else _checked(bound)) for tensor in tensors]
                manifest = Manifest(tuple(bounded), weighted=weights is not None)
            encoding = Encoding(weight_bound=max(1, round(most / unit)) if manifest.weighted and most else 1)
            complete = len(sums.parties) == len(self._aggregator.participants)
            # A session is kept for the next sum; opening one takes three exchanges.
            if sums.config is None or sums.config.encoding != encoding or not complete:
                sums.open(self._aggregator.config(session, encoding))
                log_unsaid(session, sums.config)
        except PartyLost as error:
            if error.party not in values or error.party == sums.server:
                raise
            raise PartyLost(f"{str(error).rstrip('.')}{GONE}", party=error.party) from error
        number = sums.announce(manifest, 1)
        # Unlike every other sum's text. Parties remember it, as they do a model: one input goes into one sum only.
        operation, teller = f"{session.id} {session.statement('sum')}", sums.parties[0]
        order = SumOrder(number, operation, manifest, weights is not None, unit, teller)
        return summable.rebuild(nest, tensors, *self._run(sums, order), averaged=weights is not None)

    def _run(self, sums: SumSession, order: SumOrder) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Returns what was opened, values and totals, and keeps and says who was missing from it.

        All parties say what they have read, one in full and the others by a digest.

        Raises:
            PartyLost: A party's process ended and nothing was opened.
            ProtocolError: A party was too late and nothing was opened. The round is not held again with fewer parties:
                the two sums might differ by the value of the one that was missing. Or the parties have read different
                sums.
        """
        try:
            outcome = sums.run(self._clients, "contribute", order)
        finally:
            self.faults = sums.take_faults()
        self.dropouts = outcome.missing
        for party, error in outcome.failed.items():
            _log.warning("party %r went no further, and server %r does not say so: %s", party, sums.server, error)
        try:
            reports = _alike(outcome.reports)
        except ProtocolError:
            sums.config = None  # whoever was told something else shares no key with the others any more
            raise
        if reports:
            members = next(iter(reports.values())).members
            everybody = [party.name for party in self._aggregator.participants]
            sets = (SumSet(order.number, 1, members, True),)
            self.dropouts = absent(sets, everybody, outcome.missing)
        missing = ", ".join(f"{one.party} ({one.reason})" for one in self.dropouts)
        if not reports:
            sums.config = None
            for party in sorted(outcome.dead):
                raise PartyLost(f"nothing was opened: the process of party {party!r} has ended{GONE}", party=party)
            raise ProtocolError(
                f"nothing was opened; missing: {missing or 'the keys of its round'}. Ask again when everybody answers, "
                "or make the aggregator with on_dropout='recover': it opens the sum over those that remain"
            )
        if missing:
            gone = {one.party for one in self.dropouts}
            there = [party.name for party in self._aggregator.participants if party.name not in gone]
            _log.warning("the sum is over %s only; missing: %s", ", ".join(there), missing)
        for report in reports.values():
            if report.opened is not None:
                return report.opened
        party = next(iter(reports))
        told = sums.session.get([sums.session.ask(party, self._clients[party], "tell")])
        opened: tuple[NDArray[Any], NDArray[np.float64]] = told[0]
        return opened

    def _by_party(self, argument: str, data: Sequence[Any]) -> dict[PartyName, PYUObject]:
        expected = [party.name for party in self._aggregator.participants]
        if not isinstance(data, Sequence):
            raise PlanError(f"{argument}: expected a list, one PYUObject of each of {expected}, found {type_of(data)}")
        if not all(isinstance(held, PYUObject) for held in data):
            kinds = sorted({type(held).__name__ for held in data if not isinstance(held, PYUObject)})
            raise PlanError(f"{argument}: expected one PYUObject of each of {expected}, found {', '.join(kinds)}")
        found = {held.device.name: held for held in data}
        if set(found) != set(expected) or len(data) != len(expected):
            held_by = [held.device.name for held in data]
            raise PlanError(f"{argument}: expected one object of each of {expected}, found objects of {held_by}")
        return {name: found[name] for name in expected}

    def _weights(
        self, data: Sequence[PYUObject], weights: Sequence[Any] | None, largest: float | None, *, compact: bool
    ) -> tuple[float | None, float, dict[PartyName, Any]]:
        """Returns the largest weight, the weight that counts as 1, and each party's weight as it is sent to it.

        Args:
            data: One object of every participant.
            weights: One per object, or None.
            largest: What the caller says that none exceeds, or None.
            compact: Whether weights become integers.
        """
        if weights is None:
            return None, 1.0, dict.fromkeys((held.device.name for held in data), None)
        if not isinstance(weights, Sequence | np.ndarray):
            raise PlanError(f"weights: expected a list, one per object of data, found {type_of(weights)}")
        if len(weights) != len(data):
            raise PlanError(f"weights: expected {len(data)}, one per object of data, found {len(weights)}")
        if any(isinstance(weight, PYUObject) for weight in weights):
            if largest is None and compact:
                raise PlanError(
                    "largest_weight: expected a bound on the weights beside that on the values, since parties hold "
                    "them; found None"
                )
            held = self._by_party("weights", weights)
            given: dict[PartyName, Any] = {party: weight.slot() for party, weight in held.items()}
            whole = False
        else:
            if not all(np.ndim(weight) == 0 and np.asarray(weight).dtype.kind in "biuf" for weight in weights):
                kinds = ", ".join(sorted({type(weight).__name__ for weight in weights}))
                raise PlanError(f"weights: expected numbers or objects of the participants, found {kinds}")
            given = {held.device.name: float(weight) for held, weight in zip(data, weights, strict=True)}
            if not all(math.isfinite(weight) and weight >= 0 for weight in given.values()):
                raise PlanError(f"weights: expected finite numbers of 0 or more, found {list(weights)}")
            if not any(given.values()):
                raise PlanError("weights: expected at least one above 0, found zeros only: there is nothing to average")
            if largest is None:
                # Far from 1, products and the sum of the weights would lose digits or have no room; an average does not
                # depend on the unit of its weights, and a power of two changes no digit.
                far = math.frexp(max(given.values()))[1]
                if abs(far) > WEIGHT_RANGE:
                    given = {party: math.ldexp(weight, -far) for party, weight in given.items()}
                largest = max(given.values())
            whole = all(weight.is_integer() for weight in given.values())
        if largest is None:
            return None, 1.0, given
        number = isinstance(largest, int | float) and not isinstance(largest, bool)
        if not number or not math.isfinite(largest) or largest <= 0:
            raise PlanError(f"largest_weight: expected a positive number, found {largest!r}")
        # Whole weights are summed as they are, so equal weights lose nothing. Others become steps of the largest one.
        exact = whole and float(largest).is_integer() and largest <= WEIGHT_STEPS
        return float(largest), 1.0 if exact else largest / WEIGHT_STEPS, given

    def _services(self, session: Session) -> tuple[SumSession, dict[PartyName, Key]]:
        if self._session is not session:
            aggregator = self._aggregator
            server, timeout = aggregator.server.name, aggregator.round_timeout
            self._sums = SumSession(session, server, timeout, aggregator.compute)
            ends = self._sums.add([party.name for party in aggregator.participants])
            self._clients = {party: session.serve(party, ValueClient, Slot(end)) for party, end in ends.items()}
            self._session = session
        return self._sums, self._clients

    def _agreed(self, offers: dict[PartyName, tuple[Any, list[Tensor]]]) -> tuple[Any, list[Tensor]]:
        (first, agreed), *others = offers.items()
        for party, offer in others:
            if offer != agreed:
                raise DataError(
                    f"party {party!r} offers {_shown(offer[1])}, but party {first!r} offers {_shown(agreed[1])}; "
                    "values that are summed must have the same structure, shapes and dtypes"
                )
        return agreed

    def _exact(self, tensors: Sequence[Tensor], *, averaged: bool) -> Manifest:
        """Returns the manifest of an exact sum: integers as they are, floats in limbs, and the weights behind them.

        Raises:
            PlanError: There are too many floats.
        """
        reals = [ExactTotal(tensor.name, tensor.size) for tensor in tensors if averaged or not tensor.integer]
        whole = [] if averaged else [tensor for tensor in tensors if tensor.integer]
        manifest = Manifest(tuple(whole), (*reals, *([ExactTotal("the weight")] if averaged else [])), weighted=False)
        words, size = manifest.words(len(self._aggregator.participants)), sum(total.size for total in reals)
        if reals and 8 * words > MOST_BYTES:
            raise PlanError(
                f"data: {size} floats are too many to sum them exactly, in {8 * words >> 20} MiB a party (at most "
                f"{MOST_BYTES >> 20}); pass bound=, a number that no absolute value of them exceeds, for 8 bytes and "
                "one step each: bound=65536.0 makes steps of about 1e-12"
            )
        return manifest


def _checked(bound: float) -> float:
    """Returns the bound of a float, from which its step follows."""
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not LEAST_BOUND <= bound < math.inf:
        raise PlanError(f"bound: expected a finite number of {LEAST_BOUND:g} or more, found {bound!r}")
    return float(bound)


def _alike(reports: Mapping[PartyName, SumReport | None]) -> dict[PartyName, SumReport]:
    """Returns the reports of a sum that all parties have read alike; none where nothing came of it, at any of them.

    Args:
        reports: What each party that was heard tells; None where it was told that nothing was opened.

    Raises:
        ProtocolError: They have not.
    """
    read = {party: report for party, report in reports.items() if report is not None}
    for party, report in read.items():
        first = next(iter(read))
        if (report.members, report.digest) != (read[first].members, read[first].digest):
            raise ProtocolError(
                f"party {party!r} was handed another sum than party {first!r}: the server has told them different "
                "things, and what they were told is no result"
            )
    if read and len(read) < len(reports):
        others = ", ".join(repr(party) for party in reports if party not in read)
        raise ProtocolError(
            f"{others} had it from the server that nothing was opened, and {', '.join(map(repr, read))} were handed a "
            "sum: the server has told them different things, and what they were told is no result"
        )
    return read


def _shown(tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{tensor.name} {tensor.shape} {tensor.dtype}" for tensor in tensors) or "nothing"
