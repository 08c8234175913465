# SPDX-License-Identifier: Apache-2.0
"""Part B, the contributing party's end: double masks, batches of keys prepared ahead, one decision a round.

Knows a party's session and the order of its rounds. Does not know how messages travel, what time it is, or what the
numbers mean. Not safe for use from several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Guarded, Roster
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.handshake import Handshake, Introduced
from fedray.protocol.masking.rounds import context_hash
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.recovery.key_batches import KeyBatches
from fedray.protocol.recovery.masked_input import double_pad, mask_input
from fedray.protocol.recovery.member import DecisionLog, Member
from fedray.protocol.recovery.pads import PadScope
from fedray.protocol.recovery.reuse_rules import InputRules
from fedray.protocol.recovery.round_messages import purpose_of
from fedray.protocol.recovery.thresholds import Thresholds
from fedray.protocol.recovery.unmasking import Sent, Unmasking
from fedray.protocol.scheme import Contribution, RoundContext, View
from fedray.types import Message, PartyName, Round


class RecoveryShield(Introduced):
    """The contributing party's end of part B.

    The session is set up by `hello`, `confirm`, `start`; a batch of rounds by `prepare`, then `absorb` for each message
    that the coordinator relays. A round is `protect`, then `reply` twice.

    Attributes:
        clipped: Share of the last contribution's values that were beyond the clip bound, 0 to 1.
        decisions: What was signed and released so far, where no journal was given.
    """

    def __init__(
        self,
        config: Config,
        name: PartyName,
        identity: Ed25519PrivateKey,
        roster: Roster,
        policy: Policy,
        memory: ModelMemory,
        journal: DecisionLog | None = None,
    ) -> None:
        """Checks the Config against the policy and draws this session's secrets.

        Args:
            config: What the coordinator proposes.
            name: The party's own name.
            identity: Its identity key.
            roster: Its own copy of the roster.
            policy: What it accepts.
            memory: The process's memory of models, the same object for all its shields.
            journal: Takes each decision before it is acted upon; by default `decisions`, in memory, which is enough
                where a restarted party loses its keys.

        Raises:
            ProtocolError: The Config is refused, or is not for part B.
        """
        self._thresholds = Thresholds.of(config)
        self._handshake = Handshake(config, name, identity, roster, policy, memory)
        self._config, self._name, self._roster = config, name, roster
        self._identity, self._policy, self._memory = identity, policy, memory
        self.decisions: list[bytes] = []
        self._journal: DecisionLog = self.decisions.append if journal is None else journal
        self._session: _Session | None = None
        self._turn: Unmasking | None = None
        self.clipped = 0.0

    def __repr__(self) -> str:
        """Shows the party and the round, nothing secret."""
        state = f"round {self._session.batches.next}" if self._session else "not started"
        return f"<RecoveryShield of {self._name}: {state}>"

    def start(self, confirms: Sequence[bytes]) -> None:
        """Checks everybody's Confirm, in roster order; batches may be prepared from here on.

        Raises:
            ProtocolError: A Confirm is wrong.
        """
        keys = self._handshake.start(confirms)
        keys.roots = {}
        place = Member(keys.sid, keys.index, self._roster, self._identity, self._thresholds, self._journal)
        rules = InputRules(keys.sid, self._roster.names, self._policy, self._memory)
        self._session = _Session(place, KeyBatches(keys, place, self._config.batch), rules)

    def join(self, view: View) -> None:
        """Accepts the whole roster only: who drops out of a round may take part in the next one.

        Raises:
            ProtocolError: The view leaves a party out.
        """
        if view.members != self._roster.names:
            raise self._fault(f"sums that survive dropouts have one view, the whole roster, found {view.members}")

    def prepare(self, batch: int, first: Round) -> bytes:
        """Begins the set-up of a batch of rounds and returns the signed Keys; rounds may be under way meanwhile.

        Args:
            batch: Number of the batch, larger than that of any earlier one.
            first: Its first round, after the last one of the batch before.

        Raises:
            ProtocolError: The number or a round was used, or the session has served enough rounds.
        """
        return self._active.batches.prepare(batch, first)

    def absorb(self, message: bytes) -> bytes | None:
        """Answers what the coordinator relays of a set-up; None when the batch is ready.

        Raises:
            ProtocolError: The set-up of this batch failed, and who is at fault; another one needs a new number.
        """
        return self._active.batches.absorb(message)

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns the server's message; a repeated request gets the identical bytes.

        Raises:
            ProtocolError: The round is over or has no keys, its pad was used for other data, or the input or its model
                may not be summed again.
            EncodingError: The contribution cannot be encoded; the round is given up and its pad never used.
        """
        session = self._active
        ctx = context_hash(self._config, session.place.sid, b"", context)
        fingerprint = session.rules.fingerprint(context, contribution)
        turn = self._turn
        if turn is None or turn.sent.number != context.number:
            turn = self._begin(session, context, ctx, contribution, fingerprint)
        elif (turn.sent.ctx, turn.sent.fingerprint) != (ctx, fingerprint):
            raise self._fault(f"the pad of round {context.number} was used for other data; take the next round")
        return {self._config.receivers[0]: turn.sent.message}

    def reply(self, broadcast: bytes) -> bytes:
        """Answers the further exchanges of the round: signs the survivors, then releases one share of each party.

        Raises:
            ProtocolError: The request is not one that this party may answer; the message says why.
        """
        turn, purpose = self._turn, purpose_of(broadcast)
        if turn is None:
            raise self._fault("no round is under way")
        if purpose == "survivors":
            return turn.survive(broadcast)
        if purpose != "quorum":
            raise self._fault(f"a round has no request for {purpose!r}")
        return turn.unmask(broadcast)

    def survivors(self, number: Round) -> tuple[PartyName, ...] | None:
        """Returns whose inputs a round sums, once this party verified the quorum on its own context; else None.

        What a party's local state learned in a round is kept only if it did, else put back.
        """
        turn = self._turn
        if turn is None or turn.sent.number != number or turn.released is None:
            return None
        return self._active.place.names(turn.released.members)

    def _begin(
        self, session: _Session, context: RoundContext, ctx: bytes, contribution: Contribution, fingerprint: bytes
    ) -> Unmasking:
        config, number, place = self._config, context.number, session.place
        try:
            session.rules.admit(context, fingerprint)
        except ProtocolError as error:
            raise self._fault(str(error)) from None
        encoder = Encoder(
            config.encoding,
            config.parties,
            context.manifest,
            contribution,
            owner=self._name,
            refuse_overflow=self._policy.refuse_overflow,
        )
        batch = session.batches.enter(number)
        self._turn, before = None, self._turn
        if before is not None:
            before.end("the round is over")
        scope = PadScope(place.sid, batch.directory.digest, number, ctx, context.manifest.words, config.encoding.ring)
        pad = double_pad(place, batch, batch.take(number), scope)
        message, words_hash = mask_input(place, scope, encoder, pad)
        session.rules.record(context, fingerprint)
        size = context.manifest.size
        self.clipped = encoder.clipped / size if size else 0.0
        sent = Sent(context, ctx, words_hash, message, fingerprint)
        self._turn = Unmasking(place, batch, session.batches.ring(number), sent, session.rules)
        return self._turn

    @property
    def _active(self) -> _Session:
        if self._session is None:
            raise self._fault("set-up is not finished")
        return self._session

    def _fault(self, message: str) -> ProtocolError:
        return ProtocolError(f"{self._name}: {message}")


class _Session(Guarded):
    """What a party has once set-up is finished."""

    def __init__(self, place: Member, batches: KeyBatches, rules: InputRules) -> None:
        self.place, self.batches, self.rules = place, batches, rules
