# SPDX-License-Identifier: Apache-2.0
"""What a server may say to a party at all, and to one that was too late for a round. Pure: knows no session."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np

from fedray.errors import ServerFault, shown
from fedray.party.records import Answer, PastRound, RoundOutcome
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scheme import View
from fedray.types import PartyName, Round

_VERDICTS = frozenset(get_args(get_type_hints(Answer)["verdict"]))


def well_formed(source: PartyName, found: object) -> Answer:
    """Returns what a server has answered, if each of its fields holds what it should: a line carries any value in it.

    Args:
        source: Who has answered.
        found: The answer.

    Raises:
        ServerFault: It is none.
    """
    match found:
        case Answer(verdict=str(), opened=opened, broadcast=bytes(), view=view, missed=tuple(missed), reason=str()) if (
            found.verdict in _VERDICTS
            and (opened is None or _is_sum(opened))
            and (view is None or _is_view(view))
            and all(map(_is_past, missed))
            and type(found.number) is int
            and type(found.stop) is bool
            # It is the reason that says to the driver that a new session is wanted.
            and (found.verdict != "renew" or found.reason != "")
        ):
            return found if found.reason.isprintable() else replace(found, reason=shown(found.reason))
    kind = f"one that says {shown(repr(found.verdict))}" if type(found) is Answer else type(found).__name__
    raise ServerFault(
        f"{source!r} gave an answer that is none: expected an Answer whose fields hold what they should, found {kind}. "
        "Nothing further is sent: it lies, or is of another version"
    )


def outcome(source: PartyName, found: object) -> RoundOutcome:
    """Returns what a compute party has told of a round, if it is well formed.

    Args:
        source: Who has told it.
        found: What was told.

    Raises:
        ServerFault: It is no outcome.
    """
    match found:
        case RoundOutcome(answer=answer, proof=bytes()):
            return replace(found, answer=well_formed(source, answer))
    raise ServerFault(f"{source!r} told what is no outcome of a round: found {type(found).__name__}")


def _is_sum(found: object) -> bool:
    # What the words say, and the check, is looked at by whoever knows what they should be.
    match found:
        case OpenedSum(words=np.ndarray(), members=tuple(members)):
            return all(type(name) is str for name in members) and type(found.check) in (int, type(None))
    return False


def _is_view(found: object) -> bool:
    match found:
        case View(members=tuple(members)):
            return type(found.counter) is int and all(type(name) is str for name in members)
    return False


def _is_past(found: object) -> bool:
    match found:
        case PastRound(opened=opened):
            return type(found.number) is int and (opened is None or _is_sum(opened))
    return False


def check_held(server: PartyName, number: Round, answer: Answer) -> None:
    """Refuses a new session in place of what came of a round to which a party has sent its part.

    Only keys that cannot be made are a reason for one, and then nothing has been sent.

    Args:
        server: Who has answered.
        number: The round.
        answer: The answer.

    Raises:
        ServerFault: It asks for a new session.
    """
    if answer.verdict == "renew":
        raise ServerFault(
            f"server {server!r} said 'renew' of round {number}, to which this party has keys and has sent its part; "
            "expected what came of it. Nothing further is sent: the server lies, or is of another version"
        )


def check_missed(server: PartyName, number: Round, answer: Answer, *, returns: bool) -> None:
    """Refuses an answer that a party was too late where it cannot be, or one that says no order of rounds.

    Whether any round is left out of it, whoever knows the plan checks.

    Args:
        server: Who has answered.
        number: The round that was asked about.
        answer: The answer.
        returns: Whether a party may miss a round of this session and take part in a later one.

    Raises:
        ServerFault: The answer is wrong.
    """
    if answer.verdict != "missed":
        return
    said = f"server {server!r} said that this party was too late for round {number}"
    if not returns:
        raise ServerFault(
            f"{said}; in this session nobody comes back who was too late: expected a sum, or that the round was "
            "abandoned. Nothing further is sent: the server leaves rounds out, or is of another version"
        )
    expected = f"expected a round after {number} to go on with, and rounds before that one in order, from {number} on"
    least = number
    for past in answer.missed:
        if not least <= past.number < answer.number:
            raise ServerFault(f"{said}; {expected}, found another list")
        least = past.number + 1
    if answer.number <= number:
        raise ServerFault(f"{said}; {expected}, found round {answer.number}")
