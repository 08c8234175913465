# SPDX-License-Identifier: Apache-2.0
"""The caller's end of lines between nodes: who is called where, and the threads that carry messages there.

A thread carries one exchange at a time over one connection, which it keeps for the next one. What an exchange is, is in
`fedray/runtime/far/carried.py`; how long a party is called again in `fedray/runtime/far/redial.py`.
"""

from __future__ import annotations

import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedray.errors import EncodingError, FedRayError, PartyLost, ProtocolError
from fedray.party.keys.line_keys import LineKeys
from fedray.runtime.far.carried import Carried, Leg
from fedray.runtime.far.redial import Redial, Trouble
from fedray.runtime.far.strangers import shut
from fedray.runtime.wire import WirePart, read
from fedray.types import PartyName

MAGIC = b"fedray line 1\n"
GREETING = struct.Struct(f">{len(MAGIC)}s16s16sB")
"""What a connection begins with: what it is, the marks of who is called and of who calls, the length of its name."""

OPENING_SECONDS = 3.0
"""For a connection, and for each step of its opening."""

_MOST_LINES = 24  # to one party; after a cut it takes it some seconds to see that so many old ones are gone
QUIET_SECONDS = 60.0
"""After which a connection is given up on which nothing moves, though the kernel at its other end seems to be there:
somebody may stand between who keeps what is sent. A party that works on its answer says nothing either, and is asked
by a new connection."""

_AT_ONCE = 1 << 24  # bytes received before it is noted that something moves
_DONE_SECONDS = 0.05  # in which the next message says by itself that the answer before it is there
_SILENT_SECONDS = 8  # after which the kernel gives a connection up, so that a new one is there when the link is


