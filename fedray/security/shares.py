# SPDX-License-Identifier: Apache-2.0
"""SPUAggregator: sums as additive shares between the compute parties of an SPU. Driver-side; no cryptography here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedray.device import PYU, SPU, PYUObject
from fedray.errors import PlanError
from fedray.party.records import Missing
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.policy import Demands
from fedray.protocol.scheme import Fault
from fedray.runtime.session import Session
from fedray.security.aggregator import Aggregator, RoundShape
from fedray.types import PartyName


class SharesAggregator(Aggregator):
    """Sums of shares for a given server and given owners; made by `SPUAggregator.bind`.

    Args:
        spu: The compute parties.
        server: The party that adds their sums and so opens the total.
        participants: The owners of what is summed.
        compress: As in `SPUAggregator`.
        round_timeout: As in `SPUAggregator`.

    Raises:
        PlanError: An argument cannot work; one owner has nobody to hide behind.
    """

    scheme = "sharing"

    def __init__(
        self, spu: SPU, server: PYU, participants: Sequence[PYU], *, compress: bool, round_timeout: float
    ) -> None:
        super().__init__(server, participants, round_timeout=round_timeout)
        if len(self.participants) < 2:
            raise PlanError("participants: a sum of one party is that party's value; shares of it would hide nothing")
        self.compute = spu.parties
        self._compress = compress

    def config(
        self, session: Session, encoding: Encoding, parties: Sequence[PartyName] = (), shape: RoundShape | None = None
    ) -> Config:
        """Returns the Config that the server proposes.

        Args:
            session: The running session.
            encoding: How numbers become ring words.
            parties: The owners that take part; all by default.
            shape: Does not matter here: a vanished owner's shares are left out whatever a round costs.
        """
        del shape
        owners = sorted(parties or [party.name for party in self.participants], key=str.encode)
        # Compute parties need not own anything, and owners need not compute; all of them sign.
        roster = Roster.of({name: session.roster[name] for name in {*owners, *self.compute}})
        demands = Demands.of((session.policies[name] for name in roster.names), len(owners))
        config = Config.propose(
            *("sharing", roster, self.compute, encoding),
            colluders=demands.colluders,
            n_min=demands.n_min,
            owners=owners,
            compress=self._compress,
        )
        return config.with_timeouts(config.set_up_timeout, int(self.round_timeout * 1000))


class SPUAggregator:
    """Sums as additive shares between the compute parties of an SPU.

    Every owner splits its contribution into one share per compute party, and sends each its own. The compute parties
    agree on whose contributions are summed, add what they hold of these, and tell the server their sums; together these
    are the total. All but one of the compute parties may collude and still learn the total only. An owner may vanish
    after its one message; a compute party may not.

    Args:
        spu: The SPU. Its parties compute; they may own data as well.
        compress: Send a seed of 32 bytes in place of every share but one. What is hidden then rests on AES; without
            compression it is hidden whatever is computed, and every share is as long as the contribution.
        round_timeout: Seconds that a round waits for owners after its first message.

    Raises:
        PlanError: An argument cannot work.

    Example:
        >>> from fedray.security.aggregation import SPUAggregator
        >>> aggregator = SPUAggregator(sf.SPU(sf.utils.testing.cluster_def(["alice", "bob"])))
        >>> aggregator.sum([bob(np.array)([1, 2]), charlie(np.array)([30, 40])]).tolist()
        [31, 42]
    """

    def __init__(self, spu: SPU, *, compress: bool = True, round_timeout: float = 300.0) -> None:
        if not isinstance(spu, SPU):
            raise PlanError(f"SPUAggregator: expected an SPU, found {type(spu).__name__}")
        if not isinstance(compress, bool):
            raise PlanError(f"compress: expected True or False, found {compress!r}")
        self.spu, self.compress, self.round_timeout = spu, compress, round_timeout
        self._bound: dict[tuple[PYU, ...], SharesAggregator] = {}
        self._last: SharesAggregator | None = None

    @property
    def dropouts(self) -> tuple[Missing, ...]:
        """Who was missing from the last `sum` or `average`, and why; empty when everybody's value is in it."""
        return () if self._last is None else self._last.dropouts

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Who did wrong in the last `sum` or `average`, and what it was."""
        return () if self._last is None else self._last.faults

    def bind(self, server: PYU | None, participants: Sequence[PYU]) -> SharesAggregator:
        """Returns the aggregator of these owners.

        Args:
            server: The party that opens; None for the first compute party.
            participants: The owners.

        Raises:
            PlanError: An argument cannot work.
        """
        opener = PYU(self.spu.parties[0]) if server is None else server
        return SharesAggregator(
            self.spu, opener, participants, compress=self.compress, round_timeout=self.round_timeout
        )

    def sum(self, data: Sequence[PYUObject], *, bound: float | None = None) -> Any:
        """Opens the sum of one value per party, at the driver; see `SecureAggregator.sum`.

        Raises:
            PlanError: The objects are not one of each party.
            DataError: A party's value cannot be summed, or differs in shape from the others'.
            EncodingError: A value is not finite, or beyond `bound`.
        """
        return self._of(data).sum(data, bound=bound)

    def average(
        self,
        data: Sequence[PYUObject],
        weights: Sequence[float | PYUObject] | None = None,
        *,
        largest_weight: float | None = None,
        bound: float | None = None,
    ) -> Any:
        """Opens the weighted average of one value per party, at the driver; see `SecureAggregator.average`.

        Args:
            data: One object of every owner.
            weights: One per object, in the same order: numbers, or objects of the same owners; None for equal.
            largest_weight: What no weight exceeds; needed where parties hold the weights.
            bound: Largest absolute value of a float.

        Raises:
            PlanError: Objects or weights are not one of each party, or a weight is out of range.
            DataError: As in `sum`.
            EncodingError: As in `sum`.
            ProtocolError: All weights are zero.
        """
        return self._of(data).average(data, weights, largest_weight=largest_weight, bound=bound)

    def _of(self, data: Sequence[PYUObject]) -> SharesAggregator:
        if not isinstance(data, list | tuple) or not all(isinstance(held, PYUObject) for held in data):
            raise PlanError(f"data: expected a list with one PYUObject of each party, found {data!r}")
        owners = tuple(sorted({held.device for held in data}, key=lambda party: party.name.encode()))
        # Kept, since an aggregator's session with its keys is worth more than one sum.
        if owners not in self._bound:
            self._bound[owners] = self.bind(None, owners)
        self._last = self._bound[owners]
        return self._last

    def __repr__(self) -> str:
        return f"SPUAggregator({self.spu!r})"
