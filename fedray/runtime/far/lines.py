# SPDX-License-Identifier: Apache-2.0
"""Lines between nodes: messages between parties over TCP and TLS, which go on where a link was cut.

Who has a message dials whoever it is for, and the answer comes back on the same connection: a server calls nobody. Here
is the end that is called; the other one is in `fedray/runtime/far/calling.py`. Needs Linux.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fedray.errors import EncodingError, FedRayError, PartyTimeout, PlanError, ProtocolError
from fedray.party.keys.line_keys import LineKeys
from fedray.runtime.far import calling
from fedray.runtime.far.calling import GREETING, MAGIC, OPENING_SECONDS, Address, FarParty, FarRef, fill, tune
from fedray.runtime.far.inbox import Held, Inbox, Serving
from fedray.runtime.far.strangers import Strangers, exactly, shut
from fedray.runtime.line import Failing, as_it_is
from fedray.runtime.wire import WirePart, read, write
from fedray.types import Failure, Key, PartyName

VARIABLE = "FEDRAY_LINES"
"""Where a node's parties may be called by those of other nodes: `address first-last`, of its block of ports."""

_PLACE = re.compile(r"(\S+) (\d{1,5})-(\d{1,5})")
_BREATH_SECONDS = 0.05  # between two tries to accept; without it a process without descriptors would spin
_MOST_LINES = 64  # of one caller, which has one for each message under way


