# SPDX-License-Identifier: Apache-2.0
"""History: what `fit` returns. One value per epoch, global and per party. Knows no framework and no party."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedray.types import PartyName, Round


@dataclass(frozen=True, slots=True)
class Dropout:
    """A party that left a round.

    Attributes:
        epoch: Epoch, counted from 0.
        round: Number of the masked sum within its session.
        party: Who was missing.
        reason: Why it counts as dropped.
        abandoned: Whether the round's work was lost; otherwise it was opened without the party.
    """

    epoch: int
    round: Round
    party: PartyName
    reason: str
    abandoned: bool


@dataclass
class History:
    """The record of one `fit`, in the shape of `keras.callbacks.History`, with the parties' own metrics beside it.

    Attributes:
        params: `epochs`, `steps` (rounds per epoch), `batch_size`, `verbose`, as Keras has them, and `seed`.
        epoch: Numbers of the epochs that ran, counted from 0.
        global_history: Metric name -> one float per epoch; `val_` keys have one float per validated epoch.
        local_history: Party -> metric name -> one float per epoch; empty where `local_metrics=False`.
        dropouts: Every party that was missing from a round.
    """

    params: dict[str, Any] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)
    global_history: dict[str, list[float]] = field(default_factory=dict)
    local_history: dict[PartyName, dict[str, list[float]]] = field(default_factory=dict)
    dropouts: list[Dropout] = field(default_factory=list)

    @property
    def history(self) -> dict[str, list[float]]:
        """The same as `global_history`, under Keras's name."""
        return self.global_history

    def __getitem__(self, name: str) -> Any:
        """Returns `history["global_history"]` or `history["local_history"]`.

        Raises:
            KeyError: Another name was asked for.
        """
        if name == "global_history":
            return self.global_history
        if name == "local_history":
            return self.local_history
        raise KeyError(f"{name!r}: a History has 'global_history' and 'local_history'")

    def record(self, epoch: int, logs: Mapping[str, float], local: Mapping[PartyName, Mapping[str, float]]) -> None:
        """Appends one epoch."""
        self.epoch.append(epoch)
        _append(self.global_history, logs)
        for party, values in local.items():
            _append(self.local_history.setdefault(party, {}), values)

    def to_pandas(self) -> Any:
        """Returns a `pandas.DataFrame`: one row per epoch, global metrics, then `party/metric` columns.

        Epochs without validation hold NaN in the `val_` columns.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd

        columns = dict(self.global_history)
        for party, metrics in self.local_history.items():
            columns |= {f"{party}/{name}": values for name, values in metrics.items()}
        index = pd.Index(self.epoch, name="epoch")
        validated = self.params.get("validated_epochs", self.epoch)
        series = {}
        for name, values in columns.items():
            epochs = self.epoch if len(values) == len(self.epoch) else validated
            series[name] = pd.Series(values, index=epochs, dtype="float64").reindex(index)
        return pd.DataFrame(series, index=index)


def _append(lists: dict[str, list[float]], values: Mapping[str, float]) -> None:
    for name, value in values.items():
        lists.setdefault(name, []).append(float(value))
