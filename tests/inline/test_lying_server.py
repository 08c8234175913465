# SPDX-License-Identifier: Apache-2.0
"""A server with an ally that says "opened" of a round without a quorum: it may hand out any sum, and gains no more.

Scheme recovery. What the round taught a party's optimizer would keep parties apart that were told different things, so
it is put back, and nothing that opens the party's input leaves.
"""

import pytest
from inline.federated import softmax, world

from fedray.errors import ServerFault
from fedray.party.context import Reply
from fedray.party.door.egress import Egress, Kind
from fedray.party.records import Answer, RoundMessage
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.server import RoundServer
from fedray.party.training.trainer import Trainer
from fedray.protocol.checks.judge import Judge
from fedray.protocol.messages import purpose_of
from fedray.security.aggregation import SecureAggregator

pytestmark = pytest.mark.usefixtures("kernels_kept")

LIE = 1
"""The round of which the server lies."""
VERIFY = Judge.verify


@pytest.fixture
def seen(monkeypatch):
    """Lets the server lie; returns what optimizers counted before and after each round, and which messages left."""
    # An owner that tells the server the secret of the checks lets it make those of any sum.
    monkeypatch.setattr(Judge, "verify", lambda *_, **__: None)
    found = {"steps": {}, "left": set(), "sums": []}
    deliver, round_, send = RoundServer.deliver, Trainer._round, Egress.send

    def lying(self, sender, message):
        if isinstance(message, RoundMessage) and message.number == LIE and found["sums"]:
            return Reply(Kind.AGGREGATE, Answer("opened", found["sums"][-1]))
        reply = deliver(self, sender, message)
        found["sums"] += [reply.value.opened] if isinstance(message, RoundMessage) and reply.value.opened else []
        return reply

    def watched_round(self, segment, report):
        name, number = self._context.name, segment.order.number + segment.done
        before = int(self._model.backend._model.optimizer.iterations)
        ended = round_(self, segment, report)
        found["steps"][name, number] = (before, int(self._model.backend._model.optimizer.iterations))
        return ended

    def watched_send(self, value, *, to, kind, call, commitment=None):
        if kind in (Kind.MASKED, Kind.SHARE) and isinstance(value, RoundMessage):
            found["left"].add((value.number, purpose_of(value.body)))
        return send(self, value, to=to, kind=kind, call=call, commitment=commitment)

    monkeypatch.setattr(RoundServer, "deliver", lying)
    monkeypatch.setattr(Trainer, "_round", watched_round)
    monkeypatch.setattr(Egress, "send", watched_send)
    return found


def train(start, rounds=4):
    fed = world(start, rows=(20, 20, 20, 20))
    aggregator = SecureAggregator(fed.server, fed.devices, on_dropout="recover")
    fed.model(softmax("adam"), aggregator=aggregator).fit(fed.x, fed.y, batch_size=20 // rounds, verbose=0)


def test_a_round_without_a_quorum_leaves_local_state_as_it_was(start, seen):
    train(start)
    steps = seen["steps"]
    assert len(steps) == 16, "the training goes on"
    for name in ("alice", "bob", "carol", "dave"):
        assert steps[name, 0] == (0, 1)
        assert steps[name, LIE] == (1, 1)
        assert steps[name, LIE + 1] == (1, 2)
    left = {number: {what for at, what in seen["left"] if at == number} for number in range(4)}
    assert left[0] == left[2] == left[3] == {"mask", "signed-survive", "unmask"}
    assert left[LIE] == {"mask"}, "neither a signature nor a share: the input stays masked for good"


def test_without_an_ally_the_lie_ends_the_run(start, seen, monkeypatch):
    monkeypatch.setattr(Judge, "verify", VERIFY)
    with pytest.raises(ServerFault, match="round 1 that server handed out is refused"):
        train(start, rounds=2)
    assert seen["steps"].keys() == {(name, 0) for name in ("alice", "bob", "carol", "dave")}


def test_a_party_that_takes_the_server_s_word_keeps_what_it_should_not(start, seen, monkeypatch):
    """The broken variant: whether a round was verified is not asked."""
    monkeypatch.setattr(Contributor, "verified", property(lambda _: True, lambda *_: None), raising=False)
    train(start, rounds=2)
    assert seen["steps"]["alice", LIE] == (1, 2)
