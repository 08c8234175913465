# SPDX-License-Identifier: Apache-2.0
"""The server adds, and nobody believes it more: it knows no model, and what it tells one party alone comes to light."""

import gc
import re
from dataclasses import replace

import numpy as np
import pytest
from inline.dropouts import PATCHED, at, happening, sleeping
from inline.federated import weights_of, world
from inline.turned_clock import turn_clock

import fedray as sf
from fedray.errors import ProtocolError
from fedray.ml.nn.numpy import LinearRegression
from fedray.party.context import Reply
from fedray.party.records import Answer, PastRound, RoundMessage
from fedray.party.rounds.server import RoundServer
from fedray.party.training.trainer import Trainer
from fedray.protocol.checks.judge import Judge
from fedray.protocol.scheme import View
from fedray.security.aggregation import PlainAggregator, SecureAggregator

MODES = ["abandon", "recover"]
TARGETS = np.random.default_rng(5).normal(size=(80, 1))


def regression():
    return LinearRegression(features=4, learning_rate=0.05, momentum=0.5)


@pytest.fixture
def lying(monkeypatch):
    """Returns a function that lets the server tell a party another answer in the rounds that a test chooses.

    It has an ally, and so the secret of the checks, which fit whatever it makes up (`test_altered_sums.py` is without).
    """
    deliver = RoundServer.deliver
    monkeypatch.setattr(Judge, "verify", lambda *_, **__: None)

    def lie(party, rounds, change):
        def told(self, sender, message):
            reply = deliver(self, sender, message)
            opened = reply.value.opened if isinstance(message, RoundMessage) and message.number in rounds else None
            if sender == party and opened is not None:
                return Reply(reply.kind, replace(reply.value, opened=change(opened)))
            return reply

        monkeypatch.setattr(RoundServer, "deliver", told)

    return lie


def one_more(opened, place=0, size=1 << 40):
    """Returns a sum of which one word is larger by a little, so that it leaves no range."""
    words = opened.words.copy()
    words[place] += np.uint64(size)
    return replace(opened, words=words)


def another_number(opened):
    return one_more(opened, size=1)


def another_total(opened):
    return one_more(opened, -2, 1)


def federated(start, rows=(20, 20, 20), mode="abandon", **settings):
    fed = world(start, rows=rows, y=TARGETS[: sum(rows)], backend="numpy")
    return fed, fed.model(regression, aggregator=SecureAggregator(fed.server, fed.devices, on_dropout=mode), **settings)


def test_a_party_that_was_told_another_last_sum_is_named_and_the_others_go_on(start, lying, monkeypatch):
    fed, model = federated(start)
    lying("alice", [3], one_more)
    with pytest.raises(ProtocolError, match="model that follows: 'alice' came to another result than 'bob', 'carol'"):
        model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    monkeypatch.undo()
    right = weights_of(model)
    model.evaluate(fed.x, fed.y, verbose=0)  # in a new session, with the model of those who agree
    assert all(np.array_equal(*pair) for pair in zip(right, weights_of(model), strict=True))


@pytest.mark.parametrize("strategy", ["fed_avg_w", "fed_avg_g", "fed_adam"])
def test_a_party_that_was_told_another_sum_is_in_no_later_one(start, lying, strategy):
    """Its model differs, and with it the keys of the next round."""
    fed, model = federated(start, strategy=strategy)
    lying("bob", [1], one_more)
    with pytest.raises(ProtocolError, match="bob took part with another model, settings or history"):
        model.fit(fed.x, fed.y, batch_size=5, verbose=0)


@pytest.mark.parametrize("aggregator", [SecureAggregator, PlainAggregator])
def test_metrics_and_sums_of_values_are_compared(start, lying, aggregator):
    fed, model = federated(start)
    summing = aggregator(fed.server, fed.devices)
    values = [device(lambda: np.arange(3))() for device in fed.devices]
    assert list(summing.sum(values)) == [0, 3, 6]
    lying("carol", range(9), another_number)
    with pytest.raises(ProtocolError, match="party 'carol' was handed another sum than party 'alice'"):
        aggregator(fed.server, fed.devices).sum(values)
    lying("carol", range(9), another_total)
    with pytest.raises(ProtocolError, match="differ on the joint metrics: 'carol' came to another result"):
        model.evaluate(fed.x, fed.y, verbose=0)


