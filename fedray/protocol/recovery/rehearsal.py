# SPDX-License-Identifier: Apache-2.0
"""All ends of a session with recovery in one process: for tests, for measurements, and as the shortest working example.

Carries bytes from one end to the other, in order and at once, and counts them. Knows no network, no clock, and no key
but the identities it draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from fedray.protocol.config import Config
from fedray.protocol.crypto.keys import Roster, generate_identity, public_bytes
from fedray.protocol.fixed_point import decode
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.policy import Policy
from fedray.protocol.recovery.collector import RecoveryCollector
from fedray.protocol.recovery.coordinator import RecoveryCoordinator
from fedray.protocol.recovery.shield import RecoveryShield
from fedray.protocol.scheme import Contribution, Opened, RoundContext, View
from fedray.types import PartyName, Round

NOBODY: frozenset[PartyName] = frozenset()


class Rehearsal:
    """A session among parties `p0000`, `p0001`, … that are all here.

    Attributes:
        names: The parties, in roster order.
        identities: Their signing keys.
        roster: Their public keys.
        config: Agreed settings.
        shields: The parties' ends.
        server: The coordinator's end.
        sent: Bytes that each party sent so far.
        received: Bytes that each party received so far.
    """

    def __init__(self, parties: int, configure: Callable[[Roster], Config], policy: Policy | None = None) -> None:
        """Runs the set-up of the session.

        Args:
            parties: How many.
            configure: What the coordinator proposes to a roster.
            policy: What each party accepts.

        Raises:
            ProtocolError: A party refuses.
        """
        self.names = tuple(f"p{i:04}" for i in range(parties))
        self.identities = {name: generate_identity() for name in self.names}
        self.roster = Roster.of({name: public_bytes(key) for name, key in self.identities.items()})
        self.config = configure(self.roster)
        accepted = policy or Policy()
        joinings = {
            name: RecoveryShield.joining(self.config, Member(name, identity, self.roster, accepted, ModelMemory()))
            for name, identity in self.identities.items()
        }
        self.sent: Counter[PartyName] = Counter()
        self.received: Counter[PartyName] = Counter()
        self._batch = 0
        hellos = [self._from(name, joining.hello()) for name, joining in joinings.items()]
        confirms = [
            self._from(name, joining.confirm([self._to(name, hello) for hello in hellos]))
            for name, joining in joinings.items()
        ]
        self.shields = {
            name: joining.start([self._to(name, confirm) for confirm in confirms]) for name, joining in joinings.items()
        }
        self.server = RecoveryCoordinator(self.config, self.roster, hellos, confirms)

    def prepare(self, first: Round) -> None:
        """Runs the set-up of the next batch of rounds.

        Raises:
            ProtocolError: A party refuses.
        """
        batch, self._batch = self._batch, self._batch + 1
        for name, shield in self.shields.items():
            self.server.add_set_up(name, batch, self._from(name, shield.prepare(batch, first)))
        for stage in range(self.server.set_up_stage(batch), 4):
            answers: dict[PartyName, bytes | None] = {}
            for name, shield in self.shields.items():
                relayed = self.server.set_up_answer(batch, stage - 1, name)
                answers[name] = shield.absorb(self._to(name, relayed))
            for name, answer in answers.items():
                if answer is not None:
                    self.server.add_set_up(name, batch, self._from(name, answer))

    def begin(self, context: RoundContext, inputs: Mapping[PartyName, Contribution]) -> RecoveryCollector:
        """Runs R1 for the parties that have an input, and returns the collector.

        Raises:
            ProtocolError: A party refuses.
        """
        collector = self.server.collector(View(0, self.names), context.number, context.manifest)
        for name, contribution in inputs.items():
            (message,) = self.shields[name].protect(context, contribution).values()
            self.sent[name] += len(message)
            collector.add(name, message)
        return collector

    def answer(
        self, collector: RecoveryCollector, members: Collection[PartyName], silent: Collection[PartyName] = NOBODY
    ) -> bytes | None:
        """Closes one stage and has all members but the silent ones answer; returns the broadcast, or None at the end.

        Args:
            collector: The round's summing end.
            members: Who took part so far.
            silent: Which of them do not answer.

        Raises:
            ProtocolError: The round is aborted, or a party refuses.
        """
        broadcast = collector.advance()
        if broadcast is not None:
            for name in members:
                if name not in silent:
                    reply = self.shields[name].reply(self._to(name, broadcast))
                    collector.add(name, self._from(name, reply))
        return broadcast

    def sum(
        self,
        context: RoundContext,
        inputs: Mapping[PartyName, Contribution],
        before_signing: Collection[PartyName] = NOBODY,
        before_unmasking: Collection[PartyName] = NOBODY,
    ) -> Opened:
        """Runs one round.

        Args:
            context: What the parties received.
            inputs: The inputs; who has none is silent from the start.
            before_signing: Who falls silent after its input left.
            before_unmasking: Who falls silent after it signed.

        Raises:
            ProtocolError: The round is aborted, or a party refuses.
        """
        collector = self.begin(context, inputs)
        self.answer(collector, inputs, before_signing)
        self.answer(collector, inputs, {*before_signing, *before_unmasking})
        self.answer(collector, inputs)
        return decode(self.config.encoding, self.config.parties, context.manifest, collector.open())

    def _from(self, name: PartyName, message: bytes) -> bytes:
        self.sent[name] += len(message)
        return message

    def _to(self, name: PartyName, message: bytes) -> bytes:
        self.received[name] += len(message)
        return message
