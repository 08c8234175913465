# SPDX-License-Identifier: Apache-2.0
"""`fedray replay`: what a party contributed after each checkpoint, made once more; what was tampered with is found."""

import shutil
from pathlib import Path

import pytest

from fedray.commands.cli import main
from fedray.ml.nn.checkpoints.parts import PartyParts
from fedray.party.training.keeping import Keeping
from fedray.party.training.orders import TrainOrder, order_of, settings
from fedray.party.training.sampling import Sampling
from fedray.party.training.trainer import Trainer
from fedray.strategies import STRATEGIES

PROGRAM = """
import os, sys
import numpy as np
import fedray as sf
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.ml.nn.numpy import LinearRegression
from fedray.security.aggregation import SecureAggregator, SPUAggregator
from fedray.utils.testing import cluster_def

folder, strategy, every, scheme = sys.argv[1:5]
parties = ['alice', 'bob', 'carol']
sf.init([*parties, 'server'], address='inline', seed=3)
devices = [sf.PYU(name) for name in parties]
draw = np.random.default_rng(1)
x = load({device: draw.normal(size=(12, 2)) for device in devices})
y = load({device: draw.normal(size=(12, 1)) for device in devices})
build = lambda: LinearRegression(features=2, learning_rate=0.05, momentum=0.9)
spu = sf.SPU(cluster_def(['alice', 'bob']))
aggregator = SPUAggregator(spu) if scheme == 'shares' else SecureAggregator(sf.PYU('server'), devices)
model = FLModel(sf.PYU('server'), devices, build, aggregator=aggregator, strategy=strategy, backend='numpy')
kept = sf.Checkpoint(folder, every='epoch' if every == 'epoch' else int(every), keep=99)
model.fit(x, y, batch_size=4, epochs=2, verbose=0, checkpoint=kept)
sf.shutdown(ledger=os.path.join(os.path.dirname(folder), 'ledger'))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Returns what runs the program, and what replays it; both end their session."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    folder = str(tmp_path / "runs")

    def train(strategy="fed_avg_w", every="epoch", scheme="masks"):
        import runpy
        import sys

        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(path), folder, strategy, every, scheme])
            runpy.run_path(str(path), run_name="__main__")

    def replay(
        strategy="fed_avg_w",
        every="epoch",
        run=folder,
        party="alice",
        ledger=tmp_path / "ledger",
        scheme="masks",
        rounds=(),
        program=path,
    ):
        told = ["--ledger", str(ledger)] if ledger else []
        told += [word for number in rounds for word in ("--round", str(number))]
        return main(["replay", run, "--party", party, *told, str(program), folder, strategy, every, scheme])

    return train, replay


@pytest.mark.parametrize(
    ("strategy", "every"),
    [
        ("fed_adam", "1"),
        *(pytest.param(name, "epoch", marks=pytest.mark.slow) for name in sorted(STRATEGIES)),
        pytest.param("fed_avg_g", "1", marks=pytest.mark.slow),
    ],
)
def test_every_round_after_a_checkpoint_is_equal(program, capsys, strategy, every):
    train, replay = program
    train(strategy, every)
    assert replay(strategy, every) == 0
    lines = capsys.readouterr().out.splitlines()
    rounds = {"1": 6, "epoch": 2}[every]
    assert [line.rpartition(": ")[2] for line in lines] == ["equal"] * rounds + [
        "nothing is kept of the round after it"
    ]


def test_rounds_that_are_chosen_and_those_out_of_reach(program, capsys):
    train, replay = program
    train()
    assert replay() == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    number = int(second.partition("round ")[2].partition(":")[0])
    assert replay(rounds=[number]) == 0
    assert capsys.readouterr().out.splitlines() == [second]
    assert replay(rounds=[number, number + 1]) == 1
    told, beyond = capsys.readouterr().out.splitlines()
    assert told == second
    assert f"alice: round {number + 1}: out of reach" in beyond
    assert f"here: 0, {number}. Checkpoint(every=1" in beyond
    assert "checkpoint 1, round 0: equal" in first


@pytest.mark.parametrize("scheme", ["masks", "shares"])
def test_a_round_that_was_tampered_with_is_found(program, capsys, monkeypatch, scheme):
    train, replay = program
    update, count = Trainer._update, [0]

    def tampered(self, segment, batches):
        sent, weight = update(self, segment, batches)
        if self._context.name == "alice":
            count[0] += 1
            sent = sent * (1 + 1e-6 * (count[0] == 4))  # the first round of the second epoch
        return sent, weight

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", tampered)
        train(scheme=scheme)
    assert replay(scheme=scheme) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.endswith("equal")
    assert "checkpoint 2, round " in second
    assert "DIFFERS: it is not what alice has contributed" in second
    assert replay(party="bob", scheme=scheme) == 0
    assert replay(ledger=None, scheme=scheme) == 1
    assert "'alice' has no key folder, and so no ledger of its own" in capsys.readouterr().err


def test_a_party_makes_rounds_again_over_its_own_rows_only(program, capsys, monkeypatch, tmp_path):
    """Else a driver that compares nothing could hold guesses at rows against what alice has committed herself to."""
    train, replay = program
    train()
    (tmp_path / "program.py").write_text(PROGRAM.replace("default_rng(1)", "default_rng(2)"))
    monkeypatch.setattr(
        PartyParts, "replay", lambda self, party, *args: self._everywhere([party], "replay", *args)[party]
    )
    assert replay() == 1
    assert (
        "party 'alice' has other rows, labels or weights than the run, and makes none of it" in capsys.readouterr().err
    )
    monkeypatch.setattr(Keeping, "_differences", lambda *_: [])
    assert replay() == 1
    assert "DIFFERS" in capsys.readouterr().out, "the broken variant answers a guess"


def test_a_program_that_keeps_its_runs_elsewhere_is_told(program, capsys, tmp_path):
    train, replay = program
    train()
    shutil.copytree(tmp_path / "runs", tmp_path / "others" / "more")
    assert replay(run=str(tmp_path / "others" / "more")) == 1
    assert "came to no fit(checkpoint=" in capsys.readouterr().err
    assert Path(tmp_path / "runs" / "0002").exists(), "the program trained, since nobody had asked about that folder"


def test_what_cannot_be_replayed_is_told_before_anything_runs(program, capsys, tmp_path):
    train, replay = program
    train()
    for more, said in [
        ({"party": "zoe"}, "party: expected one of 'alice', 'bob', 'carol', who took part in run 0001, found 'zoe'"),
        ({"ledger": tmp_path / "gone"}, "gone' cannot be read (No such file or directory); name the file that"),
        ({"run": str(tmp_path / "elsewhere")}, "elsewhere' holds no run; name the folder that fit(checkpoint=...) was"),
        ({"program": tmp_path / "gone.py"}, "there is no program '"),
    ]:
        assert replay(**more) == 1
        printed = capsys.readouterr()
        assert said in printed.err
        assert "Errno" not in printed.err
        assert not printed.out
    assert not (tmp_path / "runs" / "0002").exists()


def test_an_order_comes_back_from_what_was_hashed():
    sampling = Sampling(7, 3, 4, "poisson", shuffle=False)
    order = TrainOrder(5, 1, ((0, 2), (2, 3)), True, sampling, {"alice": 9}, ("fed_prox", {"mu": 0.1}), 1e-3, 12, 2)
    told = settings(order, {0: 2.0})
    assert order_of(told + bytes(8) + b"\xff{") == order
    assert settings(order_of(told), {0: 2.0}) == told
