# SPDX-License-Identifier: Apache-2.0
"""Records that travel around the rounds: orders, messages between parties, answers, and how far the server is.

Messages are plain data, which `fedray/runtime/wire.py` writes and reads; it has a table of these records. What a
record's fields hold is checked by whoever takes it, with `match`: a transport may build a record out of anything.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.manifest import Manifest
from fedray.protocol.scheme import Fault, View
from fedray.types import Failure, Key, Message, PartyName, Round


@dataclass(frozen=True, slots=True)
class Expect:
    """What the server is told before a segment: which rounds come and what their words mean.

    Attributes:
        number: Protocol number of the first round.
        count: How many rounds.
        manifest: The words of each.
        purpose: `"train"` goes through the strategy, `"sum"` is answered as it was opened.
        trainable: How many of the model's words are trainable, where the purpose is `"train"`.
        report: The words of a further round of metrics alone, which follows where the last round was abandoned.
        absent: Parties of the session that do not take part in this segment; nobody waits for them.
    """

    number: Round
    count: int
    manifest: Manifest
    purpose: Literal["train", "sum"]
    trainable: int = 0
    report: Manifest | None = None
    absent: tuple[PartyName, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer to a delivery.

    Attributes:
        verdict: What came of it:

            * `"next"`: another exchange of this round follows;
            * `"opened"`: the round is over;
            * `"again"`: the round was opened and its values did not fit `reaches`; send the same input once more, under
              the next number and the reaches given here;
            * `"abandoned"`: nothing was opened; go on with the next round, without the parties that are not in `view`;
            * `"missed"`: the round was opened without this party, which was too late; go on with round `number`;
            * `"renew"`: no further round can be held in this session;
            * `"left"`: the others go on without this party;
            * `"aborted"`: the segment has ended.
        values: The new global vector (or the opened values), when opened. When missed, what brings this party's model
            up to date; None where it is too far behind.
        metrics: float64[m], the opened metric sums; when missed, those of the last round that was opened.
        broadcast: Protocol message of the next exchange.
        view: The smaller view, when abandoned.
        number: The round to go on with, when missed.
        again: How many rounds of the segment were repeats so far, when missed.
        stop: Whether the segment ends after this round because the driver asked for it.
        reason: Why, where it did not go as planned.
        known: float[n] for each downlink of the strategy, in order; empty where it has none, or before the first sum.
        reaches: The reach of every tensor in the next round of training; empty where nothing is known of it yet.
    """

    verdict: Literal["next", "opened", "again", "abandoned", "missed", "renew", "left", "aborted"]
    values: NDArray[Any] | None = None
    metrics: NDArray[np.float64] | None = None
    broadcast: bytes = b""
    view: View | None = None
    number: Round = 0
    again: int = 0
    stop: bool = False
    reason: str = ""
    known: tuple[NDArray[Any], ...] = ()
    reaches: tuple[int, ...] = ()


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
        missing: Every party that was missing from one of them.
        error: Why the segment has ended early, or empty.
        away: Parties that nobody waits for at present: gone, or too late in the last round.
        faults: What parties did wrong since the service was made; it only grows.
        again: How many further rounds it took to repeat some of them, which are not in `done`.
    """

    done: int
    missing: tuple[Missing, ...] = ()
    error: str = ""
    away: frozenset[PartyName] = frozenset()
    faults: tuple[Fault, ...] = ()
    again: int = 0


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
    """

    session: int
    number: Round
    body: Message


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
    """The model with which everybody starts.

    Attributes:
        values: Its global vector.
        reaches: The reach of every tensor in the next round; empty where nothing is known of it yet.
    """

    values: NDArray[Any]
    reaches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Asks for the model that the server has; the answer is an `Answer` with `values`, `known` and `reaches`."""


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
