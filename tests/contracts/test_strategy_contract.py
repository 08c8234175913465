# SPDX-License-Identifier: Apache-2.0
"""What every strategy must do, whatever it computes; a new one joins by its line in the table.

`drift` stands for those to come: two uplinks, of which one counts every party once, a downlink, states on both sides.
"""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from fedray.strategies import STRATEGIES, Strategy, halves, make_strategy
from fedray.strategies.halves import ServerState, advance, known, payload
from fedray.strategies.strategy import Uplink, no_state

WEIGHTS = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
LOCAL = np.array([0.25, -1.5, 2.0, 1.0], np.float32)
OTHER = np.array([7.0, 8.0], np.float32)
"""Words that no optimizer changes."""


def drift() -> Strategy:
    """Control variates in their simplest form: what a party drifts from the others is taken out of its gradients."""

    def begin(state, weights, told):
        return {**state, "away": told["control"] - state["control"], "rounds": state["rounds"] + 1}

    def finish(state, weights, local):
        moved = {**state, "control": state["control"] + (weights - local)}
        return moved, {"update": local - weights, "control": moved["control"]}

    def update(state, weights, means):
        new = (weights + means["update"]).astype(weights.dtype)
        return {"sums": state["sums"] + 1}, new, {"control": means["control"].astype(weights.dtype)}

    return Strategy(
        "drift",
        {},
        (Uplink("update"), Uplink("control", weighted=False)),
        finish,
        update,
        downlink=("control",),
        client_init=lambda weights: {"control": np.zeros_like(weights), "rounds": 0.0},
        client_begin=begin,
        client_hook=lambda state, gradient, _: gradient + state["away"],
        server_init=lambda _: {"sums": 0.0},
    )


STRATEGIES_UNDER_TEST = {name: partial(make_strategy, name) for name in STRATEGIES} | {"drift": drift}


@pytest.fixture(params=sorted(STRATEGIES_UNDER_TEST))
def strategy(request):
    return STRATEGIES_UNDER_TEST[request.param]()


def party(strategy, state=None, weights=WEIGHTS, local=LOCAL, vectors=()):
    """A party's half of one round: returns (state during it, state after it, what it sends)."""
    state = strategy.client_init(weights) if state is None else state
    during = strategy.client_begin(state, weights, known(strategy, vectors, weights))
    after, sent = strategy.client_finish(during, weights, local)
    return during, after, sent


def mean_of(strategy, payloads, weights=(1.0, 3.0)):
    """Returns the mean as the parties' sum opens it: by rows, but for uplinks that count each party once."""
    once = np.repeat([not uplink.weighted for uplink in strategy.uplink] + [False], [4] * len(strategy.uplink) + [2])
    return np.where(once, np.mean(payloads, axis=0), np.average(payloads, axis=0, weights=weights))


def rounds(strategy, count, store=lambda state: state):
    """Runs rounds among two parties and the server; `store` stands for what happens to states between rounds.

    Returns the global vector and what is known after each round.
    """
    server = ServerState(np.concatenate([WEIGHTS, OTHER]))
    states, seen = [None, None], []
    for number in range(count):
        payloads = []
        for place, shift in enumerate((1.0, -0.5)):
            weights = server.weights[:4]
            local = weights + np.float32(shift) * LOCAL * np.float32(1 + number)
            _, states[place], sent = party(strategy, states[place], weights, local, server.known)
            payloads.append(payload(strategy, sent, OTHER * np.float32(shift)).astype(np.float64))
        new = advance(strategy, server, 4, stretches(mean_of(strategy, payloads)))
        server = store(ServerState(server.weights, new.state, new.known) if strategy.local == "gradient" else new)
        states = [store(state) for state in states]
        seen.append((new.weights.tobytes(), [vector.tobytes() for vector in new.known]))
    return seen


def stretches(words):
    """Returns what reads stretches of a mean."""
    return lambda start, stop: words[start:stop].copy()


def test_a_long_vector_is_stepped_in_stretches_and_comes_out_the_same(strategy, monkeypatch):
    """What a strategy does to a word depends on that word alone: else parties with other stretches would differ."""
    whole = rounds(strategy, 4)
    monkeypatch.setattr(halves, "STRETCH", 3)
    assert rounds(strategy, 4) == whole


def test_a_strategy_that_looks_at_the_whole_vector_would_be_found(monkeypatch):
    """The broken variant: a step along the change, cut to length 1."""
    made = make_strategy("fed_avg_u")

    def update(state, weights, means):
        return state, (weights + means["update"] / np.linalg.norm(means["update"])).astype(weights.dtype), {}

    clipped = replace(made, server_update=update)
    whole = rounds(clipped, 2)
    monkeypatch.setattr(halves, "STRETCH", 3)
    assert rounds(clipped, 2) != whole


