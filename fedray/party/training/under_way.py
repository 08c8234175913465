# SPDX-License-Identifier: Apache-2.0
"""UnderWay: one segment under way at one party: which rounds of it are over, and what the next one begins with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedray.backends.backend import Batch, Snapshot
from fedray.party.rounds.set_log import SetLog
from fedray.party.training.orders import TrainOrder
from fedray.protocol.manifest import Manifest
from fedray.types import Round


@dataclass(slots=True)
class UnderWay:
    """One segment under way at one party.

    Attributes:
        order: What the driver ordered.
        settings: The order's canonical bytes.
        manifest: What the words of its next round mean.
        steps: This party's local batches of every step of the epoch.
        sums: The opened metric sums, once a round carried them.
        done: Rounds that are over, opened or abandoned or passed over.
        again: How many rounds repeated another one; numbers run ahead of `done` by as many.
        repeats: Number of the round that the next one repeats; None where that is one of its own.
        renew: Why no further round can be held in this session, or empty.
        fresh: Whether nothing has been sent yet that was computed with the model as it is now.
        local: The backend's local state as the last training step left it, if its round was opened or is under way.
        seen: Whose inputs the rounds so far summed.
    """

    order: TrainOrder
    settings: bytes
    manifest: Manifest
    steps: list[list[Batch]]
    sums: NDArray[np.float64] | None = None
    done: int = 0
    again: int = 0
    repeats: Round | None = None
    renew: str = ""
    fresh: bool = False
    local: Snapshot | None = None
    seen: SetLog = field(default_factory=SetLog)

    @property
    def planned(self) -> Round:
        """Number that the next round has in the plan."""
        return self.order.number + self.done

    @property
    def number(self) -> Round:
        """Protocol number of the next round."""
        return self.planned + self.again
