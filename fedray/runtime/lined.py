# SPDX-License-Identifier: Apache-2.0
"""Lined: which way a party's messages take. On its node a local socket, to others TCP and TLS, else Ray's calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fedray.party.context import Calls
from fedray.party.keys.line_keys import LineKeys
from fedray.party.parcel import pack
from fedray.runtime.far.calling import Address, FarRef
from fedray.runtime.far.lines import VARIABLE, FarLines
from fedray.runtime.far.moves import KEY, Moved, Moves
from fedray.runtime.gather import opened
from fedray.runtime.line import Answering, Failing, LineRef, Lines, as_it_is, reply
from fedray.runtime.wire import WirePart
from fedray.types import Key, PartyName, Ref, Value


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a party runs.

    Attributes:
        node: Its Ray node.
        near: Where parties of that node call it; empty where they cannot.
        far: Where those of other nodes do; None where they cannot.
        process: The number of its process.
        prints: Whether what it prints may leave it.
    """

    node: str
    near: str
    far: Address | None
    process: int = 0
    prints: bool = True


class LinedCalls:
    """The calls of a party whose messages take a line where there is one; all others go the usual way.

    Args:
        own: The party.
        calls: The usual way.
        answer: Answers a message as `Party.deliver` does: (call, key, sender, message) -> answer. Never raises.
        failed: Leads through the party's door what lines themselves have to say.
    """

    def __init__(self, own: PartyName, calls: Calls, answer: Answering, failed: Failing = as_it_is) -> None:
        self._own, self._calls, self._answer, self._failed = own, calls, answer, failed
        self._near = Lines.opened(own, answer, failed)
        self._far: FarLines | None = None
        self._moves: Moves | None = None

    def open_far(self, keys: LineKeys, host: Callable[[], str]) -> None:
        """Lets parties of other nodes call this one.

        Args:
            keys: What proves who is there.
            host: Tells this node's address, where `fedray` has not started it.

        Raises:
            PlanError: There is no port for that.
        """

        def answer(message: Any, caller: PartyName) -> list[WirePart]:
            return reply(self._own, partial(self.delivered, by_line=True), message, caller, self._failed)

        # A node that was started without fedray has set no ports aside.
        place = os.environ.get(VARIABLE) or f"{host()} 0-0"
        self._far = FarLines.opened(self._own, keys, answer, place, self._failed)
        if self._far is not None:
            self._moves = Moves(self._own, self._far, self._calls, self._failed)

    def whereabouts(self, node: str, *, prints: bool = True) -> Whereabouts:
        """Returns where this party is called; `node` is its node's name, `prints` whether its output may leave it."""
        near, far = self._near.address if self._near else "", self._far.address if self._far else None
        return Whereabouts(node, near, far, os.getpid(), prints)

    def connect(self, places: Mapping[PartyName, Whereabouts]) -> None:
        """Learns where every party is called, this one included."""
        here = places[self._own].node
        near = {name: place.near for name, place in places.items() if place.node == here}
        if self._near is not None:
            self._near.connect(near)
        if self._far is not None:
            away = {name: place.far for name, place in places.items() if place.far and name not in near}
            self._far.connect(away)

    def call(self, party: PartyName, method: str, *args: Any) -> Ref:
        """Calls a method of another party and returns at once; see `fedray.types.Transport.call`."""
        # Commands keep to Ray, which runs them in the order they were made; lines keep no order among themselves.
        for way in (self._near, self._far) if method == "deliver" else ():
            sent = None if way is None else way.send(party, *args)
            if sent is not None:
                return sent
        return self._calls.call(party, method, *args)

    def delivered(self, call: str, key: Key, sender: PartyName, message: Any, *, by_line: bool = False) -> Any:
        """Answers a message from another party, whichever way it came.

        Args:
            call: The driver's statement that it belongs to.
            key: The service that it is for.
            sender: Who sends it.
            message: What.
            by_line: Whether it came by a line to another node.
        """
        if key == KEY and self._moves is not None:
            return self._moves.answered(call, sender, message, by_line=by_line)
        return self._answer(call, key, sender, message)

    def handed(self, call: str, to: PartyName, value: Value) -> Any:
        """Returns what stands for a value that another party is to have, in the answer to the order that moves it.

        Args:
            call: The order.
            to: Who is to have it.
            value: What.

        Raises:
            PlanError: It cannot be pickled, and is no plain data.
        """
        if self._moves is None or self._far is None or not self._far.goes_to(to):
            return pack(value)
        return self._moves.keep(call, to, value)

    def get(self, refs: Sequence[Ref], timeout: float | None) -> list[Any]:
        """Returns the results in order, or raises what a call failed with."""
        if any(isinstance(ref, LineRef | FarRef) for ref in refs):
            # One after another, each with the whole time: services await one answer at a time.
            return [self._awaited(ref, timeout) for ref in refs]
        return [self._opened(answer) for answer in self._calls.get(refs, timeout)]

    def _awaited(self, ref: Ref, timeout: float | None) -> Any:
        if isinstance(ref, LineRef) and self._near is not None:
            return opened(self._near.take(ref, timeout))
        if isinstance(ref, FarRef):
            return opened(FarLines.take(ref, timeout))
        return self._opened(self._calls.get([ref], timeout)[0])

    def _opened(self, answer: Any) -> Any:
        """Returns an answer, or the value for which it stands."""
        return self._moves.taken(answer) if isinstance(answer, Moved) and self._moves is not None else answer
