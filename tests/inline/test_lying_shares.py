# SPDX-License-Identifier: Apache-2.0
"""A server of sums of shares keeps a sum for itself: it says that a round came to nothing, and shows one or none.

It has no ally, no secret, and is no compute party. What it may not learn that way: a party's own weights, which are in
its backend while it waits, and one party's part of a sum, as the difference of two.
"""

from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
from inline.federated import RATE, gradient, weights_of, world

import fedray as sf
from fedray.errors import ProtocolError, ServerFault
from fedray.party.records import Answer, ModelMessage, RoundMessage, RoundOutcome
from fedray.party.rounds.compute_exchanges import SumStep
from fedray.party.rounds.compute_rounds import ComputeRounds
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.server import RoundServer
from fedray.party.training.local_model import LocalModel
from fedray.party.training.trainer import Trainer
from fedray.protocol.fixed_point import decode
from fedray.protocol.member import Member
from fedray.protocol.scheme import View
from fedray.security.aggregation import SPUAggregator
from fedray.utils.testing import cluster_def

ROWS = 16
NUMPY = {"backend": "numpy", "egress": "strict"}


@pytest.fixture
def server(monkeypatch):
    """Returns what the server makes of its answers to rounds that are opened, to be set, and what was published."""
    deliver, state = RoundServer.deliver, {"lie": None, "published": []}

    def told(self, sender, message):
        if isinstance(message, ModelMessage):
            state["published"].append(np.array(message.weights))
        reply = deliver(self, sender, message)
        lie = state["lie"]
        if lie is None or not isinstance(message, RoundMessage) or not isinstance(reply.value, Answer):
            return reply
        return reply if reply.value.opened is None else replace(reply, value=lie(sender, message.number, reply.value))

    monkeypatch.setattr(RoundServer, "deliver", told)
    return state


def federated(start, computing=("alice", "bob")):
    fed = world(start, rows=(ROWS,) * 4, **NUMPY)
    return fed, fed.model(aggregator=SPUAggregator(sf.SPU(cluster_def(list(computing))), round_timeout=2.0))


def flat(weights):
    return np.concatenate([np.ravel(one) for one in weights])


def nearest(fed, model, server):
    """Returns how near anything that leaves comes to what alice alone has trained; one round over all of her rows."""
    before = [one.astype(np.float64) for one in weights_of(model)]
    kernel, bias = gradient(before, *fed.parts[0])
    own = flat([before[0] - RATE * kernel, before[1] - RATE * bias])
    with pytest.raises(ProtocolError) as found:
        model.fit(fed.x, fed.y, batch_size=ROWS, verbose=0)
    server["lie"] = None
    shown = [flat(weights_of(model))]
    with suppress(ProtocolError):
        model.evaluate(fed.x, fed.y, verbose=0)
    return min(np.abs(one - own).max() for one in [*shown, *server["published"]]), found.value


def kept_from_all(_, __, answer):
    return replace(answer, verdict="abandoned")


def test_a_sum_of_a_round_that_was_called_off_is_taken_by_nobody(start, server):
    fed, model = federated(start)
    server["lie"] = kept_from_all
    near, error = nearest(fed, model, server)
    assert isinstance(error, ServerFault)
    assert near > 0.01


@contextmanager
def whatever_was_said(self, segment):
    """Stands in for `Trainer._unless_opened`: what the round changed is kept."""
    segment.local = None
    yield []


def test_a_party_that_takes_it_publishes_its_own_weights(start, server, monkeypatch):
    """The broken variant: a party that believes sum and verdict one by one, and reads its model where it trains."""
    monkeypatch.setattr(Contributor, "_check_set", lambda *_: None)
    monkeypatch.setattr(LocalModel, "put_back", lambda _: None)
    monkeypatch.setattr(Trainer, "_unless_opened", whatever_was_said)
    fed, model = federated(start)
    server["lie"] = kept_from_all
    near, _ = nearest(fed, model, server)
    assert near < 1e-6


@pytest.mark.parametrize("members", [("alice", "bob", "carol"), ("bob", "alice", "carol", "dave"), ()])
def test_a_set_that_the_compute_parties_have_not_signed_is_the_server_s_fault(start, server, members):
    fed, model = federated(start)
    server["lie"] = lambda *told: replace(told[-1], opened=replace(told[-1].opened, members=members))
    with pytest.raises(ServerFault, match="server 'server' says that round 0 was summed over"):
        model.fit(fed.x, fed.y, batch_size=ROWS, verbose=0)


