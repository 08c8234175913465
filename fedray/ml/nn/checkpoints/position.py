# SPDX-License-Identifier: Apache-2.0
"""Where a run is, and what it trains on: two records of a fit that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedray.device import PYU
from fedray.ml.nn.source import Source


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run is, between two segments.

    Attributes:
        epoch: Which epoch comes next, or is under way, from 0.
        segments: How many of its segments are over.
        begun: Steps of all epochs and fits before this epoch.
        epochs: Epochs of all fits before this one.
        stopped: Whether a callback has ended the run.
    """

    epoch: int
    segments: int = 0
    begun: int = 0
    epochs: int = 0
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class FitRows:
    """The rows of a fit, as its parties are handed them.

    Attributes:
        devices: The parties.
        train: Rows of training.
        validation: Rows of validation, or None.
        class_weight: Weights of classes, or None.
    """

    devices: Sequence[PYU]
    train: Source
    validation: Source | None
    class_weight: Mapping[int, float] | None
