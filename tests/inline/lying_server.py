# SPDX-License-Identifier: Apache-2.0
"""A server that answers what it likes and keeps what it is sent, for the tests of what it may learn that way.

It has an ally among the parties, which tells it the secret of the checks, so that any sum that it makes up is taken for
one; and which signs what it likes of the models that are handed round. Without one no made-up sum is accepted
(`tests/pure/test_verified_sums.py`), and no altered model. Besides that only the server's round service is replaced;
other parties and the driver are as they are. It answers each message at once: it has no need to wait for anybody, and
opens afterwards, from what it kept, every sum whose pads cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedray.party.context import Reply
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, ModelMessage, RoundMessage
from fedray.party.rounds import contributor
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.server import RoundServer
from fedray.party.training import model_rounds
from fedray.protocol.checks.judge import Judge
from fedray.protocol.config import Config
from fedray.protocol.fixed_point import Encoder, decode
from fedray.protocol.manifest import Manifest
from fedray.protocol.masking.frame import Masked
from fedray.protocol.opened import OpenedSum
from fedray.protocol.pipeline import run
from fedray.protocol.scheme import Contribution, View
from fedray.types import PartyName, Round


@dataclass(frozen=True)
class Lie:
    """What the server says to one party of one round.

    Attributes:
        verdict: As in `Answer`.
        mean: The payload whose mean it makes up, where it says that the round was opened.
        view: As in `Answer`.
    """

    verdict: str
    mean: np.ndarray | None = None
    view: View | None = None


Says = Callable[[PartyName, int, Round, np.ndarray], Lie | None]
"""(party, session, round, the model that was published) -> what the server says; None to do what a server should."""


Hands = Callable[[int, ModelMessage], ModelMessage]


@dataclass
class LyingServer:
    """What the server was sent, by session and round.

    Attributes:
        says: What it says.
        hands: (session, the model that is handed round) -> what the ally signs instead, at the begin of a session.
        sent: (session, round) -> party -> the words of its message.
        rounds: (session, round) -> party -> what it was told of it: the Config, and what its words mean.
        last: Number of the last session of which it was sent something.
    """

    says: Says
    hands: Hands
    sent: dict[tuple[int, Round], dict[PartyName, np.ndarray]] = field(default_factory=dict)
    rounds: dict[tuple[int, Round], dict[PartyName, tuple[Config, Manifest]]] = field(default_factory=dict)
    last: int = 0

    def opened(self, session: int, number: Round, members: tuple[PartyName, ...]) -> np.ndarray:
        """Returns the mean of what these parties sent in a round.

        Args:
            session: Number of the session.
            number: The round.
            members: Whose words are added.

        Raises:
            ProtocolError: Their pads do not cancel.
        """
        words = self.sent[session, number]
        total = np.sum([words[name] for name in members], axis=0, dtype=np.uint64)
        config, manifest = self.rounds[session, number][members[0]]
        return decode(config.encoding, config.contributors, manifest, OpenedSum(total, members)).values

    def made_up(
        self, place: tuple[int, Round], party: PartyName, mean: np.ndarray, members: tuple[PartyName, ...]
    ) -> OpenedSum:
        """Returns what a party takes for the sum of the same payload of all members, with ones for metrics."""
        config, manifest = self.rounds[place][party]
        metrics = np.ones(sum(total.size for total in manifest.metrics))
        weight = config.encoding.weight_bound
        encoder = Encoder(config.encoding, config.contributors, manifest, Contribution(mean, weight, metrics))
        words = np.empty(manifest.words(config.contributors), "<u8")
        run(words, encoder.encode)
        return OpenedSum(words * np.uint64(len(members)), members)


def lie(monkeypatch: pytest.MonkeyPatch, says: Says, hands: Hands = lambda _, model: model) -> LyingServer:
    """Puts a lying server in the place of the round server of models.

    Args:
        monkeypatch: Of the test.
        says: As in `LyingServer`.
        hands: As in `LyingServer`.
    """
    server = LyingServer(says, hands)
    deliver, exchange, pack = RoundServer.deliver, Contributor.exchange, model_rounds.pack
    members: dict[PartyName, tuple[PartyName, ...]] = {}

    def lying(self, sender, message):
        if not isinstance(message, RoundMessage):
            return deliver(self, sender, message)
        place = message.session, message.number
        server.last = message.session
        server.sent.setdefault(place, {})[sender] = np.array(Masked.decode(message.body).words)
        told = says(sender, *place, next(iter(self._published.values())).weights)
        if told is None:
            return deliver(self, sender, message)
        over = members[sender] if told.view is None else told.view.members
        opened = None if told.mean is None else server.made_up(place, sender, told.mean, over)
        answer = Answer(told.verdict, opened, view=told.view, number=message.number + 1, reason="of course")
        return Reply(Kind.AGGREGATE, answer)

    def watched(self, call, context, contribution):
        name = self._context.name
        server.rounds.setdefault((self.session, context.number), {})[name] = self._config, context.manifest
        members[name] = self.members
        return exchange(self, call, context, contribution)

    monkeypatch.setattr(Judge, "verify", lambda *_, **__: None)
    # Parties take a new session from it at any time: the user's next `fit` would begin one as well.
    monkeypatch.setattr(contributor, "check_held", lambda *_: None)
    monkeypatch.setattr(model_rounds, "pack", lambda model: hands(server.last + 1, pack(model)))
    monkeypatch.setattr(RoundServer, "deliver", lying)
    monkeypatch.setattr(Contributor, "exchange", watched)
    return server
