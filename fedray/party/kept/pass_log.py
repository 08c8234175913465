# SPDX-License-Identifier: Apache-2.0
"""Over whom a run has summed a party's rows, pass by pass, as a file that is never rolled back.

A run that goes on from a checkpoint comes to the same rows once more. They may be summed again over the same parties
only: over others, the difference of the two sums would show one party's part. The party itself refuses (`Turnover`), by
what stands here. One line for each pass and set, on the disk before rows leave for that set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from fedray.errors import DataError, ProtocolError
from fedray.party.whole_file import settle
from fedray.types import PartyName

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # who may write the folder must not choose which file is written over


class PassLog:
    """The file of one run at one party.

    Args:
        path: Where; made with the first line.
        party: Whose, for errors.

    Attributes:
        lines: (pass, set), in the order in which they came.
        written: How many of them are on the disk.

    Raises:
        DataError: A line is damaged that is not the last one.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, party: PartyName) -> None:
        self._path, self._party = path, party
        self.lines: list[tuple[bytes, tuple[PartyName, ...]]] = []
        content = path.read_bytes() if path.exists() else b""
        whole = content.rpartition(b"\n")[0]
        # What follows the last line end was cut off while it was written: the rows that it stood for never left.
        self._size, self.written = len(whole) + bool(whole), 0
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                name, *members = json.loads(line)
                self.lines.append((bytes.fromhex(name), tuple(map(str, members))))
            except (ValueError, TypeError):
                raise DataError(
                    f"line {number} of {path} is damaged; it tells over whom this run's rows were summed. Put "
                    "back what stood there, or begin a new run (resume=False)"
                ) from None
        self.written = len(self.lines)

    def check(self, written: int) -> None:
        """Checks that no line is missing that was there once.

        Args:
            written: How many there were.

        Raises:
            DataError: There are fewer.
        """
        if self.written < written:
            raise DataError(
                f"party {self._party!r}: {self._path} has lost lines: expected {written} at least, found "
                f"{self.written}. It tells over whom this run's rows were summed, and is never put back to an older "
                "copy. Put back the newest one, or begin a new run (resume=False)"
            )

    def make(self) -> None:
        """Makes the file where there is none.

        Raises:
            OSError: It cannot be written.
        """
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | _NO_LINK, 0o600))
        settle(self._path.parent)

    def add(self, pass_name: bytes, members: tuple[PartyName, ...]) -> None:
        """Writes that rows of a pass are about to be summed over a set.

        Args:
            pass_name: The pass.
            members: The set, in roster order.

        Raises:
            ProtocolError: It cannot be written, and the set is another than before; then nothing may leave.
        """
        if (pass_name, members) in self.lines:
            return
        line = json.dumps([pass_name.hex(), *members]).encode() + b"\n"
        # Another pass over the same set tells whoever resumes nothing new: a full disk is no reason to end the run.
        known = bool(self.lines) and self.lines[-1][1] == members
        self.lines.append((pass_name, members))
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | _NO_LINK, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.seek(self._size)
                file.truncate()  # a line that was cut off
                file.write(line)
                file.flush()
                os.fsync(descriptor)
            if not self._size:  # the name of a file that is new; after that a round need not wait for the folder
                settle(self._path.parent)
            self._size += len(line)
            self.written += 1
        except OSError as error:
            if not known:
                raise ProtocolError(
                    f"party {self._party!r}: cannot write to {self._path} ({error.strerror}), so nothing was sent: "
                    "over whom the rows of this run are summed has to outlast the process. Mend that, or leave "
                    "checkpoint out"
                ) from None