def frozen(value):
    """Returns nested states with their arrays as bytes, to be compared."""
    if isinstance(value, dict):
        return {name: frozen(item) for name, item in value.items()}
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def test_it_carries_the_name_and_the_settings_it_is_asked_for_by():
    for name in STRATEGIES:
        made = make_strategy(name)
        again = make_strategy(made.name, made.parameters)
        assert (again.name, again.parameters) == (name, made.parameters)


def test_every_uplink_is_a_vector_over_the_trainable_words(strategy):
    _, _, sent = party(strategy)
    assert set(sent) == {uplink.name for uplink in strategy.uplink}
    assert all((vector.shape, vector.dtype) == (WEIGHTS.shape, WEIGHTS.dtype) for vector in sent.values())
    words = payload(strategy, sent, OTHER)
    assert (words.shape, words.dtype) == ((4 * len(strategy.uplink) + 2,), WEIGHTS.dtype)


def test_the_server_answers_with_a_vector_of_the_model_and_every_downlink(strategy):
    words = payload(strategy, party(strategy)[2], OTHER).astype(np.float64)
    new = advance(strategy, ServerState(np.concatenate([WEIGHTS, OTHER])), 4, stretches(words))
    assert (new.weights.shape, new.weights.dtype) == ((6,), WEIGHTS.dtype)
    assert [(vector.shape, vector.dtype) for vector in new.known] == [((4,), WEIGHTS.dtype)] * len(strategy.downlink)


def test_words_that_no_optimizer_changes_are_averaged_and_never_stepped(strategy):
    words = payload(strategy, party(strategy)[2], OTHER).astype(np.float64)
    new = advance(strategy, ServerState(np.concatenate([WEIGHTS, np.zeros_like(OTHER)])), 4, stretches(words))
    assert new.weights[4:].tolist() == OTHER.tolist()


def test_nothing_it_is_given_is_changed(strategy):
    """States above all: a round that is taken back goes on from the old one."""
    _, state, _ = party(strategy)
    first = payload(strategy, party(strategy)[2], OTHER[:0]).astype(np.float64)
    server = advance(strategy, ServerState(WEIGHTS), 4, stretches(first))
    before = frozen(dict(state)), frozen(dict(server.state)), WEIGHTS.tobytes(), LOCAL.tobytes()
    _, _, sent = party(strategy, state, vectors=server.known)
    mean = payload(strategy, sent, OTHER[:0]).astype(np.float64)
    copy = mean.copy()
    advance(strategy, ServerState(WEIGHTS, server.state, server.known), 4, stretches(mean))
    assert (frozen(dict(state)), frozen(dict(server.state)), WEIGHTS.tobytes(), LOCAL.tobytes()) == before
    assert np.array_equal(mean, copy)


def test_the_same_input_gives_the_same_state_and_the_same_vectors(strategy):
    assert rounds(strategy, 4) == rounds(strategy, 4)


def test_states_are_vectors_and_numbers_that_survive_a_file(strategy):
    """A checkpoint holds them, and a run that was interrupted goes on as if it had not been."""

    def through_a_file(value):
        state = value.state if isinstance(value, ServerState) else value
        for item in state.values():
            assert isinstance(item, float) or item.shape == WEIGHTS.shape
        return pickle.loads(pickle.dumps(value))

    assert rounds(strategy, 4, through_a_file) == rounds(strategy, 4)


def test_a_strategy_that_forgets_is_seen_by_these_tests(strategy):
    """The broken variant of the test above: states that begin anew in every round."""

    def forgetful(value):
        return ServerState(value.weights) if isinstance(value, ServerState) else None

    remembers = strategy.client_init is not no_state or strategy.server_init is not no_state
    assert (rounds(strategy, 4, forgetful) != rounds(strategy, 4)) == remembers


def test_a_party_without_rows_sends_finite_words(strategy):
    """Its weight is zero, so they count nothing, but they are encoded."""
    _, _, sent = party(strategy, local=WEIGHTS)
    assert all(np.isfinite(vector).all() for vector in sent.values())


def test_the_hook_computes_the_same_in_a_framework(strategy):
    """It gets tensors, so NumPy functions would break it."""
    if strategy.client_hook is None:
        pytest.skip("no hook")
    import tensorflow as tf

    during, _, _ = party(strategy, vectors=tuple(np.full(4, 0.25, np.float32) for _ in strategy.downlink))
    gradient = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    held = {name: tf.constant(value, tf.float32) for name, value in during.items()}
    there = strategy.client_hook(held, tf.constant(gradient), tf.constant(LOCAL)).numpy()
    assert there.tobytes() == np.asarray(strategy.client_hook(during, gradient, LOCAL), np.float32).tobytes()


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_it_travels_to_a_party(name):
    strategy = make_strategy(name)
    again = pickle.loads(pickle.dumps(strategy))
    assert rounds(again, 2) == rounds(strategy, 2)
