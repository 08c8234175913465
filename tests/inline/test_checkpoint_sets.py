# SPDX-License-Identifier: Apache-2.0
"""Rows that come again after a checkpoint are summed over the parties of before, or not at all.

Dave ends in the midst of an epoch, the others go on, and then the driver is killed. With dave back, the same rows over
all four and over three would differ by dave's part.
"""

import pytest
from inline.dropouts import PATCHED, lets_end
from inline.kept_runs import Killed, fit, killed

import fedray as sf
from fedray.errors import DataError, PlanError, ProtocolError
from fedray.ml.nn.checkpoints.fit_keeping import FitKeeping
from fedray.ml.nn.fitting import FitRun
from fedray.party.kept.pass_log import PassLog
from fedray.party.training import keeping
from fedray.party.training.sampling import Sampling
from fedray.protocol.turnover import Turnover

ALL, REST = ("alice", "bob", "carol", "dave"), ("alice", "bob", "carol")
ARGUMENTS = {"rows": (24,) * 4, "epochs": 3, "batch_size": 4, "validation_data": None, "on_dropout": "abandon"}
SECOND_EPOCH = 10
"""Number of its first round: six of the first epoch, and four that are spare."""


def lost(monkeypatch, start, folder, number, arguments, act=None):
    """Runs until dave has ended in the second epoch, in the round of that number, and the driver at its end."""
    segments = FitRun._segments

    def killing(self, epoch, over, bar):
        found = segments(self, epoch, over, bar)
        if epoch == 1:
            raise Killed
        return found

    def ending(fed):
        lets_end(fed.devices[3], fed.server, "before its input leaves", number=number)

    with monkeypatch.context() as patch:
        for cls, name in PATCHED:
            patch.setattr(cls, name, getattr(cls, name))
        patch.setattr(FitRun, "_segments", killing)
        assert killed(monkeypatch, start, sf.Checkpoint(folder), {}, act=act or ending, **arguments) is None


@pytest.fixture
def path(monkeypatch, start, tmp_path):
    """A run whose second epoch lost dave after two rounds, and the driver at its end."""
    lost(monkeypatch, start, tmp_path / "run", SECOND_EPOCH + 2, ARGUMENTS)
    return tmp_path / "run"


def lines(path):
    (folder,) = (path / "parties" / "alice").iterdir()
    return PassLog(folder / "passes.log", "alice").lines


def goes_on(start, path):
    return fit(start, sf.Checkpoint(path), **ARGUMENTS)[0]


def test_a_run_that_lost_a_party_deals_rows_anew_and_says_so(start, path):
    before = lines(path)
    assert [members for _, members in before] == [ALL, ALL, REST]
    history = goes_on(start, path)
    assert history.epoch == [0, 1, 2]
    (said,) = [text for text in history.notices if "dealt anew" in text]
    assert "not bit by bit what it would have been" in said
    after = lines(path)[len(before) :]
    assert {members for _, members in after} == {ALL}
    assert not {name for name, _ in after} & {name for name, _ in before}, "no pass of before comes again"


def test_a_driver_that_does_not_is_refused_by_the_parties(monkeypatch, start, path):
    monkeypatch.setattr(FitKeeping, "_dealt", lambda _self, plan, _moved: plan)
    with pytest.raises(ProtocolError, match=r"already summed in this pass over \['alice', 'bob', 'carol'\], now over"):
        goes_on(start, path)


def test_parties_that_keep_no_log_sum_the_same_rows_over_another_set(monkeypatch, start, path):
    """The broken variant: the difference of the two sums is dave's part."""
    rest = {name for name, members in lines(path) if members == REST}
    monkeypatch.setattr(Turnover, "keep", lambda *_: None)
    monkeypatch.setattr(keeping, "_moved", lambda *_: False)
    summed, record = set(), Turnover.record

    def watched(self, rows, members):
        summed.add((rows.pass_name, members))
        record(self, rows, members)

    monkeypatch.setattr(Turnover, "record", watched)
    goes_on(start, path)
    assert any((name, ALL) in summed for name in rest)


def test_a_log_that_was_put_back_to_an_older_copy_is_refused(start, path):
    for one in path.glob("parties/bob/*/passes.log"):
        one.write_bytes(b"")
    with pytest.raises(DataError, match=r"party 'bob': .*passes\.log has lost lines: expected 1 at least, found 0"):
        goes_on(start, path)


