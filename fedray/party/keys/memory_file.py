# SPDX-License-Identifier: Apache-2.0
"""The memory of models as a file of one party: append-only, one process at a time, whole after a crash.

Each memo is one line, on the disk before anything that depends on it leaves the party, and begins with a hash of itself
and of all lines before it: a line that is missing or stands elsewhere does not fit. A line that was cut off by a crash
is dropped: what it stood for never left. Any other damage is refused, since a file that has lost lines allows what it
should not. Whole lines that are missing at the end alone are not found, nor is what the folder's owner makes up.
Knows no protocol and no policy.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

from fedray.errors import PlanError, ProtocolError
from fedray.party.keys.own_files import OTHERS, open_own
from fedray.party.whole_file import settle
from fedray.protocol.memory import Memo, ModelMemory, Served, SetUp
from fedray.types import PartyName

PATIENCE = 10.0
"""Seconds to wait for the process that used the file before; one that was just ended may take a moment."""

# Seconds between two tries; `flock` itself would wait without end.
_POLL = 0.05
_MARK = 32  # characters of a line's hash


class MemoryFile:
    """The file, open and locked until `close` or the end of the process.

    Args:
        path: The file; made where there is none.
        party: Whose, for errors.
        patience: Seconds to wait while another process uses it.

    Attributes:
        memory: What it holds; new memos go into the file.

    Raises:
        PlanError: It is damaged, a link, open to other users, or another process uses it.
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path, party: PartyName, patience: float = PATIENCE) -> None:
        self._path, self._party = path, party
        # O_APPEND: each line is one write at the end, wherever this process believes the end to be.
        self._file = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, OTHERS)
        self._groups: dict[tuple[PartyName, ...], int] = {}
        self._chain = _Chain(party)
        try:
            self._lock(patience)
            # After the lock and before the first line: the file's name must survive a power cut, too, or its lines are
            # lost with it.
            settle(path.parent)
            self.memory = ModelMemory(self._read(), self._append)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets another process use the file; nothing is written from here on."""
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _lock(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise PlanError(
                        f"party {self._party!r}: another process uses {self._path}; one identity takes part in one "
                        "session at a time. End the other session with sf.shutdown()"
                    ) from None
                time.sleep(_POLL)

    def _read(self) -> list[Memo]:
        # Of the file that is locked, whatever its path leads to by now.
        with os.fdopen(os.dup(self._file), "rb") as file:
            content = file.read()
        # What follows the last line end was cut off while it was written.
        whole = content.rpartition(b"\n")[0] + b"\n" if b"\n" in content else b""
        groups: list[tuple[PartyName, ...]] = []
        memos: list[Memo] = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                memos += _memo(self._chain.body(line), groups)
            except (ValueError, IndexError, RecursionError):
                raise PlanError(
                    f"party {self._party!r}: line {number} of {self._path} is damaged. The file tells which model was "
                    "summed with whom; without it one party's input may be found by subtraction. Restore it, or remove "
                    "it if you start from new models"
                ) from None
        # Cut before anything is appended, or the next line would be joined to the torn one.
        if len(whole) < len(content):
            os.ftruncate(self._file, len(whole))
        self._groups = {group: number for number, group in enumerate(groups)}
        return memos

    def _append(self, memo: Memo) -> None:
        lines = []
        if isinstance(memo, Served):
            # Who takes part is written once and then named by its number: a line is written each round, and the names
            # of many parties would be most of it.
            number = self._groups.get(memo.members)
            if number is None:
                number = self._groups[memo.members] = len(self._groups)
                lines.append(self._chain.line(["members", *memo.members]))
            lines.append(self._chain.line(["model", memo.model.hex(), number]))
        else:
            lines.append(self._chain.line([memo.what, memo.roster.hex()]))
        written, expected = -1, sum(map(len, lines))
        try:
            written = os.write(self._file, b"".join(lines))
            # The price of a round's memory: without it, a party that lost power could be made to add to the same model
            # twice.
            os.fdatasync(self._file)
        except OSError as error:
            raise ProtocolError(self._unwritten(str(error))) from None
        # A disk that is full takes part of a write and reports no error.
        if written != expected:
            raise ProtocolError(self._unwritten(f"{written} of {expected} bytes were written"))

    def _unwritten(self, why: str) -> str:
        self.close()  # a line may be cut off: nothing may follow it, and the next process mends it
        return (
            f"party {self._party!r}: cannot write to {self._path} ({why}), so nothing was sent. Mend that, then start "
            "the session again"
        )


class _Chain:
    """Lines that each begin with a hash over all lines up to them.

    Args:
        party: Whose file it is; that of another party does not fit.
    """

    def __init__(self, party: PartyName) -> None:
        self._seen = hashlib.sha256(b"fedray models 1\n%s\n" % party.encode())

    def line(self, record: list[str | int]) -> bytes:
        """Returns the next line, with its end."""
        body = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode()
        return b"%s %s\n" % (self.mark(body), body)

    def body(self, line: bytes) -> bytes:
        """Returns what the next line says.

        Raises:
            ValueError: It is not the one that was written after those before it.
        """
        mark, _, body = line.partition(b" ")
        if mark != self.mark(body):
            raise ValueError("chain")
        return body

    def mark(self, body: bytes) -> bytes:
        """Returns what the next line begins with."""
        # Against damage, a merge of two copies and a careless hand; not against whoever may write the folder, who owns
        # the key in it as well, and could make up the whole. 16 of the 32 bytes are plenty for that.
        self._seen.update(body + b"\n")
        return self._seen.hexdigest()[:_MARK].encode()


def _memo(body: bytes, groups: list[tuple[PartyName, ...]]) -> list[Memo]:
    """Returns what a line says; a group of members is kept for the lines that name it by number."""
    match json.loads(body):
        case ["members", *names]:
            groups.append(tuple(str(name) for name in names))
            return []
        case ["model", str(model), int(number)]:
            return [Served(bytes.fromhex(model), groups[number])]
        case ["begun" | "finished" as what, str(roster)]:
            return [SetUp(bytes.fromhex(roster), what)]
    raise ValueError("unknown")
