# SPDX-License-Identifier: Apache-2.0
"""Records that travel around the rounds: orders, messages between parties, answers, and how far the server is.

Messages are plain data, which `fedray/runtime/wire.py` writes and reads; it has a table of these records. What a
record's fields hold is checked by whoever takes it, with `match`: a transport may build a record out of anything.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.manifest import Manifest
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scheme import Fault, View
from fedray.types import Failure, Key, Message, PartyName, Round

NamedState: TypeAlias = "tuple[tuple[str, NDArray[Any] | float], ...]"
"""A strategy's state as plain data, in order of the names."""


@dataclass(frozen=True, slots=True)
class Expect:
    """What the server is told before a segment: which rounds come and what their words mean.

    Attributes:
        number: Protocol number of the first round.
        count: How many rounds.
        manifest: The words of each, but for the bounds of its tensors, which only the parties know.
        report: The words of a further round of metrics alone, which follows where the last round was abandoned.
        absent: Parties of the session that do not take part in this segment; nobody waits for them.
    """

    number: Round
    count: int
    manifest: Manifest
    report: Manifest | None = None
    absent: tuple[PartyName, ...] = ()


@dataclass(frozen=True, slots=True)
class PastRound:
    """What came of a round that is over.

    Attributes:
        number: The round.
        opened: Its sum; None where it was abandoned.
    """

    number: Round
    opened: OpenedSum | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer to a delivery. It has sums and no model: what follows from them, each party computes.

    Attributes:
        verdict: What came of it:

            * `"next"`: another exchange of this round follows;
            * `"opened"`: the round is over. Whether its values have fitted, or the same inputs are to be sent once
              more, the parties see from the sum;
            * `"abandoned"`: nothing was opened; go on with the next round, without the parties that are not in `view`;
            * `"missed"`: the round was held without this party, which was too late; go on with round `number`, after
              what came of those in `missed`;
            * `"renew"`: no further round can be held in this session;
            * `"left"`: the others go on without this party;
            * `"aborted"`: the segment has ended.
        opened: The sum, when opened.
        broadcast: Protocol message of the next exchange.
        view: The smaller view, when abandoned.
        number: The round to go on with, when missed.
        missed: When missed, every round that is over, in order, from the one on that this party has missed.
        stop: Whether the segment ends after this round, and its repeats, because the driver asked for it.
        reason: Why, where it did not go as planned.
    """

    verdict: Literal["next", "opened", "abandoned", "missed", "renew", "left", "aborted"]
    opened: OpenedSum | None = None
    broadcast: bytes = b""
    view: View | None = None
    number: Round = 0
    missed: tuple[PastRound, ...] = ()
    stop: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SumSet:
    """Rounds that followed each other and summed one set, as a party has seen it.

    Attributes:
        first: Number of the first of them; those that only repeated one are not counted.
        count: How many.
        members: Whose inputs are in each sum. Where nothing was opened, who goes on.
        opened: Whether there is a sum; else the work of these rounds was lost.
    """

    first: Round
    count: int
    members: tuple[PartyName, ...]
    opened: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """A party that was missing from a round.

    Attributes:
        number: The round; those that only repeated one are not counted.
        party: Who.
        reason: Why it counts as missing.
        abandoned: Whether the round's work was lost; otherwise it was opened without the party.
    """

    number: Round
    party: PartyName
    reason: str
    abandoned: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """What the driver may know of a segment under way.

    Attributes:
        done: Rounds of the segment that are over.
        missing: Every party that was missing from one of them, as the server says: for the reasons. Who was missing
            the parties report.
        error: Why the segment has ended early, or empty.
        away: Parties that nobody waits for at present: gone, or too late in the last round.
        faults: What parties did wrong since the service was made; it only grows.
        again: How many further rounds it took to repeat some of them, which are not in `done`: a round is over when it
            was first opened.
        awaited: Whose message is missing in the exchange under way, while that of another one is there.
    """

    done: int
    missing: tuple[Missing, ...] = ()
    error: str = ""
    away: frozenset[PartyName] = frozenset()
    faults: tuple[Fault, ...] = ()
    again: int = 0
    awaited: tuple[PartyName, ...] = ()


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What an owner of shares is told of a round by a compute party.

    Attributes:
        answer: The server's answer, passed on.
        proof: All compute parties' signatures under whose inputs were opened; empty where nothing was.
    """

    answer: Answer
    proof: bytes = b""


# Messages to the server.