@pytest.mark.parametrize(
    ("how", "why", "number"),
    [
        ({"shuffle": False}, r"rows keep their order \(shuffle=False\)", SECOND_EPOCH + 2),
        pytest.param({"batch_size": 24, "shuffle": True}, "most of an epoch's rows", None, marks=pytest.mark.slow),
        pytest.param(
            {"aggregate_freq": 6, "strategy": "fed_avg_g"}, "most of an epoch's rows", None, marks=pytest.mark.slow
        ),
    ],
)
def test_rows_that_cannot_be_dealt_anew_are_not_summed_over_others(monkeypatch, start, tmp_path, how, why, number):
    """Another seed gives a round the same rows there. Then the driver does not go on, and the parties would not."""
    arguments = ARGUMENTS | how
    lost(monkeypatch, start, tmp_path / "run", number, arguments, None if number else lambda _fed: None)
    without_dave = arguments | {"rows": (24,) * 3}
    with pytest.raises(PlanError, match=rf"rounds after its last checkpoint were held over other parties.*{why}"):
        fit(start, sf.Checkpoint(tmp_path / "run"), **without_dave)
    sf.shutdown()
    dealt = FitKeeping._dealt
    monkeypatch.setattr(keeping, "_moved", lambda *_: False)
    monkeypatch.setattr(FitKeeping, "_dealt", lambda self, plan, _moved: dealt(self, plan, ["alice"]))
    with pytest.raises(ProtocolError, match="already summed in this pass over"):
        fit(start, sf.Checkpoint(tmp_path / "run"), **without_dave)
    sf.shutdown()
    # The broken variant: another seed passes for other rows.
    monkeypatch.setattr(Sampling, "redealt", lambda *_: True)
    fit(start, sf.Checkpoint(tmp_path / "run"), **without_dave)


def test_a_run_that_lost_a_party_twice_is_dealt_anew_twice(monkeypatch, start, path):
    """Were the second deal the first one again, its rows would be those that were summed without dave."""
    lost(monkeypatch, start, path, 3, ARGUMENTS)
    assert goes_on(start, path).epoch == [0, 1, 2]


def test_sums_of_shares_deal_rows_anew_and_are_equal_up_to_there(monkeypatch, start, tmp_path):
    """Nobody signs a second time over whom an owner's rows are summed, so none of a pass under way leave again."""
    arguments = ARGUMENTS | {"rows": (24,) * 3, "on_dropout": "shares"}
    (expected, others), segments = fit(start, None, **arguments), FitRun._segments
    sf.shutdown()

    def killing(self, epoch, over, bar):
        if epoch == 2:
            raise Killed
        return segments(self, epoch, over, bar)

    with monkeypatch.context() as patch:
        patch.setattr(FitRun, "_segments", killing)
        assert killed(monkeypatch, start, sf.Checkpoint(tmp_path / "run"), {}, **arguments) is None
    before = lines(tmp_path / "run")
    history, weights = fit(start, sf.Checkpoint(tmp_path / "run"), **arguments)
    assert history.epoch == expected.epoch
    assert history.global_history["loss"][:2] == expected.global_history["loss"][:2]
    assert weights != others, "rows of the last epoch are dealt in another order"
    (said,) = [text for text in history.notices if "dealt anew" in text]
    assert "not bit by bit what it would have been" in said
    again = {name for name, _ in lines(tmp_path / "run")[len(before) :]}
    assert again
    assert not again & {name for name, _ in before}, "no pass of before comes again"


def test_a_party_that_is_lost_for_good_may_be_left_out(start, path):
    """The others deal rows anew, as policies allow, and say without whom they go on."""
    history, _ = fit(start, sf.Checkpoint(path), **(ARGUMENTS | {"rows": (24,) * 3}))
    assert history.epoch == [0, 1, 2]
    assert "checkpoint: goes on without 'dave', whose rows are gone with it" in history.notices
    assert any("dealt anew" in text for text in history.notices)
    assert sorted(history.local_history) == list(ALL), "what dave measured before is in the one history"
    assert [len(history.local_history[party]["loss"]) for party in ALL] == [3, 3, 3, 1]
