# SPDX-License-Identifier: Apache-2.0
"""A party's ledger on its own disk, as it grows: one file for each time that it takes part.

Each line is written before what it stands for leaves the party, so a party that dies has lost no record, nor has one
whose driver loses its file. Knows how lines are chained (`fedray.party.door.own_ledger`), and not what they say.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.errors import ProtocolError
from fedray.party.door.own_ledger import Marks, file_name, first_line, last_mark, numbers_of
from fedray.party.keys.own_files import OTHERS, open_own, read_own, real_folder
from fedray.party.whole_file import settle
from fedray.types import PartyName

_SECONDS = 1.0
"""Between two waits for the disk. A dead process loses nothing even without them, since the system has what was
written; a power cut may lose the lines of the last second."""


class LedgerLog:
    """A new file, open until `close` or the end of the process. Safe to use from several threads.

    Args:
        folder: Where the files are; made where it is not. The folder above it is locked for this process.
        party: Whose.
        identity: Its key, which signs what the file begins with.

    Raises:
        PlanError: The folder or a file in it is a link, or other users may change it.
        OSError: It cannot be written.

    Attributes:
        failure: Why nothing is written any more; empty while all is well.
    """

    def __init__(self, folder: Path, party: PartyName, identity: Ed25519PrivateKey) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.failure = ""
        self._folder = real_folder(folder)
        numbers = numbers_of(os.listdir(self._folder))
        number = max(numbers, default=0) + 1
        # Each file names the end of the one before, signed: one that is missing, or was put in its place, is found. One
        # without a line is of a party that ended as it began.
        ends = (last_mark(read_own(self._folder / file_name(one), OTHERS)) for one in reversed(numbers))
        before = next((end for end in ends if end), "")
        self._path, self._party = self._folder / file_name(number), party
        self._lock, self._synced = threading.Lock(), 0.0
        self._marks = Marks(party, before)
        self._file = open_own(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, OTHERS)
        self.write(first_line(party, number, before, identity))
        settle(self._folder)

    def write(self, line: bytes) -> None:
        """Writes a line, so that it is there when this returns, whatever becomes of the process.

        Args:
            line: Without its end.

        Raises:
            ProtocolError: It cannot be written; nothing may leave the party then.
        """
        with self._lock:
            if self._file < 0:
                raise self._unwritten("it was closed")
            written, content = -1, self._marks.line(line)
            try:
                written = os.write(self._file, content)
                if time.monotonic() - self._synced > _SECONDS:
                    os.fdatasync(self._file)
                    self._synced = time.monotonic()
            except OSError as error:
                raise self._unwritten(str(error)) from None
            # A disk that is full takes part of a write and reports no error.
            if written != len(content):
                raise self._unwritten(f"{written} of {len(content)} bytes were written")

    def close(self) -> None:
        """Has everything on the disk; nothing is written from here on."""
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)
                self._end()

    def _end(self) -> None:
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _unwritten(self, why: str) -> ProtocolError:
        self._end()  # a line may be cut off: nothing may follow it
        self.failure = self.failure or (
            f"party {self._party!r}: cannot write its ledger to {self._path} ({why}), so nothing leaves it. Mend that, "
            "then start the session again"
        )
        return ProtocolError(self.failure)
