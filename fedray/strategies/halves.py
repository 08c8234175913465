# SPDX-License-Identifier: Apache-2.0
"""The two halves of a round around its private mean, for any strategy: which words travel, and what becomes of them.

A payload is `[uplink 1 | uplink 2 | ... | other words]`: each uplink over the model's trainable words, then the words
that no optimizer changes, such as moving statistics. The latter are averaged by rows whatever the strategy, since a
server's step makes no sense for them: a variance that "Adam" moved could become negative.

Pure. Knows no protocol and no party; whoever has the opened means can run the server's half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.manifest import Manifest
from fedray.protocol.scales import first
from fedray.strategies.strategy import NamedVectors, State, Strategy
from fedray.types import Vector

STRETCH = 1 << 15
"""Words that are stepped at a time: 256 KB of each vector in float64. Longer stretches are paid for page by page, each
time anew: 35 thousand words take 0.15 ms so, and 0.4 ms in one."""

Stretches: TypeAlias = Callable[[int, int], NDArray[np.float64]]
"""(start, stop) -> that stretch of a mean, float64[stop - start]."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the server's half knows of a model.

    Attributes:
        weights: float[n + m], the global vector in the model's dtype: n trainable words, then m others.
        state: The strategy's own, or None before the first sum.
        known: float[n] per downlink, in the strategy's order; empty before the first sum.
    """

    weights: Vector
    state: State | None = None
    known: tuple[Vector, ...] = ()


def payload(strategy: Strategy, sent: NamedVectors, other: Vector) -> Vector:
    """Returns the words that a party sends, float[k * n + m] in the model's dtype.

    Args:
        strategy: The strategy, with k uplinks.
        sent: Uplink -> float[n].
        other: float[m], this party's words that no optimizer changes.
    """
    parts = [sent[uplink.name] for uplink in strategy.uplink]
    if len(parts) == 1 and not len(other):  # the usual case: a long vector is not copied
        return parts[0]
    return np.concatenate([*parts, other])


def known(strategy: Strategy, vectors: tuple[Vector, ...], weights: Vector) -> NamedVectors:
    """Returns downlink -> float[n]; zeros before the first round.

    Args:
        strategy: The strategy.
        vectors: What the server's half said last, in the strategy's order; empty before the first round.
        weights: float[n], the trainable words of the global vector.
    """
    if not vectors:
        return {name: np.zeros_like(weights) for name in strategy.downlink}
    return dict(zip(strategy.downlink, vectors, strict=True))


def first_reaches(manifest: Manifest, trainable: int, weights: Vector) -> tuple[int, ...]:
    """Returns how far the tensors of a payload may reach before anything was summed; see `fedray.protocol.scales`.

    A weight is about as large as it was. Of an update or a gradient nothing is known: it is taken to be as large as the
    weights that it belongs to, and the first round finds out.

    Args:
        manifest: What the words of a payload mean.
        trainable: How many of the model's words are trainable.
        weights: float[n + m], the model.
    """
    sizes, others = [], manifest.size - (len(weights) - trainable)
    for run in manifest.runs:
        place = run.start % trainable if run.start < others else run.start - others + trainable
        part = weights[place : place + run.stop - run.start]
        sizes.append(max(-float(part.min()), float(part.max())) if len(part) else 0.0)
    return first(sizes)


def advance(strategy: Strategy, server: ServerState, trainable: int, mean: Stretches) -> ServerState:
    """Returns what the server's half makes of an opened mean.

    With `local="gradient"` the new `weights` are the gradient that the parties apply, and their other words. A long
    vector is stepped stretch by stretch, while it is in cache: what a strategy does is done to each word alone.

    Args:
        strategy: The strategy, with k uplinks.
        server: What it knew before.
        trainable: How many words n are trainable.
        mean: (start, stop) -> a stretch of the opened mean of the payloads, float64[k * n + m] in all.
    """
    weights = server.weights[:trainable]
    if strategy.local == "gradient":  # the vector that was published last is not the one that the gradients are of
        weights = np.zeros_like(weights)
    state = strategy.server_init(weights) if server.state is None else server.state
    joined = np.empty_like(server.weights)
    after, told = _Pieces(trainable), _Pieces(trainable)
    for start in range(0, max(trainable, 1), STRETCH):
        stop = min(start + STRETCH, trainable)
        means = {
            uplink.name: mean(start + place * trainable, stop + place * trainable)
            for place, uplink in enumerate(strategy.uplink)
        }
        part = {name: one[start:stop] if isinstance(one, np.ndarray) else one for name, one in state.items()}
        moved, joined[start:stop], known = strategy.server_update(part, weights[start:stop], means)
        after.put(start, stop, moved)
        told.put(start, stop, known)
    others = trainable * len(strategy.uplink)
    joined[trainable:] = mean(others, others + len(joined) - trainable)
    return ServerState(joined, after.whole, tuple(np.asarray(told.whole[name]) for name in strategy.downlink))


class _Pieces:
    """Named vectors and numbers, put together from stretches.

    Args:
        size: How long the vectors are.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.whole: dict[str, Vector | float] = {}

    def put(self, start: int, stop: int, stretch: Mapping[str, Vector | float]) -> None:
        """Takes one stretch of every vector; of a number all stretches say the same.

        Args:
            start: Place of its first word.
            stop: Place after the last one.
            stretch: Vectors float[stop - start], and numbers.
        """
        for name, one in stretch.items():
            if not isinstance(one, np.ndarray) or stop - start == self._size:
                self.whole[name] = one
                continue
            whole = self.whole.setdefault(name, np.empty(self._size, one.dtype))
            np.asarray(whole)[start:stop] = one
