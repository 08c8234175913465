# SPDX-License-Identifier: Apache-2.0
"""Vault: one party's part in an SPU. Shares out its own values, keeps others' shares, computes on them, gives them up.

There is one in every party: owners deal, compute parties hold. Shares are objects of the party's table, which knows
them as `Secret`s and lets none of them out; what leaves goes through here. Knows no program's meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fedray.backends.spu.program import Program, RuntimeSettings
from fedray.backends.spu.runtime import SpuRuntime
from fedray.errors import PlanError, ProtocolError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.failures import to_failure
from fedray.party.records import AreYouThere, DealtShares, GivenShares, SharesFailure, unknown
from fedray.party.rounds.attendance import Attendance
from fedray.party.rounds.barrier import Barrier
from fedray.party.rounds.news import News
from fedray.party.rounds.waiting_room import WaitingRoom
from fedray.party.table import replace
from fedray.protocol.config import Config
from fedray.protocol.scheme import Joining
from fedray.protocol.spu.dealer import Dealer
from fedray.protocol.spu.form import Form, Layout
from fedray.protocol.spu.secret import Linear, Secret, combine
from fedray.types import Failure, Key, PartyName, Value

PING_SECONDS = 2.0
"""How long a party waits for shares before it asks whether their sender is still there."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Stands, inside the arguments of a call, for a value that the compute parties hold.

    Attributes:
        key: Its name in their tables.
        owner: Who deals it, if its shares may still be on their way.
    """

    key: Key
    owner: PartyName | None = None


_Telling: TypeAlias = DealtShares | GivenShares | SharesFailure

_CALLS: Mapping[type[_Telling], str] = {DealtShares: "shares", GivenShares: "part", SharesFailure: "failed"}
"""What a message is called in the ledger."""

OPERATIONS: Mapping[str, Callable[..., Secret]] = {
    "negative": Linear.negative,
    "add": Linear.add,
    "add_public": Linear.add_public,
    "multiply_public": Linear.multiply_public,
    "total": Linear.total,
    "mean": Linear.mean,
    "stack": lambda linear, axis, *secrets: linear.join(secrets, axis, stacked=True),
    "concatenate": lambda linear, axis, *secrets: linear.join(secrets, axis, stacked=False),
}
"""What a compute party can do to shares on its own."""


class Vault:
    """One party's end of one SPU.

    Args:
        context: The party this service lives in.
        layout: How shares lie.
        bound: Largest absolute number of a value that is dealt; None for the layout's default.
    """

    def __init__(self, context: PartyContext, layout: Layout, bound: float | None) -> None:
        self._context, self._layout, self._bound = context, layout, bound
        self._vaults: Mapping[PartyName, Key] = {}
        self._computing: tuple[PartyName, ...] = ()
        self._joining: Joining[Dealer] | None = None
        self._dealer: Dealer | None = None
        self._linear: Linear | None = None
        self._runtime: SpuRuntime | None = None
        self._arrivals = Barrier(Attendance(PING_SECONDS))
        self._room = WaitingRoom(self._arrivals)

    # Set-up.

    def hello(self, config: bytes, names: Sequence[PartyName]) -> Reply:
        """Checks a proposed Config and returns the signed Hello."""
        proposed = Config.decode(config)
        self._joining = Dealer.joining(proposed, self._context.member(names), self._layout)
        self._computing = proposed.receivers
        return Reply(Kind.HELLO, self._joining.hello())

    def confirm(self, hellos: Sequence[bytes]) -> Reply:
        """Checks everybody's Hello and returns the signed Confirm."""
        return Reply(Kind.HELLO, self._invited().confirm(hellos))

    def start(self, confirms: Sequence[bytes], vaults: Mapping[PartyName, Key]) -> None:
        """Checks everybody's Confirm; values may be dealt.

        Args:
            confirms: One per party, in roster order.
            vaults: Key of every party's vault.
        """
        self._dealer = self._invited().start(confirms)
        self._joining = None
        if self._dealer.number is not None:
            self._linear = Linear(self._layout, self._dealer.number)
        self._vaults = vaults

    # The driver's words.

    def deal(self, source: Key, out: Key) -> None:
        """Splits an object of this party, and sends every compute party its shares."""
        try:
            form, messages = self._deals().deal(out, self._context.value(source), self._bound)
        except BaseException as error:  # whoever uses the shares must learn of it
            failed = SharesFailure(out, self._failure(error, "to(spu)"))
            for party in self._computing:
                self._tell(party, failed, Kind.ERROR)
            raise
        for party, shares in messages.items():
            self._tell(party, DealtShares(out, form.encode(), shares), Kind.SHARE)

    def apply(self, out: Key, operation: str, args: Sequence[Any], inputs: Sequence[Shared]) -> None:
        """Applies one of `OPERATIONS` and keeps the result, or its failure.

        Args:
            out: Where to.
            operation: Which one.
            args: Its public arguments.
            inputs: Its shared ones.
        """
        with self._making([out], operation):
            secrets = [self._secret(one) for one in inputs]
            leading = () if operation in ("stack", "concatenate") else secrets
            result = OPERATIONS[operation](self._computes(), *leading, *args, *([] if leading else secrets))
            self._context.put(out, result)

    def prepare(self, settings: RuntimeSettings) -> None:
        """Makes ready for programs; the links to the other compute parties are made with the first.

        Raises:
            PlanError: The extra that runs programs is not installed, or this party's address is not its to use.
        """
        SpuRuntime.check_installed(self._context.name)
        number = self._deals().number
        if self._runtime is None and number is not None:
            SpuRuntime.check_address(*settings.addresses[number])
            self._runtime = SpuRuntime(self._layout, number, settings)

    def run(self, outs: Sequence[Key], program: Program, args: Any) -> None:
        """Runs a program together with the other compute parties, and keeps its results, or its failure.

        Args:
            outs: Where its results go.
            program: A JAX function and how many results it has.
            args: (args, kwargs) with `Shared` in place of shared values; everything else in them is public.

        Raises:
            PlanError: This SPU runs no programs. It takes the result's place, where whoever asks for it finds it.
        """
        with self._making(outs, program.name):
            runtime, own = self._runtime, self._context.name
            if runtime is None:
                raise PlanError(f"party {own!r} is not ready to run programs")
            linear = self._computes()
            filled = replace(args, Shared, lambda one: linear.prepared(self._secret(one)))
            # The library's links lead past this party's transport, and not past its door.
            with self._context.passing(f"program {program.name}", runtime.peers, Kind.SHARE, lambda: runtime.sent):
                results = runtime.run(program, *filled)
            for out, result in zip(outs, results, strict=True):
                self._context.put(out, result)

    def describe(self, one: Shared) -> Reply:
        """Returns (shape, dtype) of a value."""
        form = self._secret(one).form
        return Reply(Kind.SHAPE, (form.shape, form.dtype))

    def settle(self, one: Shared) -> None:
        """Acknowledges that the shares are there, or fails with what prevented it."""
        self._secret(one)

    def reveal(self, one: Shared) -> Reply:
        """Returns this party's shares of a value to the driver, as raw as the value itself."""
        secret = self._secret(one)
        return Reply(Kind.RAW, (secret.form.encode(), secret.shares))

    def give(self, one: Shared, to: PartyName, ticket: Key) -> None:
        """Sends this party's shares of a value to a party that opens it, as raw as the value itself.

        Args:
            one: The value.
            to: Who opens it.
            ticket: Name of the opening.
        """
        name = from_party(ticket, self._context.name)
        try:
            secret = self._secret(one)
            if to == self._context.name:
                self._context.put(name, secret)
            else:
                self._tell(to, GivenShares(name, secret.form.encode(), secret.shares), Kind.RAW)
        except BaseException as error:  # whoever waits for it must learn of it
            self._tell(to, SharesFailure(name, self._failure(error, f"to({to})")), Kind.ERROR)
            raise

    def collect(self, ticket: Key) -> Value:
        """Returns a value from the shares that all compute parties give."""
        parts = [Shared(from_party(ticket, party), party) for party in self._computing]
        try:
            self._await(parts)
            return combine(self._layout, [self._secret(part) for part in parts])
        finally:
            self._context.drop([part.key for part in parts])

    # Messages.

    def deliver(self, sender: PartyName, message: object) -> None:
        """Takes another party's shares, or learns why there are none; also tells who asks that this party is there.

        Raises:
            ProtocolError: The message is wrong.
        """
        try:
            self._take(sender, message)
        finally:  # also where a failure was put in place of shares
            self._room.note(self._arrivals.check)

    def _take(self, sender: PartyName, message: object) -> None:
        match message:
            case DealtShares(str(key), bytes(form), list(shares)):
                self._check_own(sender, key)
                with self._making([key], "to(spu)"):
                    self._context.put(key, self._deals().receive(sender, key, Form.decode(form), shares))
            case GivenShares(str(key), bytes(form), np.ndarray() as words) if sender in self._computing:
                self._check_own(sender, key)
                self._context.put(key, Secret(Form.decode(form), words))
            case SharesFailure(str(key), Failure() as failure):
                self._check_own(sender, key)
                self._context.put(key, failure)
            case AreYouThere():
                pass
            case _:
                receiver = f"the vault of {self._context.name!r}"
                raise unknown(sender, message, receiver, DealtShares, GivenShares, SharesFailure, AreYouThere)

    # Inside.

    def _check_own(self, sender: PartyName, key: Key) -> None:
        """Checks that a party may say what is under a name: it is one of its own, and nothing is there yet.

        Whoever could put values in the place of others' would be the only one to know what is opened.

        Raises:
            ProtocolError: It may not.
        """
        if key != from_party(key.rpartition("/")[0], sender):
            raise ProtocolError(f"{sender} sent shares under {key!r}, which is no name of its values")
        if self._context.holds(key):
            raise ProtocolError(f"{sender} sent shares of {key!r} a second time: the first ones count")

    def _secret(self, one: Shared) -> Secret:
        """Returns this party's shares, when they have come."""
        self._await([one])
        found = self._context.value(one.key)
        if not isinstance(found, Secret):
            raise PlanError(f"party {self._context.name!r} holds no shares under {one.key!r}")
        return found

    def _await(self, parts: Sequence[Shared]) -> None:
        """Waits until shares have come; asks now and then whether those are still there that were to send them.

        Raises:
            FedRayError: One of them cannot come, or its sender has ended; whichever the others wait for.
        """
        own, context = self._context.name, self._context

        def missing() -> list[Shared]:
            return [one for one in parts if not context.holds(one.key)]

        def ready() -> bool:
            return not missing() or any(context.failed(one.key) for one in parts)

        while True:
            awaited: list[Shared] = self._room.deliver(
                lambda ticket, now: self._arrivals.open(News(ticket, PING_SECONDS, ready, missing), ticket, own, now)
            )
            for one in parts:
                if context.failed(one.key):
                    context.value(one.key)  # raises what happened
            senders = {one.owner for one in awaited if one.owner not in (None, own)}
            if not senders:  # all is there, or nobody is about to send it
                return
            for party in sorted(senders):
                context.get(self._ping(party), None)

    def _ping(self, party: PartyName) -> Any:
        return self._context.send("there?", party, self._vaults[party], AreYouThere(), Kind.SHAPE)

    def _tell(self, to: PartyName, message: _Telling, kind: Kind) -> None:
        if to == self._context.name:
            self.deliver(to, message)
        else:
            self._context.send(f"{_CALLS[type(message)]} {message.key}", to, self._vaults[to], message, kind)

    @contextmanager
    def _making(self, outs: Sequence[Key], name: str) -> Iterator[None]:
        """Keeps a failure in place of what could not be made; whoever uses it is told."""
        try:
            yield
        except BaseException as error:
            for out in outs:
                self._context.put(out, self._failure(error, name))

    def _failure(self, error: BaseException, name: str) -> Failure:
        return to_failure(error, self._context.name, name, text=self._context.config.egress != "strict")

    def _invited(self) -> Joining[Dealer]:
        if self._joining is None:
            raise ProtocolError(f"the vault of {self._context.name!r} is not joining a session: hello comes first")
        return self._joining

    def _deals(self) -> Dealer:
        if self._dealer is None:
            raise ProtocolError(f"the vault of {self._context.name!r} has no session yet: hello comes first")
        return self._dealer

    def _computes(self) -> Linear:
        if self._linear is None:
            raise PlanError(f"party {self._context.name!r} is no compute party of this SPU")
        return self._linear


def from_party(name: Key, party: PartyName) -> Key:
    """Returns the name of shares that a party sends: those of a value that it owns, or its own ones of an opening."""
    return f"{name}/{party}"  # no party has a "/" in its name
