# SPDX-License-Identifier: Apache-2.0
"""A server that changes one bit of a sum before it hands it out: whole runs, with every aggregator that protects."""

from dataclasses import replace

import numpy as np
import pytest
from inline.federated import as_bytes, world

import fedray as sf
from fedray.errors import ServerFault
from fedray.party.rounds.server import RoundServer
from fedray.protocol.checks.judge import Judge
from fedray.protocol.masking.collector import ViewCollector
from fedray.protocol.recovery.collector import RecoveryCollector
from fedray.protocol.sharing.collector import SharingCollector
from fedray.security.aggregation import PlainAggregator, SecureAggregator, SPUAggregator
from fedray.utils.testing import cluster_def

COLLECTORS = (ViewCollector, RecoveryCollector, SharingCollector)
AGGREGATORS = {
    "abandon": lambda fed: SecureAggregator(fed.server, fed.devices, on_dropout="abandon"),
    "recover": lambda fed: SecureAggregator(fed.server, fed.devices, on_dropout="recover"),
    "shares": lambda _: SPUAggregator(sf.SPU(cluster_def(["alice", "server"]))),
}


@pytest.fixture
def lying(monkeypatch):
    """Lets the server change one bit of the first word of its n-th sum; returns a setter for n and the bit."""
    state = {"at": None, "opened": 0, "bit": 0}

    def altered(opening):
        def open_(self):
            opened = opening(self)
            state["opened"] += 1
            if state["opened"] == state["at"]:
                words = opened.words.copy()
                words[0] ^= np.uint64(1 << state["bit"])
                return replace(opened, words=words)
            return opened

        return open_

    for collector in COLLECTORS:
        monkeypatch.setattr(collector, "open", altered(collector.open))

    def lie(at, bit=0):
        state.update(at=at, opened=0, bit=bit)

    return lie


def fit(fed, aggregator):
    model = fed.model(aggregator=AGGREGATORS[aggregator](fed))
    model.fit(fed.x, fed.y, batch_size=8, verbose=0)
    return model


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_one_bit_of_one_round_ends_the_run_and_names_the_server(start, lying, aggregator):
    fed = world(start, rows=(16, 16, 16, 16), backend="numpy")
    lying(2)
    with pytest.raises(ServerFault, match="sum of round 1 that server handed out is refused, and the session is over"):
        fit(fed, aggregator)


def test_the_bit_would_have_changed_the_model_without_a_word(start, lying, monkeypatch):
    """The broken variant: nobody verifies."""
    monkeypatch.setattr(Judge, "verify", lambda *_, **__: None)
    found = []
    for at in (None, 2):
        fed = world(start, rows=(16, 16, 16, 16), backend="numpy")
        lying(at, bit=40)  # one that is more than the last place of a float32
        found.append(as_bytes(fit(fed, "recover")))
        sf.shutdown()
    assert found[0] != found[1]


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_sums_of_values_and_metrics_are_verified_as_well(start, lying, aggregator):
    fed = world(start, rows=(16, 16, 16, 16), backend="numpy")
    summing = AGGREGATORS[aggregator](fed)
    values = [device(lambda: np.arange(3))() for device in fed.devices]
    if aggregator == "shares":
        summing = summing.bind(fed.server, fed.devices)
    assert summing.sum(values).tolist() == [0, 4, 8]
    lying(1)
    with pytest.raises(ServerFault, match="that server handed out is refused"):
        summing.sum(values)
    model = fed.model(aggregator=AGGREGATORS[aggregator](fed))
    lying(1)
    with pytest.raises(ServerFault, match="that server handed out is refused"):
        model.evaluate(fed.x, fed.y)


def test_the_plain_sum_is_believed(start, lying):
    fed = world(start, rows=(16, 16), backend="numpy")
    lying(1)
    values = [device(lambda: np.arange(3))() for device in fed.devices]
    assert PlainAggregator(fed.server, fed.devices).sum(values).tolist() == [1, 2, 4]


@pytest.mark.parametrize("aggregator", ["abandon", "recover"])
def test_different_answers_to_different_parties(start, aggregator, monkeypatch):
    """One party alone is told something else; the others' answers are the sum."""
    deliver = RoundServer.deliver

    def lying(self, sender, message):
        reply = deliver(self, sender, message)
        opened = getattr(reply and reply.value, "opened", None)
        if sender == "carol" and opened is not None:
            words = opened.words.copy()
            words[0] += np.uint64(3)
            return replace(reply, value=replace(reply.value, opened=replace(opened, words=words)))
        return reply

    monkeypatch.setattr(RoundServer, "deliver", lying)
    fed = world(start, rows=(16, 16, 16, 16), backend="numpy")
    with pytest.raises(ServerFault, match="party 'carol': the sum of round 0 that server handed out is refused"):
        fit(fed, aggregator)