@dataclass(frozen=True, slots=True)
class Address:
    """Where a party is called by those of other nodes.

    Attributes:
        host: Its node's address.
        port: Its own port there.
        mark: Drawn by its process: another one that has the port later is not taken for it.
        certificate: Its certificate, DER, which counts as far as the roster confirms it.
    """

    host: str
    port: int
    mark: bytes
    certificate: bytes

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Latch:
    """What `threading.Event` is, at a tenth of its price: a round waits for one twice."""

    __slots__ = ("_shut",)

    def __init__(self) -> None:
        self._shut = threading.Lock()
        self._shut.acquire()

    def set(self) -> None:
        """Lets go whoever waits, and will; to be called once."""
        self._shut.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits at most `timeout` seconds; returns whether it was set."""
        there = self._shut.acquire(timeout=-1 if timeout is None else max(timeout, 0.0))
        if there:
            self._shut.release()  # for the next one
        return there


@dataclass(slots=True, eq=False)
class FarRef:
    """A message under way. It is carried on whether or not anybody waits for its answer."""

    party: PartyName
    ended: Latch = field(default_factory=Latch, repr=False)
    answer: Any = field(default=None, repr=False)
    error: FedRayError | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"deliver at {self.party!r}"


class FarParty:
    """One party of another node, as it is called.

    Args:
        own: Who calls.
        party: Who is called.
        address: Where.
        keys: By which both prove who they are.
        mark: Of who calls: its numbers are no other process's.

    Attributes:
        reached: Whether it was ever.
    """

    def __init__(self, own: PartyName, party: PartyName, address: Address, keys: LineKeys, mark: bytes) -> None:
        self._own, self._party, self._address, self._keys, self._mark = own, party, address, keys, mark
        self._lock = threading.Lock()
        self._moved: dict[ssl.SSLSocket, float] = {}  # when something last did on a line that carries an exchange
        self._last, self._open = 0, set[int]()
        # Of messages, how many wait for a thread; of threads, how many wait for a message, and how many there are.
        self._jobs: queue.SimpleQueue[tuple[FarRef, Carried]] = queue.SimpleQueue()
        self._queued = self._idle = self._threads = 0
        self.reached = False

    def send(self, parts: Sequence[WirePart]) -> FarRef:
        """Has a message carried there, by a thread that is free or a new one, and returns at once."""
        ref = FarRef(self._party)
        with self._lock:
            self._last += 1
            exchange = Carried(self._last, parts)
            self._open.add(self._last)
            self._queued += 1
            another = self._queued > self._idle and self._threads < _MOST_LINES
            self._threads += another
        self._jobs.put((ref, exchange))
        if another:
            threading.Thread(target=self._carry_on, name="fedray-far-call", daemon=True).start()
        return ref

    def knock(self) -> str:
        """Tries once to reach the party, if it was not yet; returns why that failed, else nothing."""
        try:
            if not self.reached:
                self._dial().close()
                self.reached = True
        except (FedRayError, OSError, EOFError) as error:
            return f"{self._own!r} does not reach {self._party!r} at {self._address}: {_reason(error)}"
        return ""

    def _carry_on(self) -> None:
        line: ssl.SSLSocket | None = None
        number, done = 0, b""
        with self._lock:
            self._idle += 1
        while True:
            try:
                ref, exchange = self._jobs.get(timeout=_DONE_SECONDS if done else None)
            except queue.Empty:
                line, done = _told(line, done), b""
                continue
            with self._lock:
                self._idle -= 1
                self._queued -= 1
                said = number < min(self._open)
            line, done = line if said else _told(line, done), b""
            try:
                line = self._carry(exchange, line)
                ref.answer = read(exchange.answer)
            except (EncodingError, MemoryError) as error:
                found = str(error) or "it is longer than there is memory"
                ref.error = EncodingError(f"party {self._party!r} gave no answer that can be read: {found}")
                line = _hung_up(line)
            except FedRayError as error:
                ref.error, line = error, _hung_up(line)
            except Exception as error:  # a fault of our own; whoever waits must learn of it
                ref.error = ProtocolError(f"line to party {self._party!r}: {type(error).__name__}: {error}")
                line = _hung_up(line)
            with self._lock:
                self._open.discard(exchange.number)
                floor = min(self._open, default=self._last + 1)
                # Before the answer is told: the next message is sent at once, and finds this line free.
                self._idle += 1
            ref.ended.set()
            number, done = exchange.number, exchange.done(min(floor, exchange.number + 1))
            if exchange.large:  # the other end keeps it until it is told
                line, done = _told(line, done), b""
            del ref, exchange  # nothing large is held here until the next message

    def _carry(self, exchange: Carried, line: ssl.SSLSocket | None) -> ssl.SSLSocket:
        """Carries one exchange to its end, over as many connections as it takes; returns the last one.

        Raises:
            PartyLost: The party has ended, or was not reached for too long.
            EncodingError: Its answer is none.
        """
        redial = Redial(self.reached)
        while True:
            fresh = False
            try:
                if line is None:
                    line = self._dial()
                    redial.opened()
                    self.reached = True
                fresh = True
                self._pump(exchange, line, redial)
                return line
            except ProtocolError as error:  # somebody else answers there, or the keys are not in order
                trouble, why = Trouble.REFUSED, str(error)
            except (ConnectionRefusedError, ssl.SSLError, EOFError) as error:
                trouble, why = Trouble.REFUSED, _reason(error)
            except OSError as error:
                trouble, why = Trouble.SILENT, _reason(error)
            exchange.cut()
            line = _hung_up(line)
            wait = redial.failed(trouble, time.monotonic())
            if wait is None:
                raise self._lost(why, reached=fresh or self.reached)
            time.sleep(wait)

    def _pump(self, exchange: Carried, line: ssl.SSLSocket, redial: Redial) -> None:
        with self._lock:
            floor = min(self._open)
        exchange.connected(floor)
        try:
            while exchange.stage is not Leg.DONE:
                self._moved[line] = time.monotonic()
                if out := exchange.next_out():
                    exchange.sent(line.send(out))
                    continue
                count = fill(line, exchange.next_in()[:_AT_ONCE])
                redial.heard()
                exchange.received(count)
        except (OSError, EOFError):
            if self._moved.get(line) == 0.0:
                raise TimeoutError(f"nothing moved for {QUIET_SECONDS:.0f} s") from None
            raise
        finally:
            self._moved.pop(line, None)

    def give_up_quiet(self, now: float) -> None:
        """Ends the connections on which nothing has moved for too long; what they carry goes on over new ones.

        Args:
            now: As `time.monotonic` counts.
        """
        for line, moved in list(self._moved.items()):
            if now - moved >= QUIET_SECONDS:
                self._moved[line] = 0.0
                shut(line)

    def _dial(self) -> ssl.SSLSocket:
        """Returns a line on which both ends have proved who they are, as far as this one can tell."""
        context = self._keys.context(answering=False)
        raw = socket.create_connection((self._address.host, self._address.port), OPENING_SECONDS)
        try:
            line = context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise
        try:
            if not self._keys.proves(line, self._party):
                raise ProtocolError(f"who answers there has not the key that the roster has for {self._party!r}")
            name = self._own.encode()
            line.sendall(GREETING.pack(MAGIC, self._address.mark, self._mark, len(name)) + name)
            tune(line)
        except BaseException:
            line.close()
            raise
        return line

    def _lost(self, why: str, *, reached: bool) -> PartyLost:
        hint = f". Does a firewall let {self._own!r} in there? 'fedray head start' prints what one has to"
        remedy = "" if reached else hint
        return PartyLost(
            f"party {self._party!r} has ended or cannot be reached at {self._address} (deliver): {why}{remedy}",
            party=self._party,
        )


def tune(line: socket.socket) -> None:
    """Has the kernel give a connection up soon whose other end is silent, and send what is short at once."""
    line.settimeout(None)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The kernel of the other machine answers, not its program: a party that computes, or is stopped, is not silent.
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _SILENT_SECONDS // 2)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_SECONDS * 1000)


def fill(line: ssl.SSLSocket, space: memoryview) -> int:
    """Fills a space with what comes, and returns how many bytes did: fewer where the line ends before.

    Raises:
        EOFError: The other end hung up, and nothing has come.
        OSError: The line is cut, likewise.
    """
    done, size = 0, len(space)
    # A loop of its own, with nothing in it: TLS hands out 16 KiB at a time.
    while done < size:
        try:
            count = line.read(size - done, space[done:])
        except OSError:
            if not done:
                raise
            break  # what has come counts; whoever reads on is told
        if not count:
            break
        done += int(count)
    if not done:
        raise EOFError("it hung up")
    return done


def _hung_up(line: ssl.SSLSocket | None) -> ssl.SSLSocket | None:
    """Closes a line; what stands for it from here on is None."""
    if line is not None:
        line.close()
    return None


def _told(line: ssl.SSLSocket | None, done: bytes) -> ssl.SSLSocket | None:
    """Says that an answer is there; that it is said matters to nobody but the other end's memory."""
    try:
        if line is not None:
            line.sendall(done)
    except OSError:
        return _hung_up(line)
    return line


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'refused').replace('_', ' ').lower()}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or "it does not answer"