@dataclass(frozen=True, slots=True)
class RoundMessage:
    """One message of one exchange of a round; the answer is an `Answer`.

    Attributes:
        session: Number of the session.
        number: The round.
        body: The protocol message.
        repeats: Whether the round repeats the one before, whose values did not fit. Only the parties know.
        void: How many repeats of the segment came to nothing without the server, as a compute party has counted.
    """

    session: int
    number: Round
    body: Message
    repeats: bool = False
    void: int = 0


@dataclass(frozen=True, slots=True)
class SumsRequest:
    """Asks for what comes of a round that repeats one its sender has missed; the answer is an `Answer`.

    Attributes:
        session: Number of the session.
        number: The round, which may not have begun yet.
    """

    session: int
    number: Round


@dataclass(frozen=True, slots=True)
class KeyMessage:
    """One message of the set-up of a batch of rounds; the answer is an `Answer`.

    Attributes:
        session: Number of the session.
        batch: The batch.
        body: The protocol message.
    """

    session: int
    batch: int
    body: bytes


@dataclass(frozen=True, slots=True)
class ModelMessage:
    """The model with which everybody starts, and all that belongs to it. The server passes it on as it is.

    Attributes:
        weights: float[n], its global vector.
        reaches: The reach of every tensor in the next round; empty where nothing is known of it yet.
        known: float[n] for each downlink of the strategy, in order; empty where it has none, or before the first sum.
        state: What the strategy's server half remembers, by name; None before the first sum.
        initial: Whether it is what the builder made, so that every party can compare it with what its own has made.
        signature: Of the party that sends it, under all of this and the session.
    """

    weights: NDArray[Any]
    reaches: tuple[int, ...] = ()
    known: tuple[NDArray[Any], ...] = ()
    state: NamedState | None = None
    initial: bool = False
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Asks for the model that a party has published; the answer is the `ModelMessage`, or nothing.

    Attributes:
        publisher: Who. What others have published does not come in its place.
    """

    publisher: PartyName


# Messages to a compute party.


@dataclass(frozen=True, slots=True)
class ShareMessage:
    """An owner's share of one round.

    Attributes:
        number: The round.
        body: The protocol message.
        waits: Whether it is answered with the `RoundOutcome`, when there is one, or at once with nothing.
    """

    number: Round
    body: Message
    waits: bool


@dataclass(frozen=True, slots=True)
class SignatureMessage:
    """Another compute party's signature under a set of owners.

    Attributes:
        number: The round.
        body: The protocol message.
    """

    number: Round
    body: bytes


@dataclass(frozen=True, slots=True)
class RoundFailure:
    """Another compute party's word that nothing of a round will be opened.

    Attributes:
        session: Number of the session.
        number: The round.
        reason: Why.
        void: Whether it is this round alone, for which others' inputs are missing, and the next one goes on.
    """

    session: int
    number: Round
    reason: str
    void: bool = False


# Messages to a vault.


@dataclass(frozen=True, slots=True)
class DealtShares:
    """An owner's shares of a value for one compute party.

    Attributes:
        key: The value's name.
        form: Encoded `Form` of the value.
        shares: One message per stretch of it.
    """

    key: Key
    form: bytes
    shares: list[Any]


@dataclass(frozen=True, slots=True)
class GivenShares:
    """A compute party's shares of a value, for the party that opens it.

    Attributes:
        key: The opening's name for them.
        form: Encoded `Form` of the value.
        words: The shares.
    """

    key: Key
    form: bytes
    words: NDArray[Any]


@dataclass(frozen=True, slots=True)
class SharesFailure:
    """Why shares will not come.

    Attributes:
        key: What they would have been called.
        failure: What happened.
    """

    key: Key
    failure: Failure


@dataclass(frozen=True, slots=True)
class AreYouThere:
    """Is answered with nothing, as long as its receiver lives."""


def unknown(sender: PartyName, message: object, receiver: str, *taken: type) -> ProtocolError:
    """Returns the error for a message that its receiver does not take; it tells types, and no value.

    Args:
        sender: Who sent it.
        message: What came.
        receiver: Who does not take it, in words.
        *taken: The records that it takes.
    """
    found = type(message).__name__
    if is_dataclass(message) and not isinstance(message, type):
        held = (f"{one.name}: {type(getattr(message, one.name, None)).__name__}" for one in fields(message))
        found = f"{found}({', '.join(held)})"
    expected = ", ".join(record.__name__ for record in taken)
    return ProtocolError(
        f"{sender} sent a message that {receiver} does not take: expected one of {expected}, with the fields that they "
        f"have, found {found}; all parties need the same version of fedray"
    )
