# SPDX-License-Identifier: Apache-2.0
"""Moves: what `.to()` takes from a party to one of another node, by the line between the two and by no other way.

Its owner keeps a copy of the value, as it was when the driver's order came, and answers the order with a `Moved`, which
stands for it. Whoever gets that fetches the value. Where a firewall lets it in at the owner's node it does so itself;
else it asks its owner, over the transport's own calls, to bring it. Knows no door: what comes here has passed it.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fedray.errors import EncodingError, PartyLost, ProtocolError, shown
from fedray.party.context import Calls
from fedray.party.failures import to_failure
from fedray.party.parcel import Parcel, pack
from fedray.runtime.far.lines import FarLines
from fedray.runtime.gather import opened
from fedray.runtime.line import Failing, as_it_is
from fedray.runtime.wire import read, write
from fedray.types import Key, PartyName, Value

KEY: Key = "moves"
"""In the place of a service's key: those that the driver gives out have a dash and a number."""

BRING, FETCH = "bring", "fetch"

KEPT_SECONDS = 3600.0
"""How long a value is kept that nobody fetches: its receiver may have ended."""

_MOST_BUFFERS = 1 << 20

_AROUND = "-" * 2000  # longer than a call, and the name of its sender

Content: TypeAlias = tuple[Any, ...]
"""A value on its way: itself where it is plain data, else the three parts of its pickle."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Stands for a value that its owner keeps for another party.

    Attributes:
        call: The driver's statement that moves it.
        owner: Who keeps it.
        ticket: By which it is asked for.
    """

    call: str
    owner: PartyName
    ticket: bytes


class Moves:
    """One party's values on their way to parties of other nodes, and theirs to it.

    Args:
        own: The party.
        far: Its lines.
        calls: The transport's own way to the others.
        failed: Leads through the party's door what this itself has to say.
    """

    def __init__(self, own: PartyName, far: FarLines, calls: Calls, failed: Failing = as_it_is) -> None:
        self._own, self._far, self._calls, self._failed = own, far, calls, failed
        self._lock = threading.Lock()
        # What is kept for whom since when; and what has been asked for, and by now come or not.
        self._kept: dict[bytes, tuple[float, PartyName, Content]] = {}
        self._timer: threading.Timer | None = None
        self._awaited: dict[tuple[PartyName, bytes], Content | None] = {}

    def keep(self, call: str, to: PartyName, value: Value) -> Moved:
        """Keeps a value, which has passed the door, for another party; returns what stands for it.

        Args:
            call: The driver's statement that moves it.
            to: For whom.
            value: What.

        Raises:
            PlanError: It cannot be pickled, and is no plain data.
        """
        moved, now = Moved(call, self._own, secrets.token_bytes(16)), time.monotonic()
        content = content_of(value)
        with self._lock:
            self._kept[moved.ticket] = now, to, content
        self._forget()
        return moved

    def _forget(self) -> None:
        """Lets go of what nobody has fetched in an hour, longer than any line tries; and looks again in an hour."""
        now = time.monotonic()
        with self._lock:
            self._kept = {key: kept for key, kept in self._kept.items() if now - kept[0] < KEPT_SECONDS}
            if self._kept and self._timer is None:
                self._timer = threading.Timer(KEPT_SECONDS, self._forget_anew)
                self._timer.daemon = True
                self._timer.start()

    def _forget_anew(self) -> None:
        with self._lock:
            self._timer = None
        self._forget()

    def taken(self, moved: Moved) -> Value:
        """Returns the value that something stands for.

        Raises:
            PartyLost: Its owner has ended or cannot be reached.
            ProtocolError: Neither of the two can call the other.
            EncodingError: What came is no value.
        """
        content, why = (None, "") if self._far.reached(moved.owner) else self._brought(moved)
        if content is None:
            try:
                content = self._said(moved.call, moved.owner, (FETCH, moved.ticket))
            except PartyLost as error:
                if not why:
                    raise
                # Both live, as far as anybody can tell: what stands between them is to be mended, not the session.
                raise ProtocolError(
                    f"party {self._own!r} cannot get the value that {moved.owner!r} moves to it. There: {shown(why)}. "
                    f"Here: {error}. One of the two has to be let in at the other's ports for lines, by its firewall"
                ) from None
        return value_of(content)

    def _brought(self, moved: Moved) -> tuple[Content | None, str]:
        """Asks a value's owner to bring it. Returns it, or why it has to be fetched."""
        place = moved.owner, moved.ticket
        with self._lock:
            self._awaited[place] = None
        try:
            # By Ray, which tells at once if the owner has ended; of the value nothing goes that way.
            asked = self._calls.call(moved.owner, "deliver", moved.call, KEY, self._own, moved.ticket)
            why = str(self._calls.get([asked], None)[0] or "")
        finally:
            with self._lock:
                content = self._awaited.pop(place)
        return content, why

    def answered(self, call: str, party: PartyName, body: Any, *, by_line: bool) -> Any:
        """Answers what another party says of a move; never raises.

        Args:
            call: The driver's statement that moves the value.
            party: Who says it.
            body: What.
            by_line: Whether it came by a line, on which that party has proved who it is: values go no other way.
        """
        try:
            return self._answer(party, body) if by_line else self._bring(call, party, body)
        except Exception as error:  # whatever it is, whoever waits must learn of it
            return self._failed(call, to_failure(error, self._own, "to", text=False), party)

    def _answer(self, party: PartyName, body: Any) -> Any:
        match body:
            case (str(what), bytes(ticket)) if what == FETCH:
                return self._let_go(party, ticket)
            case (str(what), bytes(ticket), content) if what == BRING:
                return self._take_in(party, ticket, content)
        raise ProtocolError(f"party {self._own!r}: {party!r} says of a move what nobody says")

    def _bring(self, call: str, party: PartyName, ticket: bytes) -> str | None:
        """Brings a value to whoever asks for it by the transport's own calls; returns why not, if so."""
        # Who calls here is not called: so a server, which all parties call, knocks at nobody's door.
        if self._far.calls_here(party) and not self._far.reached(party):
            return f"party {self._own!r} does not call {party!r}, which calls it"
        why = self._far.knock(party)
        if why:
            return why
        self._said(call, party, (BRING, ticket, self._let_go(party, ticket)))
        return None

    def _said(self, call: str, party: PartyName, body: Any) -> Any:
        """Says something to another party over the line; returns what it answers."""
        sent = self._far.send(party, call, KEY, self._own, body)
        if sent is None:
            raise ProtocolError(f"party {self._own!r} knows no line to {party!r}")
        return opened(self._far.take(sent, None))

    def _let_go(self, party: PartyName, ticket: bytes) -> Content:
        with self._lock:
            kept = self._kept.get(ticket)
            if kept is not None and kept[1] == party:
                return self._kept.pop(ticket)[2]
        raise ProtocolError(f"party {self._own!r} keeps no such value for {party!r}")

    def _take_in(self, party: PartyName, ticket: bytes, content: Any) -> None:
        with self._lock:
            # Only what was asked for: nobody fills another party's memory with what it does not want.
            if (party, ticket) not in self._awaited:
                raise ProtocolError(f"party {self._own!r} has not asked {party!r} for this value")
            self._awaited[party, ticket] = content


