# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed at any step end with the very weights, metrics and history of the run that was not."""

import random

import pytest
from inline.kept_runs import Steps, counted, fit, killed, same

import fedray as sf
from fedray.strategies import STRATEGIES

WHOM = ("driver", "all", "alice", "carol", "server")


def steps_of(monkeypatch, start, path, **arguments):
    """Returns the result of a run that nobody kills, and how many steps it has."""
    steps = Steps()
    with monkeypatch.context() as patch:
        counted(patch, steps)
        found = fit(start, sf.Checkpoint(path, every=arguments.pop("every", "epoch")), **arguments)
    sf.shutdown()
    return found, steps.count


def trial(monkeypatch, start, path, seed, count, **arguments):
    """Returns the result of a run that is killed one to three times, and who ended when it had done all."""
    draw = random.Random(seed)
    every = arguments.pop("every", "epoch")
    for _ in range(draw.randint(1, 3)):
        step, whom = draw.randint(8, count), draw.choice(WHOM)
        found = killed(monkeypatch, start, sf.Checkpoint(path, every=every), step, whom, **arguments)
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
    expected, count = steps_of(monkeypatch, start, tmp_path / "whole", **arguments)
    for seed in range(12):
        found, but = trial(monkeypatch, start, tmp_path / str(seed), seed, count, **arguments)
        same(found, expected, but)
