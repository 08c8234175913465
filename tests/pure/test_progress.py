# SPDX-License-Identifier: Apache-2.0
"""What fit prints: bars that end full, lines of figures, and nothing where nothing is wanted."""

import numpy as np
import pytest

from fedray.errors import PlanError
from fedray.ml.nn.progress import EpochBar, check_verbose


def left_on_screen(capsys):
    """The lines as a terminal leaves them: what follows the last carriage return of each."""
    return [line.rsplit("\r", 1)[-1] for line in capsys.readouterr().out.split("\n") if line]


@pytest.mark.parametrize(("given", "level"), [("auto", 1), (0, 0), (1, 1), (2, 2), (True, 1), (False, 0)])
def test_the_levels(given, level):
    assert check_verbose(given) == level


@pytest.mark.parametrize("wrong", [3, -1, "loud", None, 0.5])
def test_other_levels_are_refused(wrong):
    with pytest.raises(PlanError, match="verbose: expected 'auto', 0, 1 or 2, found"):
        check_verbose(wrong)


def test_a_bar_that_is_complete_is_full(capsys):
    with EpochBar(1, "epoch: 1/2", 7) as bar:
        bar.advance_to(3)
        bar.close(complete=True)
        bar.figures({"loss": 0.25})
    full, figures = left_on_screen(capsys)
    assert full.startswith("epoch: 1/2: 100%|")
    assert "| 7/7 [" in full
    assert figures == "epoch: 1/2 - loss:0.2500"


def test_a_bar_that_is_stopped_stays_where_it_was(capsys):
    with EpochBar(1, "epoch: 1/2", 7) as bar:
        bar.advance_to(3)
        bar.close(complete=False)
    assert "| 3/7 [" in left_on_screen(capsys)[0]


def test_an_error_ends_the_line(capsys):
    def stopped():
        with EpochBar(1, "epoch: 1/2", 7) as bar:
            bar.advance_to(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert capsys.readouterr().out.endswith("\n")


@pytest.mark.parametrize(("level", "lines"), [(0, 0), (2, 1)])
def test_levels_without_a_bar(capsys, level, lines):
    with EpochBar(level, "epoch: 1/1", 3) as bar:
        bar.advance_to(3)
        bar.close(complete=True)
        bar.figures({"loss": 1.0})
    assert len(left_on_screen(capsys)) == lines


def test_figures_are_readable_at_any_size(capsys):
    figures = {"loss": 12345.678, "rate": 1e-5, "zero": 0.0, "nan": float("nan"), "f1": np.array([0.25, 0.75])}
    with EpochBar(2, "evaluate", 1) as bar:
        bar.figures(figures)
        bar.figures({})
    assert left_on_screen(capsys) == [
        "evaluate - loss:12345.6780 rate:1.0000e-05 zero:0.0000 nan:nan f1:0.5000",
        "evaluate",
    ]


def test_the_loss_so_far_stands_behind_the_bar(capsys):
    with EpochBar(1, "epoch: 1/2", 7) as bar:
        bar.running({})
        bar.running({"loss": 0.25, "accuracy": 0.5})
        bar.advance_to(3)
    assert ", loss:0.2500]" in left_on_screen(capsys)[0]
    with EpochBar(1, "epoch: 1/2", 7) as bar:
        bar.running({"loss": 0.25})
        bar.advance_to(3)
        bar.close(complete=True)
        bar.figures({"loss": 0.2})
    screen = left_on_screen(capsys)
    assert "loss" not in screen[0]
    assert screen[1] == "epoch: 1/2 - loss:0.2000"  # one loss, and not another above it
    with EpochBar(2, "epoch: 1/2", 7) as line:
        line.running({"loss": 0.25})
    assert capsys.readouterr().out == ""


def test_news_of_no_step_draws_nothing(capsys):
    with EpochBar(1, "epoch: 1/2", 7) as bar:
        bar.advance_to(3)
        before = capsys.readouterr().out
        for _ in range(50):
            bar._bar.last_print_t -= 1  # as if it had been a while
            bar.advance_to(3)
        assert before
        assert capsys.readouterr().out == ""
