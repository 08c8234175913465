# SPDX-License-Identifier: Apache-2.0
"""Parties that drop out of training at any step: the weights are those of the same training by hand, without them.

By hand, every round averages the parties that its sum holds, and a void round changes nothing.
"""

import os

import pytest
from inline.dropouts import ABANDONED, PATCHED, RECOVERED, at, ending, happening, lets_end, sleeping
from inline.federated import weights_of
from inline.training_dropouts import BATCH, EPOCHS, ROUNDS, federated, fit, matches
from inline.turned_clock import turn_clock

import fedray as sf
from fedray.errors import PartyLost
from fedray.ml.nn.history import Dropout
from fedray.party.rounds.server_rounds import ServerRounds
from fedray.protocol.checks.judge import Judge

LAST = "its process has ended"


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """Puts back what the steps replace, and keeps whose inputs each opened training round sums, in order."""
    for cls, name in PATCHED:
        monkeypatch.setattr(cls, name, getattr(cls, name))
    kept, advanced = [], ServerRounds._advanced

    def watched(self, current):
        answer = advanced(self, current)
        if answer.opened is not None and self._announced.manifest_of(current.number, repeats=current.repeats).size:
            kept.append(answer.opened.members)
        return answer

    monkeypatch.setattr(ServerRounds, "_advanced", watched)
    return kept


STEPS = {"before it trains": False} | RECOVERED
MATRIX = [("abandon", step, there) for step, there in STEPS.items() if step not in RECOVERED or step in ABANDONED]
MATRIX += [("recover", step, there) for step, there in STEPS.items()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("mode", "step", "there"), MATRIX)
def test_training_goes_on_without_a_party_that_ends_at_any_step(start, opened, mode, step, there):
    fed, model = federated(start, mode)
    first = weights_of(model)
    lets_end(fed.devices[1], fed.server, step, number=1)
    history = fit(fed, model)
    everybody, rest = ("alice", "bob", "carol", "dave"), ("alice", "carol", "dave")
    missed = 2 if there else 1  # the first round without it
    members = [everybody] * missed + [rest] * (EPOCHS * ROUNDS - missed)
    if mode == "abandon":
        members[missed] = ()
    matches(fed, model, first, members)
    assert opened == [who for who in members if who]
    rounds = EPOCHS * ROUNDS - missed  # also those of the next epoch, whose session begins without it
    assert history.dropouts == [Dropout(0, missed, "bob", LAST, mode == "abandon", rounds)]
    assert history.epoch == [0, 1]
    assert sorted(history.local_history) == list(rest)
    with pytest.raises(PartyLost, match=r"'bob' has ended, and its rows are gone with it\. Save the model"):
        fit(fed, model)
    with pytest.raises(PartyLost, match="'bob' has ended, and its rows are gone"):
        model.evaluate(fed.x, fed.y, verbose=0)
    matches(fed, model, first, members)


@pytest.mark.timeout(120)
def test_the_party_whose_weights_began_may_end(start):
    fed, model = federated(start, "recover", count=5)
    first = weights_of(model)
    lets_end(fed.devices[0], fed.server, "before its input leaves", number=2)
    history = fit(fed, model)
    everybody = ("alice", "bob", "carol", "dave", "erin")
    members = [everybody] * 2 + [everybody[1:]] * (EPOCHS * ROUNDS - 2)
    matches(fed, model, first, members)
    assert [(one.party, one.round) for one in history.dropouts] == [("alice", 2)]


@pytest.mark.timeout(120)
def test_a_party_that_ends_where_the_next_keys_need_everybody(start, opened):
    """Keys for two rounds at a time: the others go on in a new session, and no round is lost."""
    fed, model = federated(start, "recover", policies={"carol": sf.Policy(batch=2)})
    first = weights_of(model)
    lets_end(fed.devices[1], fed.server, "before it masks", number=1)
    history = fit(fed, model)
    everybody, rest = ("alice", "bob", "carol", "dave"), ("alice", "carol", "dave")
    members = [everybody] + [rest] * (EPOCHS * ROUNDS - 1)
    matches(fed, model, first, members)
    assert opened == members
    assert [(one.party, one.round, one.abandoned) for one in history.dropouts] == [("bob", 1, False)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["abandon", "recover"])
