# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed at any step end with the very weights, metrics and history of the run that was not."""

import itertools
import random

import pytest
from inline.federated import as_bytes, regression, world
from inline.kept_runs import ROWS, Steps, counted, fit, killed, same

import fedray as sf
from fedray.ml.nn.checkpoints.run_folder import RunFolder
from fedray.ml.nn.federation import Federation
from fedray.party.rounds.past import Past
from fedray.security.aggregation import SecureAggregator
from fedray.strategies import STRATEGIES

WHOM = ("driver", "all", "alice", "carol", "server")


def steps_of(monkeypatch, start, path, **arguments):
    """Returns the result of a run that nobody kills, and its steps."""
    steps = Steps()
    with monkeypatch.context() as patch:
        counted(patch, steps)
        found = fit(start, sf.Checkpoint(path, every=arguments.pop("every", "epoch")), **arguments)
    sf.shutdown()
    return found, steps


def trial(monkeypatch, start, path, seed, steps, **arguments):
    """Returns the result of a run that is killed one to three times, and who ended when it had done all."""
    draw = random.Random(seed)
    every = arguments.pop("every", "epoch")
    for _ in range(draw.randint(1, 3)):
        step, whom, kills, torn = draw.randint(8, steps.count), draw.choice(WHOM), {}, {}
        if whom in steps.writes and draw.random() < 0.5:
            torn = {whom: draw.randint(1, steps.writes[whom])}
        else:
            kills = {step: whom}
        found = killed(monkeypatch, start, sf.Checkpoint(path, every=every), kills, torn, **arguments)
        if found is not None:
            return found, whom
    found = fit(start, sf.Checkpoint(path, every=every), **arguments)
    sf.shutdown()
    return found, ""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("every", ["epoch", 2])
@pytest.mark.parametrize("on_dropout", ["abandon", "recover"])
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_run_that_was_killed_is_the_run_that_was_not(monkeypatch, start, tmp_path, strategy, on_dropout, every):
    arguments = {"strategy": strategy, "on_dropout": on_dropout, "every": every}
    expected, steps = steps_of(monkeypatch, start, tmp_path / "whole", **arguments)
    for seed in range(12):
        found, but = trial(monkeypatch, start, tmp_path / str(seed), seed, steps, **arguments)
        same(found, expected, but)


@pytest.mark.parametrize(
    ("kills", "torn"),
    [
        ({20: "carol"}, {}),
        ({}, {"driver": 6}),
        ({}, {"carol": 1}),
        pytest.param({}, {"carol": 4}, marks=pytest.mark.slow),
    ],
)
def test_a_few_of_them(monkeypatch, start, tmp_path, kills, torn):
    """The driver writes its run, then two files for each checkpoint; a party a third one, on the round that follows.

    One that never has its first part leaves nothing to go on from: the same program begins the run again.
    """
    expected, steps = steps_of(monkeypatch, start, tmp_path / "whole")
    assert steps.count > 20
    assert killed(monkeypatch, start, sf.Checkpoint(tmp_path / "run"), kills, torn) is None
    same(fit(start, sf.Checkpoint(tmp_path / "run")), expected)


@pytest.mark.parametrize(
    ("on_dropout", "again"),
    [
        ("recover", "another model"),
        pytest.param("abandon", "the same model", marks=pytest.mark.slow),
        pytest.param("abandon", "another model", marks=pytest.mark.slow),
        pytest.param("recover", "the same model", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_and_the_same_cell_again_goes_on(monkeypatch, start, tmp_path, on_dropout, again):
    expected, _ = steps_of(monkeypatch, start, tmp_path / "whole", on_dropout=on_dropout, epochs=3, every=2)
    fed = world(start, rows=ROWS, backend="numpy")

    def cell(model=None):
        if model is None:
            aggregator = SecureAggregator(fed.server, fed.devices, on_dropout=on_dropout)
            model = fed.model(regression(momentum=0.9), aggregator=aggregator)
        arguments = {"batch_size": 8, "epochs": 3, "verbose": 0, "validation_data": (fed.x, fed.y)}
        return model, lambda: model.fit(fed.x, fed.y, checkpoint=sf.Checkpoint(tmp_path / "run", every=2), **arguments)

    model, run = cell()
    for step in (2, 3, 2):  # counted from where the run goes on
        with monkeypatch.context() as patch:
            interrupt_after(patch, step)
            with pytest.raises(KeyboardInterrupt):
                run()
        model, run = cell(model if again == "the same model" else None)
    same((run(), as_bytes(model)), expected)


def test_heads_that_were_kept_and_differ_make_all_begin_anew(monkeypatch, start, tmp_path):
    """Local state is made of what a party was told; whoever was told something else is not summed with it as it is."""
    kept = Past.kept

    def told_something_else(self):
        return kept(self) | ({"head": b"another"} if self._party == "alice" else {})

    with monkeypatch.context() as patch:
        patch.setattr(Past, "kept", told_something_else)
        assert killed(monkeypatch, start, sf.Checkpoint(tmp_path / "run"), {40: "driver"}) is None
    history, _ = fit(start, sf.Checkpoint(tmp_path / "run"))
    assert [one.parties for one in history.resets] == [("alice",)]


def interrupt_after(patch, segments):
    """Lets Ctrl-C be pressed while so many segments of a fit have been begun."""
    train, count = Federation.train, [0]

    def watched(self, facts, order, on_round):
        count[0] += 1
        return train(self, facts, order, on_round if count[0] < segments else interrupting)

    def interrupting(_done):
        raise KeyboardInterrupt

    patch.setattr(Federation, "train", watched)


def test_a_time_is_looked_at_between_two_stops(monkeypatch, start, tmp_path):
    """A clock that goes on by five minutes with each look: a checkpoint with every second one, as an epoch has two."""
    clock = itertools.count(0, 300)
    monkeypatch.setattr("fedray.ml.nn.checkpoints.fit_keeping._seconds", lambda: next(clock))
    monkeypatch.setattr("fedray.ml.nn.checkpoints.checkpoint.ROUNDS_BY_TIME", 2)
    fit(start, sf.Checkpoint(tmp_path, every="10min", keep=99), epochs=3)
    kept = [RunFolder.at(tmp_path / "0001").record(number) for number in range(1, 5)]
    assert [(one["epoch"], one["segments"]) for one in kept] == [(0, 0), (1, 0), (2, 0), (3, 0)]