NOTHING = {
    "abandoned": lambda _: Answer("abandoned"),
    "missed": lambda message: Answer("missed", number=message.number + 1, missed=(PastRound(message.number, None),)),
}


@pytest.mark.parametrize(
    ("told", "mode"),
    [
        ("abandoned", "abandon"),
        ("abandoned", "recover"),
        ("missed", "recover"),
    ],
)
def test_a_party_that_alone_is_told_that_nothing_was_opened_comes_to_light(start, monkeypatch, told, mode):
    fed, _ = federated(start)
    summing = SecureAggregator(fed.server, fed.devices, on_dropout=mode)
    deliver = RoundServer.deliver

    def lie(self, sender, message):
        reply = deliver(self, sender, message)
        opened = isinstance(message, RoundMessage) and reply.value.verdict == "opened"
        return Reply(reply.kind, NOTHING[told](message)) if opened and sender == "carol" else reply

    monkeypatch.setattr(RoundServer, "deliver", lie)
    values = [device(lambda: np.arange(3))() for device in fed.devices]
    with pytest.raises(
        ProtocolError, match="'carol' had it from the server that nothing was opened, and 'alice', 'bob'"
    ):
        summing.sum(values)
    monkeypatch.undo()
    assert list(summing.sum(values)) == [0, 3, 6], "in a new session"


def test_a_party_that_alone_goes_no_further_is_not_passed_over_in_silence(start, monkeypatch, caplog):
    fed, _ = federated(start)
    deliver = RoundServer.deliver

    def lie(self, sender, message):
        reply = deliver(self, sender, message)
        opened = isinstance(message, RoundMessage) and reply.value.verdict == "opened"
        smaller = Answer("abandoned", view=View(1, ("alice", "carol")))
        return Reply(reply.kind, smaller) if opened and sender == "carol" else reply

    monkeypatch.setattr(RoundServer, "deliver", lie)
    SecureAggregator(fed.server, fed.devices).sum([device(lambda: np.arange(3))() for device in fed.devices])
    assert "party 'carol' went no further, and server 'server' does not say so: " in caplog.text


@pytest.mark.parametrize(
    "members", [("alice", "bob"), ("bob", "alice", "carol"), (), ("alice", "bob", "carol", "mallory")]
)
@pytest.mark.parametrize("mode", ["abandon", "recover"])
def test_a_set_that_the_parties_have_not_seen_is_refused(start, lying, members, mode):
    fed, model = federated(start, mode=mode)
    lying("bob", [1], lambda opened: replace(opened, members=members))
    with pytest.raises(ProtocolError, match="server 'server' says that round 1 was summed over"):
        model.fit(fed.x, fed.y, batch_size=5, verbose=0)


@pytest.fixture
def put_back(monkeypatch):
    """Puts back what the steps replace."""
    for cls, name in PATCHED:
        monkeypatch.setattr(cls, name, getattr(cls, name))


