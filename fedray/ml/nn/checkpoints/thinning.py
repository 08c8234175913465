# SPDX-License-Identifier: Apache-2.0
"""Removes what is more than is to be kept once a fit is over or interrupted; while one runs, answers come one later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fedray.ml.nn.checkpoints.choice import common
from fedray.ml.nn.checkpoints.parts import PartyParts
from fedray.ml.nn.checkpoints.run_folder import RunFolder
from fedray.party.kept.numbered import removable
from fedray.types import PartyName


def at_end(folder: RunFolder, parts: PartyParts, there: Sequence[PartyName], keep: int) -> str:
    """Leaves the last checkpoints of a run that is over, and no others, at the driver and at those who take part.

    It is never gone on with, so that nothing has to wait here for a party that is lost.

    Args:
        folder: The run.
        parts: The parties' parts, which have all been written; they answer later.
        there: Who takes part.
        keep: How many stay.

    Returns:
        Why it could not be done at the driver, or nothing.
    """
    return _thin(folder, {party: parts.held[party] for party in there}, keep, parts.thin)


def at_interruption(folder: RunFolder, parts: PartyParts, keep: int) -> str:
    """Does so with a run that may be gone on with, where all parties answer soon; else everything stays.

    What is known of a party that is lost is what it said before its last write: the one checkpoint that it has as well
    might be removed.

    Args:
        folder: The run.
        parts: The parties' parts.
        keep: How many stay.

    Returns:
        Why it could not be done at the driver, or nothing.
    """
    if not parts.thin_soon(parts.parties, ()):  # a look at what they have written meanwhile
        return ""
    return _thin(folder, parts.held, keep, parts.thin_soon)


def _thin(
    folder: RunFolder,
    held: Mapping[PartyName, Sequence[int]],
    keep: int,
    ask: Callable[[Sequence[PartyName], Sequence[int]], object],
) -> str:
    try:
        stay = common(folder.numbers(), held)[-keep:]
        folder.remove(removable(folder.numbers(), stay))
    except OSError as error:  # told and not raised: of an interruption it would take the place
        return f"checkpoint: older ones could not be removed at the driver ({error.strerror})"
    ask(tuple(held), stay)
    return ""
