# SPDX-License-Identifier: Apache-2.0
"""Processes killed at every step of a round, on Ray: the survivors' sum, exactly, or none; and never a wait.

One session serves the whole file: three parties and a server that live, and one party for each death.
In one process every step is tried, by `tests/inline/test_dropouts.py`; of those here, half are `slow`.
"""

import os
import time

import pytest
from inline.dropouts import ABANDONED, RECOVERED, amounts, at, ending, happening, lets_end, sleeping, total
from inline.federated import weights_of
from inline.training_dropouts import EPOCHS, ROUNDS, federated, fit, matches

import fedray as sf
from fedray.errors import PartyLost
from fedray.ml.nn.history import Dropout
from fedray.runtime.session import current
from fedray.security.aggregation import SecureAggregator

MATRIX = [("abandon", step, there) for step, there in ABANDONED.items()]
MATRIX += [("recover", step, there) for step, there in RECOVERED.items()]
QUICK = [("abandon", "before its input leaves"), ("recover", "before it masks"), ("recover", "before it unmasks")]
STEPS = [pytest.param(*one, marks=[] if one[:2] in QUICK else pytest.mark.slow) for one in MATRIX]
PATIENCE = 240.0
"""Deadline of a round, longer than a test may take: a dead party is not waited for."""


@pytest.fixture(scope="module")
def survivors(cluster, request):
    """Returns three parties, their server, and the names of parties that may die, as many as there are tests."""
    here = request.node.path
    victims = sum("parties" in item.fixturenames for item in request.session.items if item.path == here)
    names = ("alice", "carol", "dave")
    dying = [f"victim{k}" for k in range(victims)]
    sf.init([*names, "bob", "server", *dying], cluster, placement="anywhere")
    yield [sf.PYU(name) for name in names], sf.PYU("server"), iter(dying)
    sf.shutdown()


@pytest.fixture
def parties(survivors):
    """Returns four parties of which the second may die, and the server."""
    (alice, *others), server, dying = survivors
    return [alice, sf.PYU(next(dying)), *others], server


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("mode", "step", "there"), STEPS)
def test_a_process_that_ends_at_any_step(parties, caplog, mode, step, there):
    devices, server = parties
    victim = devices[1]
    aggregator = SecureAggregator(server, devices, on_dropout=mode, round_timeout=PATIENCE)
    values = amounts(devices)
    lets_end(victim, server, step, number=1)
    assert aggregator.sum(values) == total(devices)
    if there:
        assert aggregator.sum(values) == total(devices)
        assert aggregator.dropouts == ()
    elif mode == "recover":
        assert aggregator.sum(values) == total(devices, but=victim)
        assert [(one.party, one.number, one.abandoned) for one in aggregator.dropouts] == [(victim.name, 1, False)]
        assert f"the sum is over alice, carol, dave only; missing: {victim.name} (its process has ended)" in caplog.text
    else:
        with pytest.raises(PartyLost, match=f"nothing was opened: the process of party '{victim.name}' has ended"):
            aggregator.sum(values)
        assert [(one.party, one.number, one.abandoned) for one in aggregator.dropouts] == [(victim.name, 1, True)]
    with pytest.raises(PartyLost, match=f"'{victim.name}'.* its value is gone with it") as caught:
        aggregator.sum(values)
    assert caught.value.party == victim.name


@pytest.mark.timeout(120)
def test_a_process_that_ends_while_keys_are_prepared(parties):
    devices, server = parties
    aggregator = SecureAggregator(server, devices, on_dropout="recover", round_timeout=PATIENCE)
    lets_end(devices[1], server, "amid the keys")
    with pytest.raises(PartyLost, match="nothing was opened: the process of party 'victim"):
        aggregator.sum(amounts(devices))


@pytest.mark.timeout(120)
def test_a_late_process(survivors, tmp_path):
    """Bob's, which is as alive afterwards as before. The others come within seconds on any machine."""
    (alice, *others), server, _ = survivors
    late = sf.PYU("bob")
    devices = [alice, late, *others]
    aggregator = SecureAggregator(server, devices, on_dropout="recover", round_timeout=4)
    gate = tmp_path / "open"
    at(late, happening(late.name, "before its input leaves", 1, sleeping(str(gate))))
    values = amounts(devices)
    assert aggregator.sum(values) == total(devices)
    assert aggregator.sum(values) == total(devices, but=late)
    assert [(one.party, one.reason) for one in aggregator.dropouts] == [(late.name, "no message within 4 s")]
    gate.touch()
    assert aggregator.sum(values) == total(devices), "it takes part again in the next session"


@pytest.mark.timeout(240)
def test_training_goes_on_without_a_process_that_ends(survivors, cluster, capsys):
    """The weights are those of the same training without it. Bob is no victim of the other tests."""
    fed, model = federated(lambda *_, **__: current(), "recover", address=cluster)
    first = weights_of(model)
    lets_end(fed.devices[1], fed.server, "before it signs", number=1)
    history = fit(fed, model, verbose=2)
    everybody, rest = ("alice", "bob", "carol", "dave"), ("alice", "carol", "dave")
    matches(fed, model, first, [everybody] * 2 + [rest] * (EPOCHS * ROUNDS - 2))
    assert history.dropouts == [
        Dropout(0, 2, "bob", "its process has ended", abandoned=False, rounds=EPOCHS * ROUNDS - 2)
    ]
    assert capsys.readouterr().out.count("bob dropped out") == 1
    with pytest.raises(PartyLost, match=r"'bob'.* its rows are gone with it"):
        fit(fed, model)


@pytest.mark.timeout(120)
def test_a_server_that_is_killed(survivors):
    """The last test of the file: it takes the session's server away."""
    (alice, *others), server, _ = survivors
    aggregator = SecureAggregator(server, [alice, *others], round_timeout=PATIENCE)
    values = amounts([alice, *others])
    process = sf.reveal(server(os.getpid)())
    at(alice, happening("alice", "before its input leaves", 0, ending("server", process)))
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(PartyLost, match=r"It is the server: .* sf\.shutdown\(\) and sf\.init") as caught:
            aggregator.sum(values)
        assert caught.value.party == "server"
    assert time.monotonic() - began < 60
    sf.shutdown()
    sf.init(["alice", "bob", "server"], "auto")
    again = [sf.PYU("alice"), sf.PYU("bob")]
    assert SecureAggregator(sf.PYU("server"), again).sum(amounts(again)) == total(again)
