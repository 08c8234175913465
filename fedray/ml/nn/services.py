# SPDX-License-Identifier: Apache-2.0
"""Services: the small services of one model in each of its parties, by their keys. Knows no order and no round."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedray.party.table import Slot
from fedray.party.training.keeping import Keeping
from fedray.party.training.local_model import LocalModel
from fedray.party.training.model_rounds import ModelRounds
from fedray.party.training.trainer import Trainer
from fedray.runtime.session import Session
from fedray.types import Key, PartyName


@dataclass(slots=True)
class Services:
    """Party -> key of each of its services.

    Attributes:
        ends: Its `Contributor`.
        models: Its `LocalModel`.
        rounds: Its `ModelRounds`.
        trainers: Its `Trainer`.
    """

    ends: Mapping[PartyName, Key]
    models: dict[PartyName, Key]
    rounds: dict[PartyName, Key]
    trainers: dict[PartyName, Key]
    _keepers: dict[PartyName, Key] = field(default_factory=dict)

    @classmethod
    def placed(
        cls,
        session: Session,
        ends: Mapping[PartyName, Key],
        model: tuple[str, Callable[[], Any], int, tuple[str, ...]],
        local_metrics: bool,
        strategy: tuple[str, dict[str, float]],
    ) -> Services:
        """Places the services; the later ones are given the earlier ones there, by their slots.

        Args:
            session: The running session.
            ends: Party -> key of its `Contributor`.
            model: Framework, builder, seed, and patterns for tensors that stay in their party.
            local_metrics: Whether the parties' own metrics come to the driver.
            strategy: Name and parameters.
        """
        built = session.statement("build the model")
        models = {p: session.serve(p, LocalModel, *model, label=built) for p in ends}
        rounds = {p: session.serve(p, ModelRounds, Slot(e), Slot(models[p]), local_metrics) for p, e in ends.items()}
        trainers = {
            p: session.serve(p, Trainer, Slot(e), Slot(models[p]), Slot(rounds[p]), strategy) for p, e in ends.items()
        }
        return cls(ends, models, rounds, trainers)

    def __iter__(self) -> Iterator[tuple[PartyName, Key]]:
        """Yields every party and key."""
        for services in (self.ends, self.models, self.rounds, self.trainers):
            yield from services.items()

    def keepers(self, session: Session, owner: object) -> dict[PartyName, Key]:
        """Returns the keys of the services that keep each party's part of checkpoints; placed with the first call.

        Args:
            session: The running session.
            owner: They are released when it is gone.
        """
        if not self._keepers:
            self._keepers = {
                p: session.serve(p, Keeping, Slot(e), Slot(self.models[p]), Slot(self.trainers[p]))
                for p, e in self.ends.items()
            }
            for party, key in self._keepers.items():
                weakref.finalize(owner, session.release, party, key)
        return self._keepers
