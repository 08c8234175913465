# SPDX-License-Identifier: Apache-2.0
"""Aggregator: what all ways of summing have in common. Who sums, who contributes, which Config the server proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedray.device import PYU, PYUObject
from fedray.errors import PlanError
from fedray.party.records import Missing
from fedray.protocol.config import Config, Encoding, SchemeName
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.policy import Demands
from fedray.protocol.scheme import Fault
from fedray.rounds.value_sums import ValueSums
from fedray.runtime.session import Session
from fedray.types import PartyName


@dataclass(frozen=True, slots=True)
class RoundShape:
    """What the rounds of a training run are like.

    Attributes:
        batches: Most local batches of a party in one round.
        share: Largest share of a party's rows that one round uses, 0 to 1.
        rounds: Rounds of the run, with those of validation.

    Example:
        >>> from fedray.security.aggregation import RoundShape
        >>> RoundShape(batches=4, share=0.1, rounds=30)
        RoundShape(batches=4, share=0.1, rounds=30)
    """

    batches: int
    share: float
    rounds: int


class Aggregator:
    """Who sums whose contributions.

    Args:
        server: The party that sums. It may be a contributor, too: then it knows one term of every sum, its own, and of
            two contributors it learns the other's contribution.
        participants: The contributing parties.
        round_timeout: Seconds that one exchange of a round may take after its first message.

    Raises:
        PlanError: An argument cannot work.

    Example:
        >>> from fedray.security.aggregation import PlainAggregator
        >>> PlainAggregator(charlie, [bob, alice])
        PlainAggregator(server=charlie, participants=[alice, bob])
    """

    scheme: SchemeName
    compute: tuple[PartyName, ...] = ()
    """Compute parties, where shares are summed by them and not by the server."""

    def __init__(self, server: PYU, participants: Sequence[PYU], *, round_timeout: float = 300.0) -> None:
        if not isinstance(server, PYU):
            raise PlanError(f"server: expected a PYU such as sf.PYU('server'), found {type(server).__name__}")
        # A single PYU is not a list, and would fail below in words about iteration.
        if isinstance(participants, PYU) or not all(isinstance(party, PYU) for party in participants):
            raise PlanError(f"participants: expected a list of PYUs, found {participants!r}")
        names = [party.name for party in participants]
        if not names or len(set(names)) != len(names):
            raise PlanError(f"participants: expected every party once, found {names}")
        seconds = isinstance(round_timeout, int | float) and not isinstance(round_timeout, bool)
        if not seconds or not 0 < round_timeout <= 86_400:
            raise PlanError(f"round_timeout: expected seconds from 0 to 86400, found {round_timeout!r}")
        self.server = server
        # In roster order, so that two lists of the same parties make the same sessions.
        self.participants = tuple(sorted(participants, key=lambda party: party.name.encode()))
        self.round_timeout = float(round_timeout)
        self._values = ValueSums(self)

    @property
    def dropouts(self) -> tuple[Missing, ...]:
        """Who was missing from the last `sum` or `average`, and why; empty when everybody's value is in it."""
        return self._values.dropouts

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Who did wrong in the last `sum` or `average`, what it was, and the signed evidence, if there is any.

        `fedray.protocol.recovery.evidence.proves(fault.evidence, sf.ledger().roster[fault.party])` says what it proves.
        """
        return self._values.faults

    def sum(self, data: Sequence[PYUObject], *, bound: float | None = None) -> Any:
        """Opens the sum of one value per participant.

        A participant that drops out while the sum is made is missing from it where rounds survive dropouts
        (`on_dropout` of `SecureAggregator`): the `fedray` logger warns, and `dropouts` says who. Otherwise nothing is
        opened.

        Args:
            data: One object of every participant, in any order: an array or number, or lists, tuples and dicts of such.
                Integers are summed exactly. So are floats, rounded once at the end, as `math.fsum` of all parties'
                values would be: below 2^160 (1e48), beyond which is an error, and down to bits of 2^-160.
            bound: Largest absolute value of a float, for 8 bytes each instead of 160: for long vectors, and where the
                sum must not show values that are far apart. All values then share one step that follows from it, 2^-41
                for four parties and 65536; a value beyond it is an error, never clipped.

        Returns:
            The sums, nested like the values; floats in their own dtype, integers as int64.

        Raises:
            PlanError: The objects are not one of each participant, or there are too many floats for an exact sum: at
                most 64 MiB of message, 400,000 floats at up to eight parties. Pass `bound` then.
            DataError: A party's value cannot be summed, or differs in shape from the others'.
            EncodingError: A value is not finite, or beyond `bound` or 2^160; or, without `bound`, an array or number of
                a party's has no value of 2^-128 (3e-39) or more and is not 0: it would lose digits, or count as 0.
            PartyLost: A party's process has ended, and its value with it; nothing was opened.
            ProtocolError: A party was too late; nothing was opened.

        Example:
            >>> from fedray.security.aggregation import SecureAggregator
            >>> aggregator = SecureAggregator(charlie, [alice, bob])
            >>> aggregator.sum([alice(np.array)([1, 2]), bob(np.array)([30, 40])]).tolist()
            [31, 42]
        """
        return self._values.open(data, None, 1.0, bound)

    def average(
        self,
        data: Sequence[PYUObject],
        weights: Sequence[float | PYUObject] | None = None,
        *,
        largest_weight: float | None = None,
        bound: float | None = None,
    ) -> Any:
        """Opens the weighted average of one value per participant.

        It is the exact sum of the products of values and weights, divided by the exact sum of the weights. Each party
        rounds its own products to float64 once (not at all under weights that are powers of two, such as equal ones),
        and each of the two sums and their quotient is rounded once.

        Args:
            data: As in `sum`; integers are averaged as float64.
            weights: One per object, in the same order: numbers in any unit, or objects of the same participants; None
                for equal.
            largest_weight: What no weight exceeds: a party whose own is larger refuses. With `bound`, needed where
                parties hold the weights.
            bound: As in `sum`.

        Raises:
            PlanError: Objects or weights are not one of each participant, a weight is out of range, or there are too
                many floats for an exact sum.
            DataError: As in `sum`; or a value times its weight is beyond float64.
            EncodingError: As in `sum`, of the products and the weights.
            ProtocolError: All weights are zero, or a party was too late.
            PartyLost: As in `sum`.

        Example:
            >>> from fedray.security.aggregation import SecureAggregator
            >>> aggregator = SecureAggregator(charlie, [alice, bob])
            >>> float(aggregator.average([alice(float)(1), bob(float)(4)], weights=[2, 1]))
            2.0
        """
        equal = [1] * len(data) if isinstance(data, Sequence) else []  # what else it is, is refused below
        chosen: Sequence[float | PYUObject] = equal if weights is None else weights
        return self._values.open(data, chosen, largest_weight, bound)

    def config(
        self, session: Session, encoding: Encoding, parties: Sequence[PartyName] = (), shape: RoundShape | None = None
    ) -> Config:
        """Returns the Config that the server proposes for a session.

        Args:
            session: The running session, which knows the parties' keys and what their policies demand.
            encoding: How numbers become ring words.
            parties: Those of the participants that take part; all by default.
            shape: What the rounds of training are like; None for sums of the user's own values and for evaluation.

        Raises:
            PlanError: The settings do not fit together.
        """
        names = parties or [party.name for party in self.participants]
        roster = Roster.of({name: session.roster[name] for name in names})
        demands = Demands.of((session.policies[name] for name in names), len(names))
        config = self._propose(roster, encoding, shape, demands)
        return config.with_timeouts(config.set_up_timeout, int(self.round_timeout * 1000))

    def _propose(
        self,
        roster: Roster,
        encoding: Encoding,
        shape: RoundShape | None,  # noqa: ARG002 (it decides between schemes that survive dropouts and others)
        demands: Demands,
    ) -> Config:
        asked = (self.scheme, roster, [self.server.name], encoding)
        return Config.propose(*asked, colluders=demands.colluders, n_min=demands.n_min)

    def __repr__(self) -> str:
        names = ", ".join(party.name for party in self.participants)
        return f"{type(self).__name__}(server={self.server.name}, participants=[{names}])"
