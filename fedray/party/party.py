# SPDX-License-Identifier: Apache-2.0
"""A party: the object table, and the calls that are answered.

A plain class; knows no Ray and no framework. Transports call `handle` and nothing else. The methods return None (an
acknowledgement), something to make and keep, or something to let out, and `handle` leads the latter through the door:
there is no other way out of a party.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from fedray.errors import OWN_TYPE, PlanError
from fedray.party.answers import LedgerReading, Making, Outgoing, spread
from fedray.party.code_modules import of_a_library
from fedray.party.context import Calls, PartyContext, Reply
from fedray.party.door.egress import DRIVER, POLICIES, Egress, EgressPolicy, Kind
from fedray.party.door.journal import Journal, session_id
from fedray.party.failures import Failed, to_failure
from fedray.party.house.household import Household
from fedray.party.keys.line_keys import LineKeys
from fedray.party.parcel import Parcel, dtype_of, pack
from fedray.party.table import ObjectTable
from fedray.protocol.crypto.keys import public_bytes
from fedray.types import Failure, Key, PartyConfig, PartyName, Ref, Value

Lane: TypeAlias = Literal["command", "message", "watch"]

LANES: Mapping[str, Lane] = {
    # What changes the table runs in order: a call may use what the one before it has made.
    "run": "command",
    "create": "command",
    "invoke": "command",
    "serve": "command",
    "ask": "command",
    "export": "command",
    "adopt": "command",
    "describe": "command",
    "settle": "command",
    "release": "command",
    "ledger": "command",
    "introduce": "command",
    "install_roster": "command",
    # What other parties wait for must not queue behind a command that waits for them.
    "deliver": "message",
    "tell": "message",
    "mark": "message",  # of a cell, which may have been interrupted
    # Apart from both, so that news of a round comes through while all message threads are taken.
    "watch": "watch",
    # At the end of a session a command may still run, and nobody waits for it any more.
    "close_ledger": "watch",
}
"""Which lane a method runs in. Commands run one after another; messages run beside them and may block."""


def lane_widths(parties: int) -> dict[Lane, int]:
    """Returns the number of threads of each lane.

    Every party may block in two messages, one of its round and one of the keys for later rounds, while the driver sends
    another.
    """
    return {"command": 1, "message": 2 * parties + 2, "watch": 2}


class Party:
    """One party of a session.

    A party whose key folder is not as it should be starts, and refuses every call.

    Args:
        config: What the party is told at its start.
        calls: How its services reach the other parties.
        policy: What may leave, if not what `config.egress` says. (What it accepts of sums is in its credentials.)
        refusal: Why it must refuse every call, where something failed before it was made.
        handed: (statement, party, value) -> what stands for a value in an order that moves it there.
    """

    def __init__(
        self,
        config: PartyConfig,
        calls: Calls,
        policy: EgressPolicy | None = None,
        refusal: Exception | None = None,
        handed: Callable[[str, PartyName, Value], Any] = lambda _call, _to, value: pack(value),
    ) -> None:
        self.name = config.name
        self._calls, self._handed = calls, handed
        self._household = Household(config, refusal)
        config, self._refusal = self._household.config, self._household.refusal
        self._text = config.egress != "strict"
        self._own = own = self._household.own
        self._journal = Journal(self.name, own.identity, own.keep)
        self._mark = os.urandom(16)  # of this process alone, so that no two sessions have the same name
        self._egress = Egress(self.name, policy or POLICIES[config.egress](), self._journal)
        self._table = ObjectTable(self.name)
        self._context = PartyContext(
            *(config, own.identity, own.policy, own.memory, own.commitments, self._table, self._egress, calls),
            folder=own.folder,
            parts=self._household.parts,
        )

    def printed(self, stream: str, nbytes: int) -> bool:
        """Returns whether output of the party's process may leave it, and writes it down.

        Args:
            stream: What was printed to.
            nbytes: How much.
        """
        try:
            self._egress.note(DRIVER, Kind.LOG, stream, "text", nbytes)
        except Exception:  # refused; or the ledger is closed, or cannot be written
            return False
        return True

    def mark(self, text: str) -> None:
        """Prints a text to both streams, by the way that all output goes; what stands before it came before it."""
        for stream in (sys.stdout, sys.stderr):
            print(text, file=stream, flush=True)

    def line_keys(self) -> LineKeys:
        """Returns what proves who is at the other end of its lines: its own key, and those that it accepts."""
        return LineKeys(self.name, self._own.identity, self._context.roster)

    def close(self) -> None:
        """Closes the ledger and lets go of the party's files; nothing leaves from here on."""
        self._journal.close(self._context.roster)
        self._household.close()

    def handle(self, method: str, call: str, *args: Any) -> Any:
        """Answers one call; never raises.

        Args:
            method: One of `LANES`.
            call: The driver's statement that asked, e.g. `"17:train"`; the ledger keeps it.
            *args: The method's arguments.

        Returns:
            None, a value that has passed the door, or a `Failure` that has passed it as kind ERROR.
        """
        # First of all: a failure, too, goes to whoever asked, and the ledger names them.
        to = self._addressee(method, args)
        if self._refusal is not None:
            return self.fail(call, to_failure(self._refusal, self.name, _function(call), text=self._text), to)
        try:
            answer: Making | Outgoing | LedgerReading | None = self._answering(method)(*args)
            if isinstance(answer, Making):
                return self._make(call, answer)
            return None if answer is None else self._depart(call, answer)
        except BaseException as error:  # whatever it is, the caller must learn of it
            return self.fail(call, to_failure(error, self.name, _function(call), text=self._text), to)

    def _answering(self, method: str) -> Callable[..., Any]:
        if method not in LANES:
            raise PlanError(f"party {self.name!r} has no method {method!r}")
        answering: Callable[..., Any] = getattr(self, method)
        return answering

    def _make(self, call: str, making: Making) -> None:
        """Stores what a command makes, or its failure, under every key."""
        try:
            value = making.make()
            values = (value,) if len(making.outs) == 1 else spread(value, len(making.outs))
        except BaseException as error:  # the failure takes the value's place until somebody asks for it
            failure = to_failure(error, self.name, _function(call), text=self._text)
            if not making.outs:
                raise Failed(failure) from error
            values = (failure,) * len(making.outs)
        for key, item in zip(making.outs, values, strict=True):
            self._table.put(key, item)

    def _depart(self, call: str, outgoing: Outgoing | LedgerReading) -> Any:
        if isinstance(outgoing, LedgerReading):
            self._egress.send(outgoing.lines, to=DRIVER, kind=Kind.LEDGER, call=call)
            return outgoing.read()
        value = self._egress.send(outgoing.value, to=outgoing.to, kind=outgoing.kind, call=call)
        if outgoing.kind is not Kind.RAW:
            return value
        # Raw values are the user's own, of any class: the driver gets them pickled.
        return pack(value) if outgoing.to == DRIVER else self._handed(call, outgoing.to, value)

    def fail(self, call: str, failure: Failure, to: PartyName) -> Failure:
        """Leads a failure through the door; returns it, or what is told in its place.

        Args:
            call: What asked.
            failure: What is to be told.
            to: Whom.
        """
        try:
            return self._egress.send(failure, to=to, kind=Kind.ERROR, call=call)
        except Exception:  # a policy that lets not even errors leave, or a ledger that cannot be written
            # Not through the door, since that is shut: a text of our own, with nothing of the error in it.
            if self._own.unwritten:
                return Failure("ProtocolError", self._own.unwritten, self.name)
            return Failure("EgressDenied", f"party {self.name!r} lets nothing leave, not even this error", self.name)

    @staticmethod
    def _addressee(method: str, args: tuple[Any, ...]) -> PartyName:
        """Who gets the answer: the sender of a message, whom an export is for, else the driver."""
        if method in ("deliver", "export") and len(args) > 1:
            return str(args[1])
        return DRIVER

    # Commands: the driver's, one after another.

    def run(self, outs: Sequence[Key], payload: Parcel) -> Making:
        """Calls a function and stores its result, or its several results; payload: (function, args, kwargs)."""

        def call_function() -> Value:
            function, args, kwargs = self._open(payload)
            return function(*args, **kwargs)

        return Making(outs, call_function)

    def create(self, out: Key, payload: Parcel) -> Making:
        """Builds an object of a class and stores it; payload: (class, args, kwargs)."""
        return self.run((out,), payload)

    def invoke(self, outs: Sequence[Key], key: Key, method: str, payload: Parcel) -> Making:
        """Calls a method of a stored object and stores what it returns.

        Args:
            outs: Keys of the results.
            key: The object.
            method: A public method of it.
            payload: (args, kwargs).
        """

        def call_method() -> Value:
            args, kwargs = self._open(payload)
            return _public(self._table.get(key), method)(*args, **kwargs)

        return Making(outs, call_method)

    def serve(self, out: Key, payload: Parcel) -> Making:
        """Builds a service as `cls(context, *args)` and stores it; payload: (cls, args)."""

        def build() -> Value:
            cls, args = self._open(payload)
            return cls(self._context, *args)

        return Making((out,), build)

    def ask(self, key: Key, method: str, payload: Parcel) -> Outgoing | None:
        """Calls a method of a service.

        Args:
            key: The service.
            method: A public method of it.
            payload: Its arguments.
        """
        return _reply(_public(self._table.get(key), method)(*self._open(payload)), DRIVER)

    def export(self, key: Key, to: PartyName) -> Outgoing:
        """Returns an object's value, for another party or the driver."""
        return Outgoing(self._table.get(key), to, Kind.RAW)

    def adopt(self, out: Key, refs: Sequence[Ref]) -> Making:
        """Stores the value that another party exports; refs holds the one reference to that call."""
        # Fetched while it is made: if the other party fails, its failure takes the value's place here, too.
        return Making((out,), lambda: self._calls.get(refs, None)[0])

    def describe(self, key: Key) -> Outgoing:
        """Returns (shape, dtype) of an array, else (length or None, name of the type).

        Under strict egress nothing of an object of a class of the user's own, which may say what it likes.
        """
        value = self._table.get(key)
        if not self._text and not of_a_library(type(value)):
            return Outgoing((None, OWN_TYPE), DRIVER, Kind.SHAPE)
        # By what it looks like: tensors and data frames of any library count as arrays, and none is imported here.
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if shape is not None and dtype is not None:
            return Outgoing((tuple(int(n) for n in shape), dtype_of(value)), DRIVER, Kind.SHAPE)
        length = len(value) if hasattr(value, "__len__") else None
        return Outgoing((length, type(value).__name__), DRIVER, Kind.SHAPE)

    def settle(self, keys: Sequence[Key]) -> None:
        """Returns if all objects are there, and fails with the first failure among them otherwise."""
        for key in keys:
            self._table.get(key)

    def release(self, keys: Sequence[Key]) -> None:
        """Forgets objects."""
        self._table.drop(keys)

    def ledger(self, first: int | None, reading: int) -> LedgerReading:
        """Returns a LedgerPart; the reading itself is its last entry, once it is the last part.

        Args:
            first: Number of the first entry wanted; None for totals alone.
            reading: Number of the reading, above those of all before.

        Raises:
            PlanError: A reading of that number, or of a later one, has been given.
        """
        return self._reading(first, reading, close=False)

    def close_ledger(self, first: int | None, reading: int) -> LedgerReading:
        """Returns a LedgerPart as `ledger` does; with the last one, nothing leaves this party any more.

        Args:
            first: As in `ledger`.
            reading: As in `ledger`.

        Raises:
            PlanError: As `ledger`.
        """
        return self._reading(first, reading, close=True)

    def _reading(self, first: int | None, reading: int, *, close: bool) -> LedgerReading:
        roster = self._context.roster
        left = self._journal.left(first, reading)
        return LedgerReading(left, lambda: self._journal.part(first, roster, reading, close=close))

    def introduce(self) -> Outgoing:
        """Returns the party's public identity key, 32 bytes, and its mark, 16 bytes that name the session with it."""
        return Outgoing((public_bytes(self._own.identity), self._mark), DRIVER, Kind.HELLO)

    def install_roster(self, roster: Mapping[PartyName, bytes], marks: Mapping[PartyName, bytes]) -> Outgoing:
        """Keeps the public keys of all parties, and returns this party's settings.

        Args:
            roster: Public identity keys of all parties.
            marks: Their marks, by which the session is named in the ledger.

        Returns:
            Those of its policy, and what its operator's `party.toml` has put in force; None without one.

        Raises:
            PlanError: This party's own key or mark is missing or was changed, or a key is not the one that its operator
                knows.
        """
        # The one key that a party can check without any help.
        if roster.get(self.name) != public_bytes(self._own.identity):
            raise PlanError(f"party {self.name!r}: the roster does not hold this party's own key")
        if marks.keys() != roster.keys() or marks[self.name] != self._mark:
            raise PlanError(f"party {self.name!r}: the marks do not hold this party's own, or are not of the roster")
        self._own.check(roster)
        sid = session_id(roster, marks)
        self._journal.begin(sid, roster)
        self._own.commitments.begin(sid)
        # Filled and not replaced: services hold this very dict.
        self._context.roster.clear()
        self._context.roster.update(roster)
        return Outgoing((self._own.policy.settings(), self._household.told), DRIVER, Kind.HELLO)

    # Messages: other parties', or the driver's while a command runs.

    def deliver(self, key: Key, sender: PartyName, message: Any) -> Outgoing | None:
        """Hands a message to a service; its answer goes to the sender.

        Args:
            key: The service.
            sender: The party that sends.
            message: Whatever these two services have agreed on.
        """
        # It waits for the service to appear: the sender may be quicker than the driver's call that builds it.
        return _reply(self._table.await_get(key).deliver(sender, message), sender)

    def tell(self, key: Key, method: str, payload: Parcel) -> Outgoing | None:
        """Calls a method of a service while a command runs.

        Args:
            key: The service.
            method: A public method of it.
            payload: Its arguments.
        """
        return _reply(_public(self._table.await_get(key), method)(*self._open(payload)), DRIVER)

    def watch(self, key: Key, payload: Parcel) -> Outgoing | None:
        """Asks a service for news and waits until there is some; payload: args."""
        return _reply(self._table.await_get(key).watch(*self._open(payload)), DRIVER)

    def _open(self, payload: Parcel) -> Any:
        return self._table.fill(payload.open())


def _function(call: str) -> str:
    """Returns the name in a statement such as `"17:train"`."""
    return call.partition(":")[2] or call


def _public(target: Any, method: str) -> Callable[..., Any]:
    # A name from outside may reach what a class offers, and not what it keeps to itself.
    if method.startswith("_"):
        raise PlanError(f"method {method!r} is private to {type(target).__name__}")
    found: Callable[..., Any] = getattr(target, method)
    return found


def _reply(reply: Reply | None, to: PartyName) -> Outgoing | None:
    if reply is None:
        return None
    if not isinstance(reply, Reply):
        raise PlanError(f"a service answers with a Reply or None, found {type(reply).__name__}")
    return Outgoing(reply.value, to, Kind(reply.kind))
