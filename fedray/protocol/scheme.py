# SPDX-License-Identifier: Apache-2.0
"""Joining, Shield and Collector: the way into a session, and the two ends of one private sum.

A `Joining` makes a party's end of a session; before it has, there is no end, and so nothing that could be asked too
early. A `Shield` lives in a contributing party and turns its contribution into messages. A `Collector` lives at the
server, takes one round's messages and opens the sum. None of them knows what the numbers mean, how messages travel, nor
what time it is. Every scheme (`plain`, `masking`, `recovery`, `sharing`) offers these three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.manifest import Manifest
from fedray.protocol.opened import OpenedSum
from fedray.protocol.rows import Rows
from fedray.types import Message, PartyName, Round, Vector

End_co = TypeVar("End_co", covariant=True)

Purpose = Literal["train", "evaluate", "sum"]
"""What a round is for; a party limits how many rounds of each one model may serve."""


@dataclass(frozen=True, slots=True)
class RoundContext:
    """All that one round's input depends on, as this party received it. Its hash `ctx` enters the keys (R0).

    Attributes:
        number: The round.
        model: SHA-256 of the model as received, or an operation id for sums of the user's own values.
        settings: Canonical bytes of everything else received that any party's input depends on.
        manifest: What the words mean.
        purpose: What the round is for.
        repeats: The round before, where this one sums the same inputs over the same parties once more, with other
            bounds; None for a round of its own.
        rows: Which of its rows this party uses, derived from the settings; None where the rounds of a purpose are all
            alike. It is no part of `ctx`: it differs from party to party.
        history: Head of what this party was told before, where its local state is made of that; else empty.
    """

    number: Round
    model: bytes
    settings: bytes
    manifest: Manifest
    purpose: Purpose = "train"
    repeats: Round | None = None
    rows: Rows | None = None
    history: bytes = b""


@dataclass(frozen=True, slots=True)
class Contribution:
    """One party's input to one round, in clear. Never stored, never sent.

    Attributes:
        values: float[n] in the manifest's order, or int[n] where all tensors are integers. Where integer tensors stand
            beside others they are floats too, exact up to 2^53.
        weight: Weight of the values, e.g. rows trained on; 0 is legal and sends zeros. 0 or 1 where the manifest is
            not weighted.
        metrics: float64[m], totals and counts in the manifest's order; together with the others' they open exactly.
            None where the plan holds the round without them, for all parties alike: zeros are sent.
    """

    values: NDArray[np.generic]
    weight: int
    metrics: Vector | None

    def __repr__(self) -> str:
        """Shows sizes only: a contribution is secret."""
        metrics = "no" if self.metrics is None else len(self.metrics)
        return f"Contribution({len(self.values)} values, {metrics} metrics)"

    @property
    def rest(self) -> tuple[int, bytes]:
        """What tells two contributions apart beside their values: the weight, and the bytes of the metrics."""
        metrics = b"" if self.metrics is None else np.ascontiguousarray(self.metrics, np.float64).tobytes()
        return int(self.weight), metrics

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuses.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a Contribution is secret: it is never pickled or copied")


@dataclass(frozen=True, slots=True)
class Extent:
    """How the words of one tensor fill their range, as a sum shows it.

    Attributes:
        largest: Largest absolute word of the sum.
        saturated: How many parties had a value beyond the tensor's bound, and cut it off there.
        coarse: How many parties had values, and none whose word reaches `Encoding.fine`.
    """

    largest: int
    saturated: int
    coarse: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What the sum of one round says, as a party reads it.

    Attributes:
        read: (start, stop) -> a stretch of the values, in memory of its own. Long sums are not read as a whole: a
            second vector of 800 MB would cost more than the arithmetic.
        size: How many values n there are.
        weight: Sum of the weights.
        metrics: float64[m], sums, each rounded once.
        parties: Whose inputs are in it.
        extents: One for each tensor, where the manifest has them counted; else empty.
    """

    read: Callable[[int, int], NDArray[Any]]
    size: int
    weight: int
    metrics: NDArray[np.float64]
    parties: tuple[PartyName, ...]
    extents: tuple[Extent, ...] = ()

    @property
    def values(self) -> NDArray[Any]:
        """All values: float64[n], the weighted mean where the manifest is weighted, else the sum; or int64[n]."""
        return self.read(0, self.size)


