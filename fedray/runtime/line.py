# SPDX-License-Identifier: Apache-2.0
"""Lines: short messages between parties on one node, over local sockets. To other nodes: `fedray/runtime/far`.

They are here because a call by way of Ray takes milliseconds, and a round is made of many short messages. Knows sockets
and which party listens where. Does not know what the messages say. Both ends ask the kernel whose process is at the
other one, and hang up on every user but their own. Needs Linux.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from fedray.errors import EncodingError, PartyLost, PartyTimeout
from fedray.runtime.wire import MOST_PARTS, WirePart, read, write
from fedray.types import Failure, Key, PartyName

MOST_BYTES = 1 << 24
"""Longest message; what is longer travels by Ray, whose shared memory copies it less often."""

MOST_ANSWER_BYTES = 1 << 33
"""Longest answer: a model of a thousand million numbers. It has no other way to go, since it was asked for on a line;
but memory is taken by what the answering party claims, before anything of it has come."""

MOST_CALL = 1000
"""Longest name of a call, which goes into its receiver's ledger."""

Answering: TypeAlias = Callable[[str, Key, PartyName, Any], Any]
Failing: TypeAlias = Callable[[str, Failure, PartyName], Failure]
"""Leads a failure that a line makes through its party's door, as `Party.fail` does: (call, failure, to) -> failure."""


def as_it_is(call: str, failure: Failure, to: PartyName) -> Failure:  # noqa: ARG001 (of a door)
    """Returns a failure that no door is in the way of.

    Args:
        call: What asked.
        failure: What is told.
        to: Whom.
    """
    return failure


_BREATH_SECONDS = 0.05  # between two tries to accept; without it a process without descriptors would spin
_ROOM = 1 << 20  # bytes on their way: whoever sends a usual round's message need not wait until it is read
_AT_ONCE = 16  # parts that one call sends; the system takes no more than 1024, and no message of a round has so many
# A message starts with the number of its parts and the size of each, so that a reader can refuse before it allocates.
_COUNT = struct.Struct(">I")
_SIZE = struct.Struct(">Q")
_CREDENTIALS = struct.Struct("3i")  # process, user, group


@dataclass(frozen=True, slots=True, eq=False)
class LineRef:
    """A message under way, and the line that its answer comes on.

    Nobody else holds the line meanwhile: a reference that is dropped closes its socket, and so a late answer can never
    be taken for the answer to the next message.
    """

    party: PartyName
    line: socket.socket = field(repr=False)

    def __str__(self) -> str:
        return f"deliver at {self.party!r}"


class Lines:
    """One party's lines: it answers those that call, and calls the others.

    Args:
        own: Whose lines these are.
        answer: Answers a message as `Party.deliver` does: (call, key, sender, message) -> answer. Never raises.
        failed: Leads through the door what this itself has to say.

    Attributes:
        address: Where this party is called; a name that no file stands for, so that none is left behind.
    """

    def __init__(self, own: PartyName, answer: Answering, failed: Failing = as_it_is) -> None:
        self._own, self._answer, self._failed = own, answer, failed
        self._addresses: dict[PartyName, str] = {}
        self._free: dict[PartyName, list[socket.socket]] = {}
        # A leading zero byte makes the name abstract: it lives in the kernel and goes with the process. Drawn at
        # random, so that no other process of the machine can take it first.
        self.address = f"\0fedray-{secrets.token_hex(16)}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen()
        threading.Thread(target=self._accept, name="fedray-lines", daemon=True).start()

    @classmethod
    def opened(cls, own: PartyName, answer: Answering, failed: Failing = as_it_is) -> Lines | None:
        """Returns a party's lines, or None where the system has none or does not let us have any.

        Args:
            own: As in `Lines`.
            answer: As in `Lines`.
            failed: As in `Lines`.
        """
        try:
            return cls(own, answer, failed) if sys.platform == "linux" else None
        except OSError:
            return None

    def connect(self, addresses: Mapping[PartyName, str]) -> None:
        """Opens a line to each party that can be called; those that cannot are left to others."""
        for party, address in addresses.items():
            with contextlib.suppress(OSError):
                # Dialled now, while the session starts: the first round should not pay for it.
                self._free[party] = [_dial(address)]
                self._addresses[party] = address

    def send(self, party: PartyName, call: str, key: Key, sender: PartyName, message: Any) -> LineRef | None:
        """Sends a message to a service of a party and returns at once; None where it has to go another way.

        Args:
            party: Whom it is for.
            call: The driver's statement that it belongs to.
            key: The service, in that party's object table.
            sender: Who sends it.
            message: What `fedray.runtime.wire` can write.

        Raises:
            PartyLost: The party's process has ended.
        """
        try:
            parts = write((call, key, sender, message), packed=False)
        except EncodingError:
            return None
        if party not in self._addresses or sum(map(len, parts)) > MOST_BYTES:
            return None
        try:
            # A line of its own for each message under way: answers need no numbers, and a slow one holds up no other.
            line = self._line(party)
            _transmit(line, parts)
        except OSError as error:
            raise _lost(party, error) from None
        return LineRef(party, line)

    def take(self, ref: LineRef, timeout: float | None) -> Any:
        """Returns the answer to a message, and has the line free for the next one.

        Raises:
            PartyLost: The party's process has ended.
            PartyTimeout: `timeout` seconds passed.
            EncodingError: The answer cannot be read, or claims to be longer than any.
        """
        try:
            ref.line.settimeout(timeout)
            answer = read(_receive(ref.line, MOST_ANSWER_BYTES), packed=False)
            # Sending on this line must block again; a limit that was left would cut the next message in two.
            ref.line.settimeout(None)
        except TimeoutError:
            ref.line.close()  # its answer may still come, and must not meet the next message
            raise PartyTimeout(f"no answer within {timeout} seconds: {ref}") from None
        except (EncodingError, MemoryError) as error:
            ref.line.close()  # what is left of it would be read as the next answer
            found = str(error) or "it is longer than there is memory"
            raise EncodingError(f"party {ref.party!r} gave no answer that can be read: {found}") from None
        except (OSError, EOFError) as error:
            raise _lost(ref.party, error) from None
        self._free[ref.party].append(ref.line)
        return answer

    def _line(self, party: PartyName) -> socket.socket:
        try:
            return self._free[party].pop()
        except IndexError:
            return _dial(self._addresses[party])

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:  # such as no file descriptor to spare: whoever calls waits until there is one
                time.sleep(_BREATH_SECONDS)
                continue
            if not _of_this_user(line):
                line.close()
                continue
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
            # A thread for each line, since a message may block until the round is over.
            thread = threading.Thread(target=self._serve, args=(line,), name="fedray-line", daemon=True)
            while not _started(thread):  # no thread to spare: whoever calls waits until there is one
                time.sleep(_BREATH_SECONDS)

    def _serve(self, line: socket.socket) -> None:
        """Answers one line's messages, one after another, until the other side closes it or sends nonsense."""
        with line:
            while True:
                try:
                    message = read(_receive(line, MOST_BYTES), packed=False)
                    _transmit(line, reply(self._own, self._answer, message, failed=self._failed, packed=False))
                except (OSError, EOFError, EncodingError):
                    return


