# SPDX-License-Identifier: Apache-2.0
"""RunFolder: one run on the driver's disk, a numbered subfolder of the folder that the user has named.

`run.json` says what the run is, `NNNNNN.json` and `NNNNNN.safetensors` are its checkpoints. Nobody has to believe what
stands here about a party's part: that lies with the party.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedray.errors import DataError, PlanError
from fedray.party.kept import kept_file
from fedray.party.kept.nest import taken_apart
from fedray.party.kept.numbered import name_of, numbers_of

RUN, STATE = "fedray run", "checkpoint of a driver"
_FOLDER = re.compile(r"[0-9]{4,}")


class RunFolder:
    """One run.

    Args:
        folder: Its folder.
        run: What `run.json` says.

    Attributes:
        folder: The same.
        run: The same: `name`, `experiment` and its `hash`, `versions`, `parties`, `seed`, `fits` (how many there were
            before it), `epochs`, `started`, `finished` (None while it is not), and `deals` where rows were dealt anew.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        self.folder, self.run = folder, run

    @classmethod
    def all(cls, path: str | os.PathLike[str]) -> list[RunFolder]:
        """Returns the runs in a folder, the oldest first; none where it is not there.

        Raises:
            PlanError: What says what a run is is damaged.
        """
        above = Path(path).expanduser()
        names = (
            sorted((one.name for one in above.iterdir() if _FOLDER.fullmatch(one.name)), key=int)
            if above.is_dir()
            else []
        )
        # A run that ended before it was named has nothing to go on from.
        return [cls.at(above / name) for name in names if (above / name / "run.json").exists()]

    @classmethod
    def at(cls, folder: Path) -> RunFolder:
        """Returns the run of one subfolder.

        Raises:
            PlanError: What says what it is is damaged.
        """
        try:
            return cls(folder, kept_file.read_record(folder, "run", RUN))
        except (DataError, OSError) as error:
            raise PlanError(f"checkpoint: {error}. Without it a new run is begun") from None

    @classmethod
    def new(cls, path: str | os.PathLike[str], said: Mapping[str, Any]) -> RunFolder:
        """Makes the folder of a new run.

        Args:
            path: The folder above it; made where it is not there.
            said: What the run is, but for its name.

        Raises:
            OSError: It cannot be made.
        """
        above = Path(path).expanduser()
        above.mkdir(parents=True, exist_ok=True)
        taken = [int(one.name) for one in above.iterdir() if _FOLDER.fullmatch(one.name)]
        number = max(taken, default=0) + 1
        folder = above / f"{number:04d}"
        folder.mkdir()
        # Parties keep their parts under this name, and may serve drivers whose folders are called alike.
        made = cls(folder, {"name": f"{number:04d}-{secrets.token_hex(8)}", **said, "finished": None})
        made.say()
        return made

    @property
    def name(self) -> str:
        """What the parties know the run by."""
        return str(self.run["name"])

    def say(self, **more: Any) -> None:
        """Writes what the run is, with what there is to add.

        Raises:
            OSError: It cannot be written.
        """
        self.run |= more
        kept_file.write(self.folder, "run", RUN, self.run)

    def count_deal(self, deals: int) -> int:
        """Returns the number of a deal that there was not yet, and writes it down before any of its rows leave.

        Whoever goes on from the same checkpoint once more must not deal alike: those rows, too, may have been summed
        over others by then.

        Args:
            deals: How many there were when the checkpoint was made.

        Raises:
            PlanError: It cannot be written.
        """
        number = max(deals, int(self.run.get("deals", 0))) + 1
        try:
            self.say(deals=number)
        except OSError as error:
            raise PlanError(
                f"checkpoint: {self.folder} cannot be written ({error.strerror}), and has to say that rows are dealt "
                "anew. Mend that, or begin a new run (resume=False)"
            ) from None
        return number

    def numbers(self) -> list[int]:
        """Returns the numbers of its checkpoints, in order, whole or not."""
        return numbers_of(os.listdir(self.folder))

    def write(self, number: int, record: Mapping[str, Any], state: Any) -> None:
        """Writes one checkpoint.

        Args:
            number: Its number.
            record: What people want to know of it.
            state: A plain value.

        Raises:
            DataError: The state is not plain.
            OSError: It cannot be written.
        """
        kept_file.write(self.folder, name_of(number), STATE, record, taken_apart(state))

    def record(self, number: int) -> dict[str, Any]:
        """Returns what people want to know of a checkpoint.

        Raises:
            DataError: It is damaged.
        """
        return kept_file.read_record(self.folder, name_of(number), STATE)

    def read(self, number: int) -> tuple[dict[str, Any], Any]:
        """Returns record and state of a checkpoint.

        Raises:
            DataError: It is damaged.
            OSError: It cannot be read.
        """
        return kept_file.read(self.folder, name_of(number), STATE)

    def whole(self) -> tuple[list[int], list[str]]:
        """Returns the numbers of the checkpoints that are whole, in order, and words on those that are not."""
        good, torn = list[int](), list[str]()
        for number in self.numbers():
            try:
                self.read(number)
                good.append(number)
            except (DataError, OSError) as error:
                torn.append(str(error))
        return good, torn

    def remove(self, numbers: Iterable[int]) -> None:
        """Removes checkpoints.

        Raises:
            OSError: One cannot be removed.
        """
        for number in numbers:
            kept_file.remove(self.folder, name_of(number))