@dataclass(frozen=True, slots=True)
class View:
    """The set of parties whose inputs a round sums (SECAGG section 5).

    Attributes:
        counter: 0 for the whole roster; it only grows.
        members: Names, in roster order.
    """

    counter: int
    members: tuple[PartyName, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """What one party did wrong in a round, as far as the summing end can tell.

    Attributes:
        number: The round.
        party: Who.
        what: In words. Empty evidence means that this is the summing end's word, and nothing more.
        evidence: Statements that the party signed, which show it to others (`fedray/protocol/recovery/evidence.py`), or
            empty.
    """

    number: Round
    party: PartyName
    what: str
    evidence: bytes = b""


class Joining(Protocol[End_co]):
    """One party's way into a session: `hello`, `confirm`, `start`, in this order and once.

    Attributes:
        sid: Session id, once everybody's Hello was checked.
    """

    sid: bytes

    def hello(self) -> bytes:
        """Returns this party's Hello."""

    def confirm(self, hellos: Sequence[bytes]) -> bytes:
        """Checks everybody's Hello (in roster order) and returns the Confirm."""

    def start(self, confirms: Sequence[bytes]) -> End_co:
        """Checks everybody's Confirm and returns the party's end of the session."""


class Shield(Protocol):
    """The contributing party's end of a session: `join` for each new view, `protect` for each round."""

    def join(self, view: View) -> None:
        """Moves to a view; the next rounds sum its members' inputs."""

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns addressee -> message. A repeated request with the same context returns the identical bytes."""

    def verify(self, number: Round, opened: OpenedSum, source: PartyName, *, late: bool = False) -> None:
        """Accepts what was handed out as the sum of the last round that this party sent words for.

        Args:
            number: The round.
            opened: Its sum.
            source: Who handed it out.
            late: Whether this party was told that its own words came too late.

        Raises:
            ServerFault: It is not that sum. The session is over: no round follows, and no second answer is looked at.
        """

    def follow(self, context: RoundContext) -> None:
        """Awaits the sum of a round that was held without this party's words, to be verified next.

        Args:
            context: What the round was about.

        Raises:
            ProtocolError: The sum of this round, or of a later one, was verified, or a sum was refused before.
        """

    def reply(self, broadcast: bytes) -> bytes:
        """Answers a further exchange of the current round, where the scheme has one."""


@runtime_checkable
class BatchedShield(Shield, Protocol):
    """A shield whose rounds need keys that all parties prepare together, a batch of rounds at a time."""

    def prepare(self, batch: int, first: Round) -> bytes:
        """Begins the set-up of a batch whose first round is `first`; rounds may be under way meanwhile."""

    def absorb(self, message: bytes) -> bytes | None:
        """Answers what the coordinator relays of a set-up; None when the batch is ready."""

    def survivors(self, number: Round) -> tuple[PartyName, ...] | None:
        """Returns whose inputs a round sums, once this party has verified it; else None."""


@runtime_checkable
class FaultFinder(Protocol):
    """A collector that keeps what parties did wrong, in order of discovery."""

    faults: list[Fault]


class Collector(Protocol):
    """The summing end, one per round."""

    def add(self, sender: PartyName, message: Message) -> None:
        """Takes one message of the current stage and adds it on arrival; no vector is kept."""

    def missing(self) -> frozenset[PartyName]:
        """Returns whose message of the current stage is still awaited."""

    def sufficient(self) -> bool:
        """Returns whether the current stage may be closed without those who are missing."""

    def advance(self) -> bytes | None:
        """Closes the current stage: returns the broadcast of the next exchange, or None when the sum can be opened."""

    def open(self) -> OpenedSum:
        """Returns the sum as words: what they say, each party finds out for itself.

        Raises:
            ProtocolError: A message is missing, or pads did not cancel.
        """
