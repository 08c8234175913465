# SPDX-License-Identifier: Apache-2.0
"""What a server may say to a party that was too late for a round. Pure: knows answers, and no session."""

from __future__ import annotations

from fedray.errors import ServerFault
from fedray.party.records import Answer, PastRound
from fedray.types import PartyName, Round


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
    if type(answer.number) is not int or type(answer.missed) not in (tuple, list):
        raise ServerFault(f"{said}; {expected}, found other types")
    least = number
    for past in answer.missed:
        if type(past) is not PastRound or type(past.number) is not int or not least <= past.number < answer.number:
            raise ServerFault(f"{said}; {expected}, found another list")
        least = past.number + 1
    if answer.number <= number:
        raise ServerFault(f"{said}; {expected}, found round {answer.number}")
