# SPDX-License-Identifier: Apache-2.0
"""The command line: what it says of wrong usage, and how it ends. What the demo returns: `test_demo.py`."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import psutil
import pytest
from cluster.commands import COMMAND, SMALL, Fedray

import fedray as sf
from fedray.commands.cli import main

LINEAR = """
import sys
from fedray.commands import cli, demo
from fedray.ml.nn import FLModel
from fedray.ml.nn.numpy import LinearRegression
class Digits(LinearRegression):
    @property
    def measures(self):
        return {"accuracy": lambda predictions, y: predictions.argmax(axis=1) == y.argmax(axis=1)}
def build():
    return Digits(784, 10)
demo.FLModel = lambda **arguments: FLModel(**(arguments | {"model": build, "backend": "numpy"}))
sys.exit(cli.main())
"""
"""The command with a joint model that needs no framework: parties start in a tenth of the time."""


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["demo", "--epochs", "0"], 2, "epochs: expected 1 or more"),
        (["demo", "--parties", "1"], 2, "parties: expected 2 to 10"),
        (["demo", "--parties", "11"], 2, "parties: expected 2 to 10"),
        (["demo", "--train-samples", "1"], 2, "train-samples: expected 2"),
        (["demo", "--train-samples", "60001"], 2, "60,000"),
        (["demo", "--plot", "nowhere/x.png"], 2, "there is no folder 'nowhere'"),
        (["demo", "--plot", "curves.jpeg"], 2, "expected a name that ends in .png"),
        (["demo", "--ledger", "nowhere/x"], 2, "there is no folder 'nowhere'"),
        (["demo", "--plot", "/proc/x.png"], 2, "plot: nothing can be written in the folder '/proc'"),
        (["demo", "--ledger", "/proc/x"], 2, "ledger: nothing can be written in the folder '/proc'"),
        (["demo", "--ledger", "/"], 2, "ledger: '/' is a folder"),
        (["demo", "--epoch", "1"], 2, "--epoch"),
        (["ledger", "x", "--ver"], 2, "--ver"),
        (["keys", "new", "alice", "--di", "x"], 2, "--di"),
        (["demo", "--aggregator", "none"], 2, "invalid choice"),
        (["demo", "--epochs", "few"], 2, "invalid int"),
        (["ledger", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        ([], 2, "COMMAND"),
    ],
)
def test_wrong_usage_is_said_before_any_party_starts(
    fedray: Fedray, arguments: list[str], code: int, text: str
) -> None:
    done = fedray(*arguments)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_version_is_that_of_the_package(fedray: Fedray) -> None:
    assert fedray("--version").stdout == f"fedray {sf.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", sf.__version__)


def test_an_output_that_nobody_reads_is_no_mistake_and_one_that_cannot_be_written_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    read, write = os.pipe()
    os.close(read)
    full = os.open("/dev/full", os.O_WRONLY)
    for file, code, said in ((write, 141, ""), (full, 1, "fedray: [Errno 28] No space left on device\n")):
        with os.fdopen(file, "w") as stream, redirect_stdout(stream):
            assert main(["status"]) == code
        assert capsys.readouterr().err == said


def test_a_missing_matplotlib_is_said_before_the_training(
    fedray: Fedray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = fedray(*SMALL, "--plot", str(tmp_path / "x.png"))
    assert done.returncode == 1
    assert "notebooks" in done.stderr
    assert done.stdout == ""


def test_help_names_every_flag() -> None:
    text = subprocess.run([*COMMAND, "demo", "--help"], capture_output=True, text=True, timeout=60).stdout
    for flag in ("--epochs", "--parties", "--aggregator", "--train-samples", "--seed", "--plot", "--ledger", "--json"):
        assert flag in text


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly_however_often_it_is_pressed() -> None:
    """In small, in one process: `tests/cluster/test_demo.py`."""
    running = subprocess.Popen(
        [sys.executable, "-c", LINEAR, "demo", "--train-samples", "1024", "--epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert running.stdout is not None
        while "epoch: 2/1000" not in running.stdout.readline():
            assert running.poll() is None, "it must be training when it is interrupted"
        started = psutil.Process(running.pid).children(recursive=True)
        assert len(started) >= 3, "three parties at least"
        interrupted = time.monotonic()
        for _ in range(3):
            os.kill(running.pid, signal.SIGINT)
            time.sleep(0.3)
        _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert errors == "fedray: interrupted; every party has been stopped\n"
    assert time.monotonic() - interrupted < 60
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
