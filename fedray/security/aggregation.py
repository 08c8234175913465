# SPDX-License-Identifier: Apache-2.0
"""Aggregators: who sums, who contributes, and under which protection. Driver-side facades; no cryptography here.

An aggregator is handed to `FLModel`, or used directly: `sum` and `average` open the sum of values that parties hold,
and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fedray.device import PYU
from fedray.errors import PlanError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.policy import Demands
from fedray.protocol.recovery import propose as propose_recovery
from fedray.security.aggregator import Aggregator, RoundShape
from fedray.security.shares import SPUAggregator

__all__ = ["Aggregator", "PlainAggregator", "RoundShape", "SPUAggregator", "SecureAggregator"]

SHORT_BATCHES = 8
"""Most local batches of a round that `"auto"` takes for short: training them again costs less than two exchanges."""
MOST_BATCH = 64
"""Most rounds for which keys are prepared at a time, where rounds survive dropouts."""
VALUE_BATCH = 8
"""The same for sums of the user's own values, whose number is not known in advance."""


class PlainAggregator(Aggregator):
    """Sums without protection: the server sees every contribution. For comparison, and for a single party.

    The numbers are encoded as in `SecureAggregator`, so both give bit-equal results. What leaves a party is kind `raw`,
    which a session with `egress="strict"` refuses.

    Example:
        >>> from fedray.security.aggregation import PlainAggregator
        >>> float(PlainAggregator(charlie, [alice, bob]).sum([alice(float)(1), bob(float)(4)]))
        5.0
    """

    scheme = "plain"


class SecureAggregator(Aggregator):
    """Sums under masks: the server opens the sum and sees nothing else.

    What happens when a party drops out of a round:

    * `"abandon"`: nothing of the round is opened and its batch is not trained on; the others go on without the party.
      One exchange a round; for short rounds.
    * `"recover"`: the round is opened over the parties that remain, and the party may come back. Three exchanges a
      round; for long rounds, whose work must not be lost.
    * `"auto"`: `"abandon"` for rounds of at most 8 batches that use at most half of every party's rows, and where too
      few parties take part to go on without one (two or three); else `"recover"`. So `sum` and `average` recover where
      they can: a value cannot be computed afresh.

    Args:
        server: The party that sums.
        participants: The contributing parties, two or more. With exactly two, each of them learns the other's
            contribution by subtracting its own from the sum; masking then keeps it from the server only.
        on_dropout: `"auto"`, `"abandon"` or `"recover"`.
        round_timeout: Seconds that one exchange of a round may take after its first message; who is later has dropped
            out.

    Raises:
        PlanError: An argument cannot work; one participant has nobody to hide behind.

    Example:
        >>> from fedray.security.aggregation import SecureAggregator
        >>> aggregator = SecureAggregator(charlie, [alice, bob], on_dropout="abandon")
        >>> int(aggregator.sum([alice(len)("abc"), bob(len)("de")]))
        5
    """

    scheme = "masking"

    def __init__(
        self,
        server: PYU,
        participants: Sequence[PYU],
        *,
        on_dropout: Literal["auto", "abandon", "recover"] = "auto",
        round_timeout: float = 300.0,
    ) -> None:
        super().__init__(server, participants, round_timeout=round_timeout)
        if len(self.participants) < 2:
            raise PlanError(
                "participants: a sum of one party is that party's value and hides nothing; expected two or more, "
                "or PlainAggregator to train one party without protection"
            )
        if on_dropout not in ("auto", "abandon", "recover"):
            raise PlanError(f"on_dropout: expected 'auto', 'abandon' or 'recover', found {on_dropout!r}")
        self.on_dropout = on_dropout

    def _propose(self, roster: Roster, encoding: Encoding, shape: RoundShape | None, demands: Demands) -> Config:
        config = super()._propose(roster, encoding, shape, demands)
        # With two or three parties nobody can be spared, so there is nothing to recover and the cheaper scheme will
        # do.
        if self.on_dropout == "abandon" or (self.on_dropout == "auto" and (config.dropouts == 0 or _short(shape))):
            return config
        return propose_recovery(
            roster,
            [self.server.name],
            encoding,
            colluders=demands.colluders,
            n_min=demands.n_min,
            chosen=demands.chosen,
            # No more keys than rounds to come: preparing them costs messages, and unused ones are thrown away.
            batch=min(VALUE_BATCH if shape is None else shape.rounds, MOST_BATCH, demands.batch),
        )


def _short(shape: RoundShape | None) -> bool:
    """Returns whether an abandoned round costs little: few batches, and at least as many rows again to go on with."""
    return shape is not None and shape.batches <= SHORT_BATCHES and shape.share <= 0.5
