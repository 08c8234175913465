# SPDX-License-Identifier: Apache-2.0
"""How one party's model comes to all of them: who sends it, and whose builder had made another one.

Knows names and services. Knows no model: it goes from party to party, by way of the server, signed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from fedray.ml.nn.membership import Membership
from fedray.rounds.sum_session import SumSession
from fedray.types import Key, PartyName

_log = logging.getLogger("fedray")


def hand_round(
    members: Membership, sums: SumSession, rounds: Mapping[PartyName, Key], *, initial: bool
) -> tuple[str, ...]:
    """Lets everybody take the model of a party that holds the current one; returns what there is to say of it.

    Args:
        members: Who is there, and whose model is the current one.
        sums: The open session.
        rounds: Party -> key of its `ModelRounds`.
        initial: Whether nothing was trained yet, nor loaded.

    Raises:
        ProtocolError: The server handed out another model than was signed.
        PartyLost: Nobody is left who holds it.
    """

    def publish(party: PartyName) -> PartyName:
        sums.session.get([sums.session.ask(party, rounds[party], "publish")])
        return party

    sender = members.first(publish)
    differ = sums.ask_all(rounds, "pull", sender, initial)
    return say_other_weights(sender, [party for party, other in differ.items() if other])


def say_older(party: PartyName) -> None:
    """Says of a party that it does not have the current model."""
    _log.warning(
        "party %r missed the last rounds, and predicts with the model that it had before them; the next fit hands it "
        "the current one",
        party,
    )


def say_other_weights(sender: PartyName, others: Sequence[PartyName]) -> tuple[str, ...]:
    """Says of parties whose builders made other initial weights under the same seed, and returns what it said.

    Args:
        sender: Whose weights all begin with.
        others: Who made others; nobody, as a rule.
    """
    if not others:
        return ()
    text = (
        f"model: {', '.join(map(repr, others))} built other initial weights than {sender!r} under the same seed: the "
        f"builder draws them by itself, or the machines differ. All begin with those of {sender!r}, which it has signed"
    )
    _log.warning("%s", text)
    return (text,)