class FarLines:
    """One party's lines to and from other nodes.

    Args:
        own: Whose they are.
        keys: By which both ends prove who they are.
        answer: (message, who has sent it) -> parts of the answer. Never raises but EncodingError, for no message.
        place: As in `VARIABLE`; `0-0` for any port.
        failed: Leads through the party's door what this itself has to say: (call, failure, to) -> failure.

    Attributes:
        address: Where this party is called.

    Raises:
        PlanError: None of the ports is free, or the address is not this machine's.
    """

    def __init__(
        self,
        own: PartyName,
        keys: LineKeys,
        answer: Callable[[Any, PartyName], list[WirePart]],
        place: str,
        failed: Failing = as_it_is,
    ) -> None:
        self._own, self._keys, self._answer, self._failed = own, keys, answer, failed
        self._parties: dict[PartyName, FarParty] = {}
        self._inbox, self._changed = Inbox(), threading.Condition()
        self._strangers = Strangers()
        self._lines = Counter[PartyName]()
        self._listener = _listen(own, place)
        host, port = self._listener.getsockname()[:2]
        self.address = Address(host, port, secrets.token_bytes(16), keys.certificate)
        self._open, self._watched, self._closed = True, False, threading.Event()
        self._marks: dict[PartyName, bytes] = {}
        threading.Thread(target=self._accept, name="fedray-far-lines", daemon=True).start()

    @classmethod
    def opened(
        cls,
        own: PartyName,
        keys: LineKeys,
        answer: Callable[[Any, PartyName], list[WirePart]],
        place: str,
        failed: Failing = as_it_is,
    ) -> FarLines | None:
        """Returns a party's lines, or None where the system has none.

        Args:
            own: As in `FarLines`.
            keys: As in `FarLines`.
            answer: As in `FarLines`.
            place: As in `FarLines`.
            failed: As in `FarLines`.

        Raises:
            PlanError: As `FarLines`.
        """
        return cls(own, keys, answer, place, failed) if sys.platform == "linux" else None

    def connect(self, addresses: Mapping[PartyName, Address]) -> None:
        """Learns where the parties of other nodes are called; each is when there is something for it."""
        self._keys.learn({party: address.certificate for party, address in addresses.items()})
        mark = self.address.mark
        self._parties = {
            party: FarParty(self._own, party, address, self._keys, mark) for party, address in addresses.items()
        }
        if not addresses:
            self.close()
        elif not self._watched:
            self._watched = True
            threading.Thread(target=self._watch, name="fedray-far-watch", daemon=True).start()

    def close(self) -> None:
        """Takes no more calls."""
        self._open = False
        self._closed.set()
        shut(self._listener)  # closing alone does not wake the thread that waits there
        self._listener.close()

    def send(self, party: PartyName, call: str, key: Key, sender: PartyName, message: Any) -> FarRef | None:
        """Sends a message to a service of a party and returns at once; None where it has to go another way.

        Args:
            party: Whom it is for.
            call: The driver's statement that it belongs to.
            key: The service, in that party's object table.
            sender: Who sends it.
            message: What `fedray.runtime.wire` can write.
        """
        if party not in self._parties:
            return None
        try:
            parts = write((call, key, sender, message))
        except EncodingError:
            return None
        return self._parties[party].send(parts)

    def goes_to(self, party: PartyName) -> bool:
        """Returns whether a party is called by this way."""
        return party in self._parties

    def reached(self, party: PartyName) -> bool:
        """Returns whether a party was ever reached from here."""
        return party in self._parties and self._parties[party].reached

    def calls_here(self, party: PartyName) -> bool:
        """Returns whether a party has ever called here."""
        return party in self._lines

    def knock(self, party: PartyName) -> str:
        """Tries once to reach a party that was not yet; returns why that failed, else nothing."""
        return self._parties[party].knock()

    @staticmethod
    def take(ref: FarRef, timeout: float | None) -> Any:
        """Returns the answer to a message.

        Args:
            ref: The message.
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            PartyLost: The party has ended, or was not reached for too long.
            PartyTimeout: `timeout` seconds passed.
            EncodingError: The answer cannot be read.
        """
        if not ref.ended.wait(timeout):
            raise PartyTimeout(f"no answer within {timeout} seconds: {ref}")
        if ref.error is not None:
            raise ref.error
        return ref.answer

    def _watch(self) -> None:
        while not self._closed.wait(calling.QUIET_SECONDS / 4):
            for party in list(self._parties.values()):
                party.give_up_quiet(time.monotonic())

    def _accept(self) -> None:
        while self._open:
            try:
                line, _ = self._listener.accept()
            except OSError:  # such as no file descriptor to spare: whoever calls waits until there is one
                time.sleep(_BREATH_SECONDS)
                continue
            place = self._strangers.enter(line)
            # A thread for each line, since a message may block until the round is over.
            try:
                threading.Thread(target=self._admit, args=(line, place), name="fedray-far-line", daemon=True).start()
            except RuntimeError:  # no thread to spare: whoever called calls again
                self._strangers.leave(place)
                line.close()
                time.sleep(_BREATH_SECONDS)

    def _admit(self, raw: socket.socket, place: int) -> None:
        """Serves a caller who proves to be a party of the session and means this process; hangs up on all others."""
        with contextlib.closing(raw):
            try:
                raw.settimeout(OPENING_SECONDS)
                context = self._keys.context(answering=True)
                line = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
            except (OSError, ValueError, FedRayError):
                self._strangers.leave(place)
                return
        with line:
            try:
                self._strangers.becomes(place, line)
                line.do_handshake()
                caller = self._greeted(line)
                tune(line)
            except (OSError, EOFError, ValueError, FedRayError):
                return
            finally:
                self._strangers.leave(place)
            # The socket's own method: that of TLS would take the connection away from under the thread that reads.
            serving = Serving(self._inbox, caller, lambda: shut(line))
            with contextlib.suppress(OSError, EOFError, EncodingError), self._one_more(caller):
                self._serve(line, serving)
        if serving.works and serving.held is not None:  # its message has come, whatever became of the line
            self._work(serving, serving.held)

    @contextlib.contextmanager
    def _one_more(self, caller: PartyName) -> Iterator[None]:
        """Counts the lines of a caller, each of which has a thread here.

        Raises:
            EncodingError: It has too many.
        """
        with self._changed:
            if self._lines[caller] >= _MOST_LINES:
                raise EncodingError(f"{caller} has {_MOST_LINES} lines already")
            self._lines[caller] += 1
        try:
            yield
        finally:
            with self._changed:
                self._lines[caller] -= 1

    def _greeted(self, line: ssl.SSLSocket) -> PartyName:
        deadline = time.monotonic() + OPENING_SECONDS
        magic, mark, own_mark, length = GREETING.unpack(exactly(line, GREETING.size, deadline))
        caller = exactly(line, length, deadline).decode()
        # Of this very process: what was meant for another session, or one before, is not for this one.
        if magic != MAGIC or mark != self.address.mark:
            raise ProtocolError("another program, version or session is called")
        if not self._keys.proves(line, caller):
            raise ProtocolError("who calls has not the key of the party that it says it is")
        # Another process counts its messages from one again, and would be given the first one's answers.
        if self._marks.setdefault(caller, own_mark) != own_mark:
            raise ProtocolError("another process of this party has called before")
        return caller

    def _serve(self, line: ssl.SSLSocket, serving: Serving) -> None:
        """Answers one line's messages, one after another, until the other side closes it or sends nonsense."""
        while not serving.stale:
            # The lock is for what the lines of a caller share; it is never held while bytes are under way.
            with self._changed:
                out, held = serving.next_out(), serving.held if serving.works else None
                idle = serving.idle
            if out:
                count = line.send(out)
                with self._changed:
                    serving.sent(count)
            elif held is not None:
                self._work(serving, held)
            elif idle:  # it came over another line, whose thread works on it
                with self._changed:
                    self._changed.wait_for(lambda: not serving.idle or serving.stale)
            else:
                self._receive(line, serving)

    def _receive(self, line: ssl.SSLSocket, serving: Serving) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not serving.held_up or serving.stale)
            space, serving.reads = serving.next_in(), True
        count = 0
        try:
            count = fill(line, space)
        finally:
            with self._changed:
                serving.reads = False
                if count:
                    serving.received(count)
                    while serving.hungry and line.pending():  # the head comes in small pieces, of one record of TLS
                        serving.received(fill(line, serving.next_in()[: line.pending()]))
                self._changed.notify_all()  # a line that waits may have been taken over, or go on

    def _work(self, serving: Serving, held: Held) -> None:
        serving.works = False
        try:
            parts = self._answer(read(held.take()), held.caller)
        except Exception as error:  # whatever it is, whoever waits must learn of it
            # Told, and not hung up on: it would be sent again.
            why = error if isinstance(error, EncodingError) else type(error).__name__
            failure = Failure("ProtocolError", f"party {self._own!r}: {why}", self._own)
            parts = write(self._failed("line", failure, held.caller))
        with self._changed:
            self._inbox.answer(held, parts)
            self._changed.notify_all()


def _listen(own: PartyName, place: str) -> socket.socket:
    found = _PLACE.fullmatch(place)
    if found is None:
        raise PlanError(f"{VARIABLE}: expected 'ADDRESS FIRST-LAST', found {place!r}")
    host, first, last = found[1], int(found[2]), int(found[3])
    why = "there is none"
    for port in range(first, last + 1):
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            # After a process that has ended, the kernel would keep its port for a minute.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            listener.close()
            why = error.strerror or str(error)
            continue
        return listener
    raise PlanError(f"party {own!r} has no port for lines to other nodes at {host}, {first}-{last}: {why}")
