# SPDX-License-Identifier: Apache-2.0
"""Replay: a party makes contributions of a run once more, from its rows, and holds them against its ledger.

Rounds can be made again that follow a checkpoint at once: what others contributed to the ones between, nobody keeps.
Knows files and commitments. Nothing is sent but the verdict.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fedray.errors import DataError
from fedray.party.context import PartyContext
from fedray.party.door.commitment import Commitments
from fedray.party.door.entry import entry_of
from fedray.party.door.own_ledger import file_name, numbers_of, read
from fedray.party.kept import kept_file
from fedray.party.keys.key_folder import LEDGERS, REPLAY
from fedray.party.training.orders import order_of
from fedray.party.training.trainer import Trainer
from fedray.protocol.scheme import RoundContext

WHAT = "round after a checkpoint"

_Said: TypeAlias = Literal["equal", "differs", "not in the ledger", "not kept", "not asked for"]

ReplayVerdict: TypeAlias = tuple[int, int, _Said]
"""Number of a checkpoint, of the round after it, and what came of it."""

Committed: TypeAlias = Mapping[tuple[str, str], Sequence[str]]
"""(session in hexadecimal digits, call) -> commitments in the ledger."""


def noted(sid: bytes, context: RoundContext, commitments: Commitments) -> dict[str, Any]:
    """Returns what has to be kept of a round, to make it again.

    Args:
        sid: The ledger's name of the session.
        context: What the round is about.
        commitments: Where its commitment is made.
    """
    settings = context.settings.hex()
    return {"session": sid.hex(), "round": context.number, "settings": settings, "key": commitments.name}


def key_name(name: str) -> str:
    """Returns what the file is called in which a run keeps a key of commitments that is in no key folder.

    Args:
        name: What the key goes by.
    """
    return f"{REPLAY}.{name}"


def name_of_round(name: str) -> str:
    """Returns the name of what is kept of the round after a checkpoint."""
    return f"{name}-round"


def again(
    context: PartyContext,
    trainer: Trainer,
    folder: Path,
    number: int,
    name: str,
    committed: Committed,
    rounds: Collection[int],
    put_back: Callable[[], None],
) -> ReplayVerdict:
    """Makes the round after a checkpoint once more.

    Args:
        context: The party.
        trainer: Its trainer.
        folder: Where the run is kept.
        number: Of the checkpoint.
        name: The checkpoint's name.
        committed: What is in the ledger.
        rounds: The rounds that are asked for; none for all.
        put_back: Puts the trainer back to that checkpoint.
    """
    try:
        said = kept_file.read_record(folder, name_of_round(name), WHAT)
    except (DataError, OSError):
        return number, -1, "not kept"
    if rounds and said["round"] not in rounds:
        return number, said["round"], "not asked for"
    put_back()
    sid, there = bytes.fromhex(said["session"]), committed.get((said["session"], f"train round {said['round']}"), ())
    if not there:
        return number, said["round"], "not in the ledger"
    settings = bytes.fromhex(said["settings"])
    about, contribution = trainer.again(order_of(settings), said["round"])
    commitments = _of_key(context, folder, said["key"])
    equal = any(commitments.opens(one, sid, about, contribution) for one in there)
    return number, said["round"], "equal" if equal and about.settings == settings else "differs"


def in_own_ledger(folder: Path) -> Committed:
    """Returns the commitments in the ledgers of a key folder.

    Args:
        folder: The key folder.

    Raises:
        BrokenLedger: One is damaged.
    """
    found: dict[tuple[str, str], list[str]] = {}
    below = folder / LEDGERS
    for number in numbers_of(os.listdir(below)):
        content = (below / file_name(number)).read_bytes()
        if b"\n" not in content:  # of a party that ended when it began
            continue
        book = read(content)
        for index, line in enumerate(book.lines):
            entry = entry_of(line, book.party, index)
            if entry.commitment is not None:
                found.setdefault((book.sid.hex(), entry.call), []).append(entry.commitment)
    return found


def _of_key(context: PartyContext, folder: Path, name: str) -> Commitments:
    """Returns commitments with the key of that name: this process's own, or one that an earlier one has kept.

    Raises:
        DataError: There is none.
    """
    if context.commitments.name == name:
        return context.commitments
    try:
        kept = Commitments((folder / key_name(name)).read_bytes())
    except OSError:
        raise DataError(
            f"party {context.name!r}: the key of its commitments is not in {folder}; without it none can be opened"
        ) from None
    return kept