def content_of(value: Value) -> Content:
    """Returns a copy of a value as it travels; what is no plain data, pickled.

    Raises:
        PlanError: It is none, and cannot be pickled.
    """
    try:
        if not _shares(value, set()):
            # With what will be around it: it must not be too long only then.
            parts = write((_AROUND, b"", (value,)))
            return cast("Content", read([bytes(part) for part in parts])[-1])
    except (EncodingError, RecursionError):
        pass
    parcel = pack(value)
    sizes = np.array([buffer.nbytes for buffer in parcel.buffers], np.int64)
    # In one piece, of however many it consists: a message has a thousand parts at most.
    return parcel.head, sizes, np.concatenate([np.empty(0, np.uint8), *parcel.buffers])


def value_of(content: Any) -> Value:
    """Returns a fresh, writable value from what has come.

    Raises:
        EncodingError: It is none.
    """
    match content:
        case (value,):
            return _writable(value)
        case (bytes(head), np.ndarray() as sizes, np.ndarray() as joined) if _fit(sizes, joined):
            return Parcel(head, tuple(np.split(joined, np.cumsum(sizes)[:-1]))).open()
    raise EncodingError("what came is no value that was moved")


def _fit(sizes: NDArray[Any], joined: NDArray[Any]) -> bool:
    """Returns whether these are sizes of the parts of a piece: each of them takes memory, whatever it says."""
    numbers = sizes.dtype == np.int64 and sizes.ndim == 1 and len(sizes) <= _MOST_BUFFERS
    return bool(numbers and joined.ndim == 1 and np.all(sizes >= 0) and sizes.sum() == joined.nbytes)


def _shares(value: Value, seen: set[int]) -> bool:
    """Returns whether something is in a value twice that can be changed: plain data would have two of it."""
    if not isinstance(value, list | tuple | dict | np.ndarray):
        return False
    if id(value) in seen and type(value) is not tuple:
        return True
    seen.add(id(value))
    inner = value.values() if isinstance(value, dict) else () if isinstance(value, np.ndarray) else value
    return any(_shares(one, seen) for one in inner)


def _writable(value: Value) -> Value:
    """Makes the arrays of plain data that has come writable: nobody else has their memory."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = True
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _writable(one)
    return value
