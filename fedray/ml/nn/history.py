# SPDX-License-Identifier: Apache-2.0
"""History: what `fit` returns. One value per epoch, global and per party. Knows no framework and no party."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.recovery.evidence import proves
from fedray.types import PartyName, Round

MetricValue: TypeAlias = "float | NDArray[np.float64]"
"""A metric's value: a number, or one number per class."""

Lists: TypeAlias = dict[str, list[MetricValue]]
"""Metric name -> one value per epoch."""


@dataclass(frozen=True, slots=True)
class Dropout:
    """A party that dropped out: one record each time, however many rounds it was missing from.

    Attributes:
        epoch: Epoch of the first round without it, counted from 0.
        round: Number of that round within its session, in which a round is one masked sum, and its repeats are none.
        party: Who was missing.
        reason: Why it counts as dropped.
        abandoned: Whether that round's work was lost; otherwise it was opened without the party.
        rounds: How many rounds of training and of validation it missed until it took part again: those that were
            abandoned because of it, opened without it, or held in a session that began without it.

    Example:
        >>> from fedray.ml.nn import Dropout
        >>> one = Dropout(epoch=0, round=3, party="bob", reason="its process has ended", abandoned=True)
        >>> f"{one.party} missed {one.rounds} round"
        'bob missed 1 round'
    """

    epoch: int
    round: Round
    party: PartyName
    reason: str
    abandoned: bool
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Reset:
    """The optimizers of all parties began anew, since not all parties had been told the same in the rounds before.

    Attributes:
        epoch: Epoch, counted from 0.
        round: Number of the first round of the stretch in which it happened, or before which, within its session.
        parties: Because of whom: who had missed a round, or was told something else than the others; those that say so
            know it for certain. Empty where nobody does.

    Example:
        >>> from fedray.ml.nn import Reset
        >>> Reset(epoch=1, round=0, parties=("bob",)).parties
        ('bob',)
    """

    epoch: int
    round: Round
    parties: tuple[PartyName, ...]


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """What a party did wrong, as the server or a compute party says.

    Attributes:
        epoch: Epoch, counted from 0.
        round: Number of the round, which is one masked sum, within its session.
        party: Who.
        what: In words.
        evidence: Statements that the party signed, which show it to others; empty where there are none. Then the record
            is the word of whoever reports it, and nothing more. There is no value of the party's in it.

    Example:
        >>> from fedray.ml.nn import FaultRecord
        >>> one = FaultRecord(epoch=0, round=3, party="bob", what="its masked input is not signed by it")
        >>> one.proven
        False
    """

    epoch: int
    round: Round
    party: PartyName
    what: str
    evidence: bytes = field(default=b"", repr=False)

    @property
    def proven(self) -> bool:
        """Whether there is evidence that the party signed, which `fit` has checked; `proves` says of what."""
        return bool(self.evidence)

    def proves(self, key: bytes) -> str:
        """Returns what the evidence proves to whoever knows the party's public key, in words.

        Args:
            key: Its public identity key, 32 bytes, e.g. `sf.ledger().roster[fault.party]`.

        Raises:
            EncodingError: There is no evidence.
            ProtocolError: It is not signed with that key.
        """
        return proves(self.evidence, key)


@dataclass
class History:
    """The record of one `fit`, in the shape of `keras.callbacks.History`, with the parties' own metrics beside it.

    Attributes:
        params: `epochs`, `steps` (per epoch), `batch_size`, `verbose`, as Keras has them, and `seed`.
        epoch: Numbers of the epochs that ran, counted from 0.
        global_history: Metric name -> one float per epoch; `val_` keys have one float per validated epoch. A metric
            with a value per class has float64[k] in place of each float.
        local_history: Party -> metric name -> one float per epoch; empty where `local_metrics=False`.
        dropouts: Who dropped out of which round, one record each time.
        resets: When the parties' optimizers began anew, and because of whom.
        faults: What parties did wrong, and whether what they signed proves it.
        notices: What is to be known about the protection of these rounds, e.g. what two parties learn of each other, or
            which rounds came to no sum though nobody was named as missing.

    Example:
        >>> from fedray.ml.nn import History
        >>> history = History()
        >>> history.record(0, {"loss": 0.5}, {"alice": {"loss": 0.4}, "bob": {"loss": 0.6}})
        >>> history.history
        {'loss': [0.5]}
        >>> history.local_history["bob"]
        {'loss': [0.6]}
    """

    params: dict[str, Any] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)
    global_history: Lists = field(default_factory=dict)
    local_history: dict[PartyName, Lists] = field(default_factory=dict)
    dropouts: list[Dropout] = field(default_factory=list)
    resets: list[Reset] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    _known: dict[str, dict[int, MetricValue]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def history(self) -> Lists:
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

    def record(
        self, epoch: int, logs: Mapping[str, MetricValue], local: Mapping[PartyName, Mapping[str, MetricValue]]
    ) -> None:
        """Appends one epoch.

        Args:
            epoch: Its number, from 0.
            logs: Metric name -> value over all parties.
            local: Party -> metric name -> value; empty where parties keep theirs.
        """
        self.epoch.append(epoch)
        self._append(epoch, self.global_history, logs, "")
        for party, values in local.items():
            self._append(epoch, self.local_history.setdefault(party, {}), values, f"{party}/")

    def to_pandas(self) -> Any:
        """Returns a `pandas.DataFrame`: one row per epoch, global metrics, then `party/metric` columns.

        Epochs without validation hold NaN in the `val_` columns.

        Raises:
            ImportError: pandas is not installed.
        """
        # Only here: pandas is an extra, and takes a second to import.
        import pandas as pd

        index = pd.Index(self.epoch, name="epoch")
        # By epoch and not by place, since validation may have run in some epochs only.
        columns = {name: pd.Series(values).reindex(index) for name, values in self._known.items()}
        return pd.DataFrame(columns, index=index)

    def _append(self, epoch: int, lists: Lists, values: Mapping[str, MetricValue], prefix: str) -> None:
        for name, value in values.items():
            plain = value.item() if isinstance(value, np.generic) else value  # a callback may have added it
            lists.setdefault(name, []).append(plain)
            self._known.setdefault(prefix + name, {})[epoch] = plain
