# SPDX-License-Identifier: Apache-2.0
"""Contributor: one party's end of an aggregator's private sums, set-up and rounds. Knows no model.

A round is a conversation with the server (`fedray/party/rounds/conversation.py`). What comes of it is a sum, and whose
inputs it has: whether that is what this party has seen is checked here. What the sum leads to its caller works out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from fedray.errors import EncodingError, FedRayError, ProtocolError, ServerFault
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, RoundMessage, SumsRequest
from fedray.party.rounds.conversation import Conversation, Errand, Post, answer_of
from fedray.party.rounds.key_supply import KeySupply
from fedray.party.rounds.past import Past
from fedray.party.rounds.share_owner import ShareOwner
from fedray.party.rounds.told import check_held, check_missed, well_formed
from fedray.protocol.config import Config
from fedray.protocol.fixed_point import decode
from fedray.protocol.manifest import Manifest
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scales import Room
from fedray.protocol.scheme import BatchedShield, Contribution, Joining, Opened, RoundContext, Shield
from fedray.protocol.schemes import SCHEMES
from fedray.protocol.sharing import SharingShield
from fedray.types import Key, Message, PartyName, Ref, Round

T = TypeVar("T")


class Contributor:
    """Joins sessions and takes part in their rounds.

    Args:
        context: The party this end lives in.
        server: The party that sums.
        round_server: Key of the server's `RoundServer`.

    Attributes:
        server: The party that sums.
        session: Number of the session.
        sid: Its id.
        members: Whose inputs the next round sums.
        past: What this party was told in rounds of training.
        verified: Whether this party knows for certain over whose inputs the last round was opened. Where it does not,
            what the round changed here is put back: parties that were told different things would keep it apart.
    """

    def __init__(self, context: PartyContext, server: PartyName, round_server: Key) -> None:
        self._context = context
        self.server = server
        self._round_server = round_server
        self.members: tuple[PartyName, ...] = ()
        self.verified = True
        self._config: Config | None = None
        self._joining: Joining[Shield] | None = None
        self._shield: Shield | None = None
        self._batched: BatchedShield | None = None
        self._kind = Kind.MASKED
        self._batch_length = 0
        self._lock = threading.Lock()  # keys of later rounds are prepared beside the round under way
        self._key_supply = KeySupply(None, 0, self._lock, 0, self._beside)
        self.session, self.sid = 0, b""
        self._compute: Mapping[PartyName, Key] = {}
        self._share_owner: ShareOwner | None = None
        self.past = Past(context.name)

    @property
    def recovers(self) -> bool:
        """Whether a quorum of parties signs whose inputs a round of the last session summed, or every key says it."""
        return self._share_owner is None

    def head(self) -> Reply:
        """Returns the head of what this party was told in rounds of training so far."""
        return Reply(Kind.HELLO, self.past.head)

    def meet(self, heads: Mapping[PartyName, bytes]) -> None:
        """Begins anew, with everybody else of a session, since their heads differ; see `Past.meet`."""
        self.past.meet(heads)

    def hello(self, config: bytes, names: Sequence[PartyName], compute: Mapping[PartyName, Key]) -> Reply:
        """Checks a proposed Config against this party's own policy and roster, and returns the signed Hello.

        Args:
            config: The Config's bytes.
            names: The parties of the session; their keys come from this party's own roster.
            compute: Compute party -> key of its `ComputeParty`; empty where the server sums.

        Raises:
            ProtocolError: The Config asks for less protection than this party's policy demands.
        """
        member, proposed = self._context.member(names), Config.decode(config)
        scheme = SCHEMES[proposed.scheme]
        self._kind = Kind.MASKED if scheme.protected else Kind.RAW
        self.members, self._batch_length = proposed.owners or member.roster.names, proposed.batch
        self._compute, self._share_owner, self._shield, self._config = compute, None, None, proposed
        self._joining = scheme.join(proposed, member)
        return Reply(Kind.HELLO, self._joining.hello())

    def confirm(self, hellos: Sequence[bytes]) -> Reply:
        """Checks everybody's Hello and returns the signed Confirm."""
        return Reply(Kind.HELLO, self._invited().confirm(hellos))

    def start(self, confirms: Sequence[bytes], number: int) -> None:
        """Checks everybody's Confirm; the rounds of session `number` may begin."""
        joining = self._invited()
        self._shield = shield = joining.start(confirms)
        self._joining, self.sid = None, joining.sid
        self._batched = shield if isinstance(shield, BatchedShield) else None
        self.session = number
        self.past.begin(self.members, returns=self._batched is not None or isinstance(shield, SharingShield))
        self._key_supply = KeySupply(self._batched, self._batch_length, self._lock, number, self._beside)
        if isinstance(shield, SharingShield):
            self._share_owner = ShareOwner(self._context, shield, self._compute, self.server, self._round_server)

    def exchange(self, call: str, context: RoundContext, contribution: Contribution) -> Answer:
        """Sends one round's protected contribution and returns the server's answer; `read` says what its sum means.

        Args:
            call: The round in words, for the ledger.
            context: What the round is about.
            contribution: This party's part.

        Returns:
            An answer that is `"opened"`, `"abandoned"`, `"missed"` or `"renew"`.

        Raises:
            ProtocolError: The segment was given up, or the others went on without this party.
            EncodingError: A value is not finite or exceeds its bound.
        """
        context = self.past.before(context)
        if self._share_owner is not None:
            answer, self.members = self._share_owner.exchange(call, context, contribution)
            self._check_view(answer)
            self._check_set(context.number, answer, self.members)
            self.past.over = self.members if answer.verdict == "opened" else ()
            self._verify(self._active(), context.number, answer.opened)
            return answer
        return self._talk(self.conversation(call, context, contribution))

    def await_sum(self, call: str, number: Round) -> Answer:
        """Returns what came of a round that repeats one which this party has missed.

        Args:
            call: What it is for in words, for the ledger.
            number: The round.

        Raises:
            ProtocolError: The segment was given up, or the others went on without this party.
        """
        answer = well_formed(self.server, self.ask_server(call, SumsRequest(self.session, number), Kind.SHAPE))
        self._check_open(number, answer)
        check_missed(self.server, number, answer, returns=self._batched is not None)
        self._check_set(number, answer, None)
        return answer

    def read(self, opened: OpenedSum, manifest: Manifest) -> Opened:
        """Returns what a sum of the open session says.

        Args:
            opened: The sum.
            manifest: What its words mean.

        Raises:
            ProtocolError: The sum is noise, out of range, or all weights are zero.
        """
        config = self._agreed
        return decode(config.encoding, config.contributors, manifest, opened)

    @property
    def room(self) -> Room:
        """How many bits there are for the words of the open session."""
        return Room.of(self._agreed.encoding, self._agreed.contributors)

    def ask_server(self, call: str, message: Any, kind: Kind) -> Any:
        """Sends the server a message that belongs to no round, and returns the answer.

        Args:
            call: What it is for in words, for the ledger.
            message: A record that the server's `deliver` takes.
            kind: What the message is, for the door.
        """
        return self._context.get(self._dispatch(Post(call, message, kind)), None)

    def conversation(self, call: str, context: RoundContext, contribution: Contribution) -> Conversation[Answer]:
        """Yields the messages of one round that go to the server, and returns its last word.

        Args:
            call: As in `exchange`.
            context: As in `exchange`.
            contribution: As in `exchange`.

        Raises:
            ProtocolError: As in `exchange`.
        """
        shield, number = self._active(), context.number
        answer = yield from self._key_supply.cover(number)
        if answer is None:
            answer = yield from self._answered(shield, call, context, contribution)
            check_held(self.server, number, answer)
        self._check_open(number, answer)
        check_missed(self.server, number, answer, returns=self._batched is not None)
        if answer.view is not None:
            with self._lock:
                shield.join(answer.view)
            self.members = answer.view.members
        # Without batches there is no quorum to see: the keys themselves bind the round to its members.
        survivors = self.members if self._batched is None else self._batched.survivors(number)
        self.verified, self.past.over = survivors is not None, survivors or ()
        self._check_set(number, answer, survivors)
        self._verify(shield, number, answer.opened)
        return answer

    def missed_sum(self, context: RoundContext, answer: Answer) -> OpenedSum | None:
        """Returns the sum of a round that was held without this party, verified; None: abandoned, or not over.

        Args:
            context: What the round was about, or an earlier try of it.
            answer: What the party was told when it came too late.

        Raises:
            ServerFault: The server does not say what came of the round, or the sum is not that of it.
        """
        if answer.verdict == "missed" and all(past.number != context.number for past in answer.missed):
            raise ServerFault(
                f"party {self._context.name!r}: server {self.server!r} said that this party was too late for round "
                f"{context.number}, and not what came of it; expected its sum, or that it was abandoned"
            )
        for past in answer.missed:
            if past.number >= context.number and past.opened is not None:
                self.verify_missed(replace(context, number=past.number), past.opened)
                return past.opened
        return None

    def verify_missed(self, context: RoundContext, opened: OpenedSum) -> None:
        """Accepts the sum of a round that was held without this party.

        Args:
            context: What the round was about.
            opened: Its sum, as the server hands it out.

        Raises:
            ServerFault: It is not that sum.
        """
        shield = self._active()
        with self._lock:
            # Bound to the history as those that held it had it: this party's own, as far as it has followed them.
            shield.follow(replace(context, history=self.past.followed))
            shield.verify(context.number, opened, self.server, late=True)

    def _verify(self, shield: Shield, number: Round, opened: OpenedSum | None) -> None:
        """Accepts the sum of a round that this party took part in, if there is one."""
        if opened is not None:
            opened.drop_packed()
            with self._lock:
                shield.verify(number, opened, self.server)

    def _check_open(self, number: Round, answer: Answer) -> None:
        self._check_view(answer)
        if answer.verdict in ("aborted", "left"):
            raise ProtocolError(f"round {number} was given up: {answer.reason}")

    def _check_set(self, number: Round, answer: Answer, survivors: tuple[PartyName, ...] | None) -> None:
        """Checks whose inputs a sum has that the server hands out.

        Args:
            number: The round.
            answer: The server's answer.
            survivors: Whose they are as this party has verified; None where it could not.

        Raises:
            ServerFault: The server says that it is another set, or one that may not be summed; or it shows no sum.
        """
        if (answer.verdict == "opened") != (answer.opened is not None):
            shown = "no sum" if answer.opened is None else "a sum"
            raise ServerFault(f"server {self.server!r} said {answer.verdict!r} of round {number}, with {shown}")
        past = [one.opened for one in answer.missed if one.opened is not None]
        for opened, expected in [(answer.opened, survivors), *((one, None) for one in past)]:
            if opened is None:
                continue
            found, least = opened.members, self._agreed.least_members
            enough = len(found) >= least and found == tuple(name for name in self.members if name in found)
            if not (enough if expected is None else found == expected):
                listed, wanted = ", ".join(found) or "nobody", ", ".join(expected or self.members)
                some = f", or at least {least} of them in this order" if expected is None else ""
                raise ServerFault(
                    f"server {self.server!r} says that round {number} was summed over {listed}; expected {wanted}{some}"
                )

    def _answered(
        self, shield: Shield, call: str, context: RoundContext, contribution: Contribution
    ) -> Conversation[Answer]:
        """Goes through as many exchanges as the scheme has."""
        answer = yield self._protected(shield, call, context, contribution)
        while answer is not None and answer.verdict == "next":
            self._check_view(answer)
            try:
                with self._lock:
                    reply = shield.reply(answer.broadcast)
            except EncodingError as error:  # its own numbers are fine: it is the request that does not decode
                raise ServerFault(
                    f"server {self.server!r} asked what is no message of round {context.number}: {error}"
                ) from error
            answer = yield Post(call, self._message(context, reply), Kind.SHARE)
        return answer_of(answer)

    def _check_view(self, answer: Answer) -> None:
        """Refuses a smaller view that comes with anything but an abandoned round.

        After that one a party looks at how many of its rows were sent; a view that came another way would go past it.
        Sums of shares have no views.

        Raises:
            ServerFault: There is one.
        """
        if answer.view is not None and (answer.verdict != "abandoned" or self._share_owner is not None):
            raise ServerFault(
                f"party {self._context.name!r}: server {self.server!r} put a smaller view into an answer "
                f"{answer.verdict!r}; it belongs to an abandoned round of masking only. Nothing further is sent: the "
                "server lies, or is of another version"
            )

    def _message(self, context: RoundContext, body: Message) -> RoundMessage:
        return RoundMessage(self.session, context.number, body, context.repeats is not None)

    def _protected(self, shield: Shield, call: str, context: RoundContext, contribution: Contribution) -> Post:
        with self._lock:
            (message,) = shield.protect(context, contribution).values()
        made = self._context.commitments.of(context, contribution)
        return Post(call, self._message(context, message), self._kind, made)

    def _talk(self, conversation: Conversation[T]) -> T:
        """Carries a conversation on until it is over; what goes wrong on the way is raised in it, where it belongs."""
        step: Callable[[], Post | Errand] = partial(next, conversation)
        while True:
            try:
                post = step()
            except StopIteration as over:
                result: T = over.value
                return result
            try:
                sent = self._dispatch(post) if isinstance(post, Post) else post
                del post  # a large message is held by nobody here while the answer is awaited
                step = partial(conversation.send, self._outcome(sent))
            except FedRayError as error:
                step = partial(conversation.throw, error)

    def _outcome(self, sent: Ref | Errand) -> Answer | None:
        if isinstance(sent, threading.Thread):
            sent.join()
            return None
        return well_formed(self.server, self._context.get(sent, None))

    def _dispatch(self, post: Post) -> Ref:
        return self._context.send(post.call, self.server, self._round_server, post.message, post.kind, post.commitment)

    def _beside(self, conversation: Conversation[None]) -> Errand:
        """Begins a conversation that goes on beside the round."""
        thread = threading.Thread(target=self._talk, args=(conversation,), name="fedray-keys", daemon=True)
        thread.start()
        return thread

    def _invited(self) -> Joining[Shield]:
        if self._joining is None:
            raise ProtocolError(f"party {self._context.name!r} is not joining a session: hello comes first")
        return self._joining

    @property
    def _agreed(self) -> Config:
        if self._config is None:
            raise ProtocolError(f"party {self._context.name!r} has no session yet: hello comes first")
        return self._config

    def _active(self) -> Shield:
        if self._shield is None:
            raise ProtocolError(f"party {self._context.name!r} has no session yet: hello comes first")
        return self._shield