def late(start, tmp_path, monkeypatch, **settings):
    """Lets bob miss two rounds amid a segment, in which four parties train; returns the history."""
    gate = tmp_path / "open"
    turn_clock(monkeypatch, "bob", gate)
    fed, model = federated(start, rows=(20, 20, 20, 20), mode="recover", **settings)
    at(fed.devices[1], happening("bob", "before its input leaves", 1, sleeping(str(gate))))

    back, deliver = tmp_path / "back", RoundServer.deliver

    def heard(self, sender, message):
        reply = deliver(self, sender, message)
        if sender == "bob" and isinstance(message, RoundMessage) and message.number == 1:
            back.touch()
        return reply

    def wake():
        import time

        gate.touch()
        until = time.monotonic() + 60
        while not back.exists() and time.monotonic() < until:
            time.sleep(0.01)

    monkeypatch.setattr(RoundServer, "deliver", heard)
    at(fed.devices[0], happening("alice", "before its input leaves", 3, wake))
    return model.fit(fed.x, fed.y, batch_size=4, verbose=0)


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("strategy", ["fed_avg_w", "fed_avg_g", "fed_adam"])
def test_a_party_that_misses_rounds_follows_the_sums(start, tmp_path, monkeypatch, strategy):
    """With the optimizer's state of `fed_avg_g` and the server state of `fed_adam`: it takes part again at once."""
    history = late(start, tmp_path, monkeypatch, strategy=strategy)
    assert [(one.party, one.round, one.rounds) for one in history.dropouts] == [("bob", 1, 2)]
    assert len(history.local_history["bob"]["loss"]) == 1
    assert not history.faults


@pytest.mark.usefixtures("put_back")
def test_a_party_that_passes_over_the_sums_would_be_found(start, tmp_path, monkeypatch):
    """The broken variant: it goes on with the model that it had, and no later sum has its input."""

    def passed_over(self, segment, past):
        segment.done += 1

    monkeypatch.setattr(Trainer, "_follow", passed_over)
    history = late(start, tmp_path, monkeypatch)
    assert {fault.party for fault in history.faults} == {"bob"}
    assert history.dropouts[0].rounds > 2


def test_the_server_holds_no_model_and_no_state_of_a_strategy(start):
    fed, model = federated(start, strategy="fed_adam")
    first = weights_of(model)[0]
    model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    servers = [item for item in gc.get_objects() if isinstance(item, RoundServer) and item._published]
    published = {id(one): next(iter(one._published.values())) for one in servers}
    held = [one for one in servers if np.array_equal(published[id(one)].weights[: first.size], first.ravel())]
    assert held, "the model with which all began it has passed on"
    for server in held:
        assert published[id(server)].state is None
        assert not any(isinstance(value, np.ndarray) for value in vars(server).values())


@pytest.mark.parametrize("mode", MODES)
def test_a_party_that_is_alone_turned_away_from_the_last_round_is_told_of_and_brought_along(
    start, monkeypatch, caplog, mode
):
    """Its input is in the sum, and it has not the model that follows from it."""
    fed, model = federated(start, mode=mode)
    deliver = RoundServer.deliver

    def lie(self, sender, message):
        reply = deliver(self, sender, message)
        last = isinstance(message, RoundMessage) and message.number == 3 and reply.value.verdict == "opened"
        return Reply(reply.kind, Answer("left", reason="too late")) if last and sender == "carol" else reply

    monkeypatch.setattr(RoundServer, "deliver", lie)
    history = model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    monkeypatch.undo()
    (told,) = [one for one in history.notices if "went no further" in one]
    assert told.startswith("epoch 1: party 'carol' went no further, and the server does not say so: ")
    assert told in caplog.text
    kernel, bias = weights_of(model)
    predicted = model.predict(fed.x)
    for device, (rows, _) in zip(fed.devices, fed.parts, strict=True):
        np.testing.assert_allclose(np.ravel(sf.reveal(predicted[device])), np.ravel(rows @ kernel + bias), rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_evaluation_whose_sum_the_server_keeps_is_told_of(start, monkeypatch, caplog, mode):
    fed, model = federated(start, mode=mode)
    model.fit(fed.x, fed.y, batch_size=5, verbose=0)
    deliver, kept = RoundServer.deliver, []

    def lie(self, sender, message):
        reply = deliver(self, sender, message)
        if isinstance(message, RoundMessage) and reply.value.verdict == "opened" and len(kept) < 3:
            kept.append(sender)
            return Reply(reply.kind, Answer("abandoned"))
        return reply

    monkeypatch.setattr(RoundServer, "deliver", lie)
    model.evaluate(fed.x, fed.y, verbose=0)
    assert re.search(r"evaluation: round \d+ came to no sum, and the server named nobody as missing", caplog.text)
    assert sorted(kept) == ["alice", "bob", "carol"]