def test_of_three_parties_none_may_end(start, opened, mode):
    fed, model = federated(start, mode, count=3)
    first = weights_of(model)
    lets_end(fed.devices[1], fed.server, "before its input leaves", number=1)
    with pytest.raises(
        PartyLost, match=r"'bob' has ended.* After 1 round of the segment the others cannot go on: .*at least 3"
    ) as caught:
        fit(fed, model)
    assert caught.value.party == "bob"
    assert opened == [("alice", "bob", "carol")], "nothing was opened after that"
    matches(fed, model, first, [*opened, *[()] * (EPOCHS * ROUNDS - 1)])


@pytest.mark.timeout(120)
def test_a_server_that_ends(start):
    fed, model = federated(start, "recover")
    at(fed.devices[1], happening("bob", "before it signs", 1, ending("server", sf.reveal(fed.server(os.getpid)()))))
    with pytest.raises(PartyLost, match=r"'server' has ended\. It is the server: .*sf\.shutdown\(\) and sf\.init"):
        fit(fed, model)
    sf.shutdown()
    fed, model = federated(start, "recover")
    assert fit(fed, model).epoch == [0, 1]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["abandon", "recover"])
def test_a_late_party_comes_back(start, opened, tmp_path, monkeypatch, mode):
    """It misses rounds while it sleeps; in the next epoch it takes part again, with the others' weights."""
    import keras

    gate, verify, late = tmp_path / "open", Judge.verify, []

    def watched(self, number, *given, **told):
        late.extend([(self._member.name, number)] * told["late"])
        return verify(self, number, *given, **told)

    monkeypatch.setattr(Judge, "verify", watched)
    turn_clock(monkeypatch, "bob", gate)
    fed, model = federated(start, mode)
    first = weights_of(model)
    at(fed.devices[1], happening("bob", "before its input leaves", 1, sleeping(str(gate))))

    def wake(epoch, _logs):
        if epoch == 1:
            gate.touch()
            model._federation._sums.await_busy()

    waking = keras.callbacks.LambdaCallback(on_epoch_begin=wake)
    history = fit(fed, model, callbacks=[waking])
    everybody, rest = ("alice", "bob", "carol", "dave"), ("alice", "carol", "dave")
    missed = [(), rest] if mode == "abandon" else [rest, rest]
    members = [everybody, *missed, *[everybody] * ROUNDS]
    matches(fed, model, first, members)
    assert opened == [who for who in members if who]
    assert [(one.party, one.round, one.reason) for one in history.dropouts] == [("bob", 1, "no message within 60 s")]
    assert late == ([("bob", 1), ("bob", 2)] if mode == "recover" else []), "what it made up for it has verified"
    assert history.dropouts[0].abandoned == (mode == "abandon")
    assert history.dropouts[0].rounds == 2
    assert len(history.local_history["bob"]["loss"]) == 1


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["abandon", pytest.param("recover", marks=pytest.mark.slow)])
def test_the_rounds_that_a_party_misses_over_many_sessions_are_counted(start, opened, tmp_path, monkeypatch, mode):
    import keras

    # After an epoch without validation: on the model that was validated without it, no session begins with it.
    epochs, back, everybody = 15, 11, ("alice", "bob", "carol", "dave")
    gate = tmp_path / "open"
    turn_clock(monkeypatch, "bob", gate)
    fed, model = federated(start, mode)
    at(fed.devices[1], happening("bob", "before its input leaves", 1, sleeping(str(gate))))

    def wake(epoch, _logs):
        if epoch == back:
            gate.touch()
            model._federation._sums.await_busy()

    waking = keras.callbacks.LambdaCallback(on_epoch_begin=wake)
    history = model.fit(
        fed.x,
        fed.y,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        validation_data=(fed.x, fed.y),
        validation_freq=5,
        callbacks=[waking],
    )
    (dropout,) = history.dropouts
    validations = back // 5
    assert (dropout.round, dropout.rounds) == (1, back * ROUNDS - 1 + validations)
    without = sum(who != everybody for who in opened)
    # `opened` holds no validations, nor the round that was abandoned.
    assert dropout.rounds == without + validations + (mode == "abandon")
