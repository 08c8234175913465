# SPDX-License-Identifier: Apache-2.0
"""A server that answers what it likes and keeps what it is sent, for the tests of what it may learn that way.

Only the server's round service is replaced; parties and driver are as they are. It answers each message at once: it has
no need to wait for anybody, and opens afterwards, from what it kept, every sum whose pads cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedray.party.context import Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, RoundMessage
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.server import RoundServer
from fedray.protocol.config import Encoding
from fedray.protocol.fixed_point import decode
from fedray.protocol.manifest import Manifest
from fedray.protocol.masking.frame import Masked
from fedray.types import PartyName, Round


@dataclass
class LyingServer:
    """What the server was sent, by session and round, and what it says.

    Attributes:
        says: (party, session, round, model as the server has it) -> its answer; None to do what a server should.
        sent: (session, round) -> party -> the words of its message.
        manifests: (session, round) -> what they mean.
        sessions: How many sessions have begun.
    """

    says: Callable[[PartyName, int, Round, np.ndarray], Answer | None]
    sent: dict[tuple[int, Round], dict[PartyName, np.ndarray]] = field(default_factory=dict)
    manifests: dict[tuple[int, Round], Manifest] = field(default_factory=dict)

    def opened(self, session: int, number: Round, members: tuple[PartyName, ...], parties: int, most: int):
        """Returns the mean of what these parties sent in a round.

        Args:
            session: Number of the session.
            number: The round.
            members: Whose words are added.
            parties: Size of the roster.
            most: Largest weight of one party.

        Raises:
            ProtocolError: Their pads do not cancel.
        """
        words = self.sent[session, number]
        total = np.sum([words[name] for name in members], axis=0, dtype=np.uint64)
        encoding = Encoding(weight_bound=most)
        return decode(encoding, parties, self.manifests[session, number], total, members).values


def lie(
    monkeypatch: pytest.MonkeyPatch, says: Callable[[PartyName, int, Round, np.ndarray], Answer | None]
) -> LyingServer:
    """Puts a lying server in the place of the round server of models.

    Args:
        monkeypatch: Of the test.
        says: As in `LyingServer`.
    """
    server = LyingServer(says)
    deliver, exchange = RoundServer.deliver, Contributor.exchange

    def lying(self, sender, message):
        if isinstance(message, RoundMessage) and self._strategy is not None:
            place = message.session, message.number
            words = np.array(Masked.decode(message.body).words)
            server.sent.setdefault(place, {})[sender] = words
            answer = says(sender, *place, self._model.weights)
            if answer is not None:
                return Reply(Kind.AGGREGATE, answer)
        return deliver(self, sender, message)

    def watched(self, call, context, contribution):
        server.manifests[self.session, context.number] = context.manifest
        return exchange(self, call, context, contribution)

    monkeypatch.setattr(RoundServer, "deliver", lying)
    monkeypatch.setattr(Contributor, "exchange", watched)
    return server