def test_sums_of_shares_have_no_smaller_view(start, server):
    fed, model = federated(start)
    server["lie"] = lambda *told: replace(told[-1], view=View(1, ("alice", "bob", "carol")))
    with pytest.raises(ServerFault, match="put a smaller view into an answer 'opened'"):
        model.fit(fed.x, fed.y, batch_size=ROWS, verbose=0)


class Standing:
    """A server that says of each round that it came to nothing, so that the model stands still, and keeps the sums.

    From the second epoch on it says to carol's compute party alone that the others go on
    without her: what is then summed of the same rows, on the same model, is without her.
    """

    def __init__(self, monkeypatch):
        self.sums, self.told = [], {}
        self._alone = None
        exchange = Contributor.exchange

        def watched(end, call, context, contribution):
            self.told[context.number] = end._config, context.manifest, context.purpose
            return exchange(end, call, context, contribution)

        monkeypatch.setattr(Contributor, "exchange", watched)

    def lie(self, sender, number, answer):
        if self.told[number][2] != "train":
            return answer
        if sender == "alice":
            self.sums.append((number, answer.opened))
        if number > 2:
            self._alone = number if self._alone is None else self._alone
            if sender == "zoe" and number == self._alone:
                return Answer("left", reason="too late")
        return Answer("abandoned")

    def read(self):
        """Returns what the difference of two sums says of who is in one of them only: name -> its weights."""
        opened = []
        for number, found in self.sums:
            config, manifest, _ = self.told[number]
            one = decode(config.encoding, config.contributors, manifest, found)
            opened.append((set(found.members), one.values * one.weight, one.weight))
        for over, total, weight in opened:
            for fewer, rest, left in opened:
                if len(over - fewer) == 1 and weight > left:
                    yield (over - fewer).pop(), (total - rest) / (weight - left)


def carol_s(start, server, monkeypatch):
    """Returns how near the server comes to what carol has trained, and the error; five owners, zoe only computes."""
    standing = Standing(monkeypatch)
    # Strict egress would withhold what is said: `Standing` looks on from amid our own calls, as user code does.
    more = NUMPY | {"egress": "default"}
    fed = world(lambda address, parties, **rest: start(address, (*parties, "zoe"), **rest), rows=(ROWS,) * 5, **more)
    model = fed.model(aggregator=SPUAggregator(sf.SPU(cluster_def(["alice", "bob", "zoe"])), round_timeout=1.0))
    kernel, bias = (one.astype(np.float64) for one in weights_of(model))
    server["lie"], error = standing.lie, None
    try:
        model.fit(fed.x, fed.y, batch_size=8, epochs=2, verbose=0, shuffle=False)
    except ProtocolError as found:
        error = found
    near = np.inf
    for name, shown in standing.read():
        assert name == "carol"
        for half in (slice(0, 8), slice(8, 16)):
            steps = gradient([kernel, bias], *(part[half] for part in fed.parts[2]))
            near = min(near, np.abs(shown - flat([kernel - RATE * steps[0], bias - RATE * steps[1]])).max())
    return near, error


def test_a_server_that_keeps_a_sum_and_calls_the_round_off_ends_the_run(start, server, monkeypatch):
    near, error = carol_s(start, server, monkeypatch)
    assert isinstance(error, ServerFault)
    assert "said 'abandoned' of round 0, whose sum it was sent" in str(error)
    assert near == np.inf, "there is one sum, and nothing to hold against it"


def test_parties_that_believe_it_show_what_one_of_them_has_trained(start, server, monkeypatch):
    """The broken variant: nobody asks whether there is a sum, nor over whom the rows were summed before."""
    monkeypatch.setattr(SumStep, "_told", lambda step, _: RoundOutcome(step.answer, believed(step)))
    monkeypatch.setattr(ComputeRounds, "not_opened", lambda rounds, number, _: rounds.over(number) or "")
    monkeypatch.setattr(Member, "allows_only", lambda *_: False)
    near, error = carol_s(start, server, monkeypatch)
    assert error is None
    assert near < 1e-6


def believed(step):
    return step.proof if step.answer.verdict == "opened" else b""
