# SPDX-License-Identifier: Apache-2.0
"""Shield and Collector: the two ends of one private sum.

A `Shield` lives in a contributing party and turns its contribution into messages. A `Collector` lives at the server (or
at one SPU node), takes one round's messages and opens the sum. Neither knows what the numbers mean, how messages travel,
nor what time it is. Every scheme (`plain`, `masking`, `recovery`, `sharing`) offers these two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedray.types import Message, PartyName, Round, Vector


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a manifest: a named stretch of the vector that is summed.

    Attributes:
        name: For error messages, e.g. `"conv2d/kernel"`.
        shape: Its shape; the number of words is the product.
        dtype: Type before encoding, e.g. `"float32"`; integers are summed exactly.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the words of one round's vector mean. Every party derives its own copy; its hash enters the keys.

    Attributes:
        tensors: The weighted values, in order.
        metrics: Names of the metric words, in order. They are summed, not averaged.
        metric_bound: Largest count W_m that one party's metric may reach; a power of two keeps integer totals exact.
        weighted: Whether values are averaged with weights; otherwise they are summed as they are.
    """

    tensors: tuple[Tensor, ...]
    metrics: tuple[str, ...] = ()
    metric_bound: int = 1
    weighted: bool = True

    @property
    def size(self) -> int:
        """Number of values, without metrics, weight and check word."""
        return sum(int(np.prod(t.shape, dtype=np.int64)) for t in self.tensors)


@dataclass(frozen=True, slots=True)
class RoundContext:
    """All that one round's input depends on, as this party received it. Its hash `ctx` enters the keys (R0).

    Attributes:
        number: The round.
        model: SHA-256 of the model as received, or an operation id for sums of the user's own values.
        settings: Canonical bytes of everything else received that any party's input depends on.
        manifest: What the words mean.
    """

    number: Round
    model: bytes
    settings: bytes
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Contribution:
    """One party's input to one round, in clear. Never stored, never sent.

    Attributes:
        values: float[n] (or int[n]) in the manifest's order.
        weight: Weight of the values, e.g. rows trained on; 0 is legal and sends zeros.
        metrics: float64[m], totals and counts in the manifest's order.
    """

    values: NDArray[np.generic]
    weight: int
    metrics: Vector

    def __repr__(self) -> str:
        """Shows sizes only: a contribution is secret."""
        return f"Contribution({len(self.values)} values, {len(self.metrics)} metrics)"


@dataclass(frozen=True, slots=True)
class Opened:
    """The sum of one round and nothing else.

    Attributes:
        values: float64[n], the weighted mean where the manifest is weighted, else the sum.
        weight: Sum of the weights.
        metrics: float64[m], sums.
        parties: Whose inputs are in it.
    """

    values: NDArray[np.float64]
    weight: int
    metrics: NDArray[np.float64]
    parties: tuple[PartyName, ...]


@dataclass(frozen=True, slots=True)
class View:
    """The set of parties whose inputs a round sums (SECAGG part A).

    Attributes:
        counter: 0 for the whole roster; it only grows.
        members: Names, in roster order.
    """

    counter: int
    members: tuple[PartyName, ...]


class Shield(Protocol):
    """The contributing party's end. Set-up is `hello`, `confirm`, `start`; then `join` once and `protect` per round."""

    def hello(self) -> bytes:
        """Returns this party's signed Hello."""

    def confirm(self, hellos: Sequence[bytes]) -> bytes:
        """Checks everybody's Hello (in roster order) and returns the signed Confirm."""

    def start(self, confirms: Sequence[bytes]) -> None:
        """Checks everybody's Confirm and derives the session's keys."""

    def join(self, view: View) -> None:
        """Moves to a view; the next rounds sum its members' inputs."""

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns addressee -> message. A repeated request with the same context returns the identical bytes."""

    def reply(self, broadcast: bytes) -> bytes:
        """Answers a further exchange of the current round, where the scheme has one."""


class Collector(Protocol):
    """The summing end, one per round."""

    def add(self, sender: PartyName, message: Message) -> None:
        """Takes one message of the current stage and adds it on arrival; no vector is kept."""

    def missing(self) -> frozenset[PartyName]:
        """Returns whose message of the current stage is still awaited."""

    def advance(self) -> bytes | None:
        """Closes the current stage: returns the broadcast of the next exchange, or None when the sum can be opened."""

    def open(self) -> Opened:
        """Returns the sum.

        Raises:
            ProtocolError: A message is missing, pads did not cancel, or the sum fails its checks.
        """