def _started(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:  # the only way to find out
        return False
    return True


def reply(
    own: PartyName,
    answer: Answering,
    message: Any,
    caller: PartyName | None = None,
    failed: Failing = as_it_is,
    *,
    packed: bool = True,
) -> list[WirePart]:
    """Returns the parts of the answer to a message.

    Args:
        own: Who answers.
        answer: As in `Lines`.
        message: What came.
        caller: Who has proved to be at the other end; None where the kernel knows that it is our own user.
        failed: As in `Lines`.
        packed: As in `fedray.runtime.wire.write`.

    Raises:
        EncodingError: It is no message, or of another sender than it says.
    """
    match message:
        case (str(call), str(key), str(sender), body) if caller in (None, sender) and len(call) <= MOST_CALL:
            answered = answer(call, key, sender, body)
        case _:
            raise EncodingError(
                f"a message on a line has a call of at most {MOST_CALL} characters, a key, its sender and a body"
            )
    try:
        parts = write(answered, packed=packed)
        _check_length(map(len, parts), MOST_ANSWER_BYTES)
        return parts
    except EncodingError as error:
        return write(failed(call, Failure("ProtocolError", f"party {own!r}: {error}", own), sender))


def _dial(address: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    line.connect(address)
    if not _of_this_user(line):  # the party has ended, and somebody has taken its address
        line.close()
        raise ConnectionRefusedError("another user answers there")
    return line


def _of_this_user(line: socket.socket) -> bool:
    """Returns whether the process on the other side runs as the same user, as the kernel knows it."""
    _, user, _ = _CREDENTIALS.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(user == os.geteuid())


def _lost(party: PartyName, error: Exception) -> PartyLost:
    found = str(error) or "its line was closed"
    return PartyLost(f"party {party!r} has ended or cannot be reached (deliver): {found}", party=party)


def _transmit(line: socket.socket, parts: Sequence[WirePart]) -> None:
    front = _COUNT.pack(len(parts)) + b"".join(_SIZE.pack(len(part)) for part in parts)
    # By one call, as far as it takes them: whoever waits is woken by the first bytes, and should not find four of them.
    left = [memoryview(part) for part in (front, *parts)]
    sent = line.sendmsg(left[:_AT_ONCE])
    for part in left:
        if sent < len(part):
            line.sendall(part[sent:])
        sent = max(sent - len(part), 0)


def _receive(line: socket.socket, most_bytes: int) -> list[memoryview]:
    # Both limits are checked before memory is taken: four bytes must not be able to ask for gigabytes.
    (count,) = _COUNT.unpack(_exactly(line, _COUNT.size))
    if count > MOST_PARTS:
        raise EncodingError(f"a message between parties has at most {MOST_PARTS} parts, found {count}")
    sizes = [size for (size,) in _SIZE.iter_unpack(_exactly(line, count * _SIZE.size))]
    _check_length(sizes, most_bytes)
    return [_exactly(line, size) for size in sizes]


def _check_length(sizes: Iterable[int], most_bytes: int) -> None:
    total = sum(sizes)
    if total > most_bytes:
        raise EncodingError(f"a message on a line has at most {most_bytes} bytes, found {total}")


def _exactly(line: socket.socket, size: int) -> memoryview:
    # NumPy's memory and not a bytearray, which would be filled with zeros first: for megabytes that takes time.
    buffer = np.empty(size, np.uint8).data
    missing = buffer
    while missing:
        received = line.recv_into(missing)
        if not received:
            raise EOFError
        missing = missing[received:]
    return buffer
