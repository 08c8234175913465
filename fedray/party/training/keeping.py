# SPDX-License-Identifier: Apache-2.0
"""Keeping: one party's checkpoints of one model, on its own disk. They are never sent: the driver learns their numbers.

They lie where its operator says, in `party.toml` or by a key folder, else in a folder that the driver names, one folder
for each run.
State is gathered when it is asked for, and written beside the training that goes on, as the rows are hashed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedray.errors import DataError, FedRayError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.kept import kept_file
from fedray.party.kept.beside import Beside
from fedray.party.kept.nest import NamedArrays, taken_apart
from fedray.party.kept.numbered import name_of, numbers_of, removable
from fedray.party.kept.pass_log import PassLog
from fedray.party.rounds.contributor import Contributor
from fedray.party.training.local_model import LocalModel
from fedray.party.training.part import content_hash, gathered, put_back
from fedray.party.training.replaying import WHAT as ROUND
from fedray.party.training.replaying import Committed, again, in_own_ledger, key_name, name_of_round, noted
from fedray.party.training.trainer import Trainer
from fedray.party.whole_file import why, write_new
from fedray.protocol.scheme import RoundContext
from fedray.types import PartyName, Value

WHAT = "checkpoint of a party"

PASSES = "passes.log"


class Keeping:
    """Keeps one party's part of a run, and puts it back.

    Args:
        context: The party this service lives in.
        contributor: Its end of the private sums.
        model: Its model.
        trainer: Its trainer.
    """

    def __init__(self, context: PartyContext, contributor: Contributor, model: LocalModel, trainer: Trainer) -> None:
        self._context, self._contributor, self._model, self._trainer = context, contributor, model, trainer
        self._folder = Path()
        self._data: dict[str, str] = {}
        self._passes: PassLog | None = None
        self._hashing, self._writing = Beside("fedray-rows"), Beside("fedray-keeping")
        self._failure = ""
        self._round_after: tuple[int, dict[str, Any]] | None = None

    def know(self, rows: Sequence[tuple[str, Value, Value, Value | None]], class_weight: Mapping[int, float]) -> None:
        """Begins to take the hash of the rows of each purpose, for this party alone to compare; see `LocalModel.bind`.

        No checkpoint counts, and none is looked at, before that is done: it is waited for there.

        Args:
            rows: Purpose, `x`, `y`, and weights of rows or None.
            class_weight: Weights of classes in training; empty for none.
        """
        self._writing.rest()
        weights = {"train": sorted(class_weight.items())}

        def take() -> None:
            told = {purpose: f"{content_hash(*arrays)} {weights.get(purpose, [])}" for purpose, *arrays in rows}
            self._data = {purpose: hashlib.sha256(one.encode()).hexdigest() for purpose, one in told.items()}

        self._hashing.start(take)

    def look(self, run: str, named: str, everybody: tuple[PartyName, ...]) -> Reply:
        """Returns what this party has of a run, without its content.

        Args:
            run: The run's name.
            named: Folder for parties without one of their own, on this party's machine.
            everybody: Whose inputs the rounds from here on would sum.

        Returns:
            `held`, numbers of whole checkpoints; `torn`, words on those that are not; `differs`, number -> how what
            this party has differs from the experiment now; `moved`, number -> whether rows that come again after it
            may have been summed over others than everybody.

        Raises:
            DataError: What tells over whom rows were summed is damaged, or has lost lines.
        """
        self._writing.rest()
        self._hashing.rest()
        folder = self._place(run, named)
        held, torn, differs, moved = list[int](), list[str](), dict[int, list[str]](), dict[int, bool]()
        passes = PassLog(folder / PASSES, self._context.name)
        for number in _numbers(folder):
            try:
                record, part = kept_file.read(folder, name_of(number), WHAT)
            except (DataError, OSError) as error:
                torn.append(str(error))
                continue
            passes.check(record["passes"])
            held.append(number)
            differs[number] = self._differences(record)
            moved[number] = _moved(passes.lines, record["passes"], everybody) or self._unseen(part["run"])
        return Reply(Kind.SHAPE, {"held": held, "torn": torn, "differs": differs, "moved": moved})

    def begin(self, run: str, named: str) -> Reply:
        """Makes the folder of a run; from here on the party keeps over whom its rows are summed. Returns its status."""
        self._writing.rest()
        self._failure, self._folder = "", self._place(run, named)
        self._passes = None
        try:
            # Each of those that are not there yet, and not the last one alone: what is in them is made of rows.
            for folder in reversed([self._folder, *self._folder.parents]):
                if not folder.exists():
                    folder.mkdir(mode=0o700, exist_ok=True)
            self._keep_key()
            self._watch()
        except OSError as error:
            self._failure = self._unwritten(error)
        return self._status()

    def capture(self, number: int, stay: tuple[int, ...]) -> Reply:
        """Gathers this party's part now, writes it in the background, and returns the status so far.

        Args:
            number: Of the checkpoint; it grows.
            stay: Which ones stay; others with numbers below them are removed.
        """
        self._writing.rest()
        if self._passes is None:  # over whom rows are summed is not kept, so no run could go on from here
            return self._status()
        part = gathered(self._model, self._contributor.past, self._trainer)
        record = {
            "party": self._context.name,
            "number": number,
            "model": self._model.backend.fingerprint().hex(),
            "passes": self._passes.written,
        }
        try:
            apart = taken_apart(part)
        except DataError as error:
            self._failure = f"party {self._context.name!r}: {error}"
            return self._status()
        after, self._round_after = self._round_after, None
        self._writing.start(lambda: self._write(number, stay, record, apart, after))
        self._note(number)
        return self._status()

    def written(self) -> None:
        """Waits for what is being written, while this party does something else."""
        self._writing.rest()

    def settle(self) -> Reply:
        """Waits for what is being written; returns the status."""
        self._writing.rest()
        after, self._round_after = self._round_after, None
        try:
            self._write_round(after)
        except OSError as error:
            self._failure = self._unwritten(error)
        return self._status()

    def thin(self, stay: tuple[int, ...]) -> Reply:
        """Waits for what is being written, removes what need not stay, and returns the status.

        Args:
            stay: As in `capture`; none to remove nothing.
        """
        self._writing.rest()
        try:
            self._remove(stay)
        except OSError as error:
            self._failure = self._unwritten(error)
        return self._status()

    def restore(self, run: str, named: str, number: int) -> None:
        """Puts this party's part back as it was.

        Args:
            run: The run's name.
            named: As in `look`.
            number: Of the checkpoint.

        Raises:
            DataError: It is damaged, or of another model.
        """
        self._writing.rest()
        self._folder = self._place(run, named)
        try:
            record, part = kept_file.read(self._folder, name_of(number), WHAT)
        except OSError as error:
            raise DataError(f"party {self._context.name!r}: checkpoint {number} cannot be read: {error}") from None
        # As `look` does, which a driver may leave out.
        PassLog(self._folder / PASSES, self._context.name).check(record["passes"])
        if record["model"] != self._model.backend.fingerprint().hex():
            raise DataError(f"party {self._context.name!r}: checkpoint {number} is of another model")
        put_back(part, self._model, self._contributor.past, self._trainer)
        self._watch()
        self._note(number)
        if self._contributor.recovers:
            self._context.memory.run(part["run"]).forgive()

    def replay(self, run: str, named: str, committed: Committed | None, rounds: tuple[int, ...]) -> Reply:
        """Makes the round after each checkpoint once more, and returns the verdicts; nothing of a round is sent.

        Args:
            run: The run's name.
            named: As in `look`.
            committed: Commitments in a ledger that the driver has saved; None for this party's own ledger.
            rounds: The rounds that are asked for; none for all.

        Raises:
            DataError: A checkpoint is damaged, of another model or of other rows, or there is no ledger.
        """
        self._hashing.rest()
        folder = self._place(run, named)
        if committed is None:
            if self._context.folder is None:
                raise DataError(
                    f"party {self._context.name!r} has no key folder, and so no ledger of its own; name one that "
                    "sf.shutdown(ledger=FILE) has saved with --ledger FILE"
                )
            committed = in_own_ledger(self._context.folder)

        def back(name: str) -> None:
            record, part = kept_file.read(folder, name, WHAT)
            # Else a driver could hold guesses at this party's rows against its commitments, which it alone can open.
            if differs := self._differences(record):
                raise DataError(
                    f"party {self._context.name!r} has {differs[0]} than the run, and makes none of it again"
                )
            put_back(part, self._model, self._contributor.past, self._trainer)

        named_so = [(number, name_of(number)) for number in _numbers(folder)]
        own = self._context, self._trainer, folder
        try:
            verdicts = [again(*own, number, name, committed, rounds, partial(back, name)) for number, name in named_so]
        finally:
            # What is trained from here on is no part of the run, whose log of passes is not under way: another name.
            self._trainer.remember((*self._trainer.remembered()[:2], secrets.token_bytes(16)))
        return Reply(Kind.SHAPE, verdicts)

    def _note(self, number: int) -> None:
        """Keeps what the round is about that follows a checkpoint, when it is there."""
        commitments = self._context.commitments

        def note(sid: bytes, context: RoundContext) -> None:
            if context.purpose == "train":
                commitments.watch, self._round_after = None, (number, noted(sid, context, commitments))

        commitments.watch = note

    def _write_round(self, after: tuple[int, dict[str, Any]] | None) -> None:
        if after is not None:
            kept_file.write(self._folder, name_of_round(name_of(after[0])), ROUND, after[1])

    def _watch(self) -> None:
        """Lets over whom rows are summed outlast the process."""
        self._passes = PassLog(self._folder / PASSES, self._context.name)
        self._passes.make()
        self._context.memory.run(self._trainer.remembered()[2]).keep(self._passes.lines[:], self._passes.add)

    def _unseen(self, run: bytes) -> bool:
        """Returns whether rows left in this process of which this party never saw a set, and nobody signs for one."""
        return not self._contributor.recovers and self._context.memory.run(run).unseen()

    def _differences(self, record: Mapping[str, Any]) -> list[str]:
        found = []
        if record["model"] != self._model.backend.fingerprint().hex():
            found.append("another model: its layers, optimizer, loss, metrics or frozen values")
        for purpose in sorted(self._data.keys() | record["rows"].keys()):
            if self._data.get(purpose) != record["rows"].get(purpose):
                what = {"train": "other rows, labels or weights", "evaluate": "other rows of validation"}[purpose]
                found.append(what)
        return found

    def _keep_key(self) -> None:
        """Keeps the key of this process's commitments, where the key folder does not."""
        if self._context.folder is None:
            name = key_name(self._context.commitments.name)
            if not (self._folder / name).exists():
                write_new(self._folder / name, self._context.commitments.secret(), 0o600)

    def _place(self, run: str, named: str) -> Path:
        if not re.fullmatch(r"[0-9a-z-]{1,64}", run):  # a name of the driver's must not lead out of the folder
            raise DataError(f"party {self._context.name!r}: {run!r} is no name of a run")
        own = self._context.parts
        return (Path(named).expanduser() / self._context.name if own is None else own) / run

    def _write(
        self,
        number: int,
        stay: tuple[int, ...],
        record: Mapping[str, Any],
        part: tuple[Any, NamedArrays],
        after: tuple[int, dict[str, Any]] | None,
    ) -> None:
        try:
            self._write_round(after)
            # Before the new one is written: a disk that is full needs the room.
            self._remove(stay)
            self._hashing.rest()
            kept_file.write(self._folder, name_of(number), WHAT, {**record, "rows": dict(self._data)}, part)
            self._failure = ""
        except (OSError, FedRayError) as error:
            self._failure = self._unwritten(error)

    def _remove(self, stay: tuple[int, ...]) -> None:
        for old in removable(_numbers(self._folder), stay):
            kept_file.remove(self._folder, name_of_round(name_of(old)))
            kept_file.remove(self._folder, name_of(old))

    def _unwritten(self, error: Exception) -> str:
        return f"party {self._context.name!r} cannot write to {self._folder} ({why(error)})"

    def _status(self) -> Reply:
        """Returns the numbers on the disk, and why the last write failed, or nothing."""
        return Reply(Kind.SHAPE, {"held": _numbers(self._folder), "failure": self._failure})


def _moved(lines: list[tuple[bytes, tuple[PartyName, ...]]], before: int, everybody: tuple[PartyName, ...]) -> bool:
    """Returns whether rows that come again were summed over others: of the pass under way, or of those after it.

    Args:
        lines: (pass, set) of a run.
        before: How many there were when the checkpoint was made.
        everybody: Over whom they would be summed now.
    """
    under_way = lines[before - 1][0] if before else b""
    again = [members for place, (name, members) in enumerate(lines) if place >= before or name == under_way]
    return any(members != everybody for members in (*again, *(members for _, members in lines[-1:])))


def _numbers(folder: Path) -> list[int]:
    """Returns the numbers of the checkpoints in a folder, in order; none where it is not there."""
    try:
        return numbers_of(os.listdir(folder))
    except OSError:
        return []
