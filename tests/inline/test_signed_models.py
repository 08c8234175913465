# SPDX-License-Identifier: Apache-2.0
"""A model that is handed round as a whole is signed by the party that sends it: the server passes it on, or nothing."""

from dataclasses import replace

import numpy as np
import pytest
from inline.federated import weights_of, world

from fedray.errors import ProtocolError, ServerFault
from fedray.ml.nn.numpy import LinearRegression
from fedray.party.context import Reply
from fedray.party.door.egress import Kind
from fedray.party.records import ModelMessage, ModelRequest
from fedray.party.rounds.server import RoundServer
from fedray.party.training import local_model, model_rounds
from fedray.party.training.handing import pack
from fedray.party.training.model_rounds import ModelRounds
from fedray.security.aggregation import PlainAggregator, SecureAggregator

TARGETS = np.random.default_rng(5).normal(size=(60, 1))
REFUSED = "party 'bob': the model that server 'server' handed out is not what party 'alice' has signed for this session"


def regression():
    return LinearRegression(features=4, learning_rate=0.05)


@pytest.fixture
def handing(monkeypatch):
    """Returns a function that lets the server hand bob something else than what alice has published."""
    deliver, published = RoundServer.deliver, []

    def other(change):
        def told(self, sender, message):
            if isinstance(message, ModelMessage):
                published.append(message)
            reply = deliver(self, sender, message)
            if isinstance(message, ModelRequest) and sender == "bob":
                return Reply(reply.kind, change(reply.value, published))
            return reply

        monkeypatch.setattr(RoundServer, "deliver", told)

    return other


def federated(start, aggregator=SecureAggregator, **settings):
    fed = world(start, rows=(20, 20, 20), y=TARGETS, backend="numpy")
    return fed, fed.model(regression, aggregator=aggregator(fed.server, fed.devices), **settings)


def fit(fed, model, batch_size=5):
    return model.fit(fed.x, fed.y, batch_size=batch_size, verbose=0)


CHANGES = {
    "weights": lambda m, _: replace(m, weights=m.weights + np.float32(1e-6)),
    "a type": lambda m, _: replace(m, weights=m.weights.astype(np.float64)),
    "reaches": lambda m, _: replace(m, reaches=(3, 3)),
    "a state": lambda m, _: replace(m, state=()),
    "a downlink": lambda m, _: replace(m, known=(m.weights,)),
    "where it is from": lambda m, _: replace(m, initial=not m.initial),
    "no signature": lambda m, _: replace(m, signature=b""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_altered_model_is_taken_by_nobody(start, handing, change):
    fed, model = federated(start)
    handing(change)
    with pytest.raises(ProtocolError, match=REFUSED):
        fit(fed, model)


LOOK_ALIKES = {
    "reaches of text": lambda m: replace(m, reaches=("",)),
    "no tuple": lambda m: replace(m, reaches=[]),
    "where it is from as a number": lambda m: replace(m, initial=1.5),
    "no list of downlinks": lambda m: replace(m, known=[]),
    "weights as a list": lambda m: replace(m, weights=m.weights.tolist()),
    "another record": lambda m: m.weights,
    "a signature as text": lambda m: replace(m, signature=m.signature.hex()),
}


@pytest.mark.parametrize("change", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_other_types_that_would_be_signed_alike_are_taken_by_nobody(start, handing, change):
    fed, model = federated(start)
    handing(lambda message, _: change(message))
    with pytest.raises(ServerFault, match=REFUSED):
        fit(fed, model)


@pytest.mark.parametrize("aggregator", [SecureAggregator, PlainAggregator])
def test_the_model_of_an_earlier_session_is_taken_by_nobody(start, handing, aggregator):
    fed, model = federated(start, aggregator)
    handing(lambda _, published: published[0])
    fit(fed, model)
    with pytest.raises(ProtocolError, match=REFUSED):
        fit(fed, model, batch_size=10)  # another largest weight, and so another session


def test_a_party_that_does_not_look_at_the_signature_takes_what_it_should_not(start, handing, monkeypatch):
    """The broken variant."""
    monkeypatch.setattr(model_rounds, "verify", lambda *_: True)
    fed, model = federated(start)
    handing(CHANGES["weights"])
    with pytest.raises(ProtocolError, match="bob took part with another model, settings or history"):
        fit(fed, model)


def test_a_model_goes_round_with_the_state_of_the_strategy(start, handing):
    seen = []
    fed, model = federated(start, strategy="fed_adam")
    handing(lambda message, _: seen.append(message) or message)
    fit(fed, model)
    fit(fed, model, batch_size=10)
    first, second = seen
    assert (first.initial, first.state, first.reaches) == (True, None, ())
    assert not second.initial
    assert [name for name, _ in second.state] == ["m", "v"]
    assert len(second.reaches) == 2


def test_whoever_builds_other_weights_is_named_and_the_signed_ones_are_used(start, caplog, monkeypatch):
    """As where a builder draws weights by itself, or on other machines."""
    made, make = [], local_model.make_backend

    def making(name, builder, seed, *rest):
        made.append(seed)
        return make(name, builder, seed + len(made), *rest)

    monkeypatch.setattr(local_model, "make_backend", making)
    fed, model = federated(start)
    (text,) = [text for text in fit(fed, model).notices if "built other initial weights" in text]
    assert text.startswith("model: 'bob', 'carol' built other initial weights than 'alice' under the same seed")
    assert text in caplog.text


def test_weights_that_are_loaded_are_signed_too(start, handing, tmp_path):
    fed, model = federated(start)
    fit(fed, model)
    model.save(tmp_path / "model.npz")
    saved = weights_of(model)
    fit(fed, model)
    model.load(tmp_path / "model.npz")
    assert all(np.array_equal(*pair) for pair in zip(saved, weights_of(model), strict=True))
    handing(CHANGES["weights"])
    with pytest.raises(ProtocolError, match=REFUSED):
        model.load(tmp_path / "model.npz")


def test_what_others_publish_does_not_come_in_the_place_of_the_first_party_s(start, monkeypatch):
    pull = ModelRounds.pull

    def lying(self, sender, initial):
        if self._model.party == "bob":
            other = replace(pack(self._model), weights=self._model.weights + 1, signature=bytes(64))
            self._contributor.ask_server("publish the model", other, Kind.AGGREGATE)
        return pull(self, sender, initial)

    monkeypatch.setattr(ModelRounds, "pull", lying)
    fed, model = federated(start)
    fit(fed, model)


@pytest.mark.parametrize("says", [True, False])
def test_whatever_a_party_calls_its_first_weights_others_compare_them(start, monkeypatch, caplog, says):
    """alice hands round weights that no builder made, signed, and says that they are, or are not, what it has built."""
    publish = ModelRounds.publish

    def lying(self):
        if self._model.party == "alice":
            self._model.backend.set_weights(self._model.backend.weights() + np.float32(0.25))
            self._model.as_built = says
        return publish(self)

    monkeypatch.setattr(ModelRounds, "publish", lying)
    fed, model = federated(start)
    history = fit(fed, model)
    (told,) = [one for one in history.notices if "built other initial weights" in one]
    assert "'bob', 'carol' built other initial weights than 'alice'" in told


def test_weights_that_were_loaded_are_nobody_s_first_ones(start, tmp_path, caplog):
    fed, model = federated(start)
    fit(fed, model)
    model.save(tmp_path / "model.npz")
    fed.model(regression).load(tmp_path / "model.npz")
    assert "built other initial weights" not in caplog.text
