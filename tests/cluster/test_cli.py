# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, returns and leaves behind. What starts parties runs in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import fedray as sf
from fedray.commands import demo as demo_module
from fedray.commands.cli import main
from fedray.commands.demo import Settings, run
from fedray.commands.demo_report import as_json

COMMAND = [sys.executable, "-m", "fedray"]
SMALL = ["demo", "--train-samples", "1024", "--epochs", "1"]
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
whole = demo.mnist_test
demo.mnist_test = lambda: tuple(part[:500] for part in whole())
sys.exit(cli.main())
"""
"""The command with a joint model that needs no framework, and few test images for the other one, which alice trains
alone: parties start in a tenth of the time.
"""
Fedray = Callable[..., "Done"]


@dataclass
class Done:
    """How a command that starts no process went."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def fedray(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fedray:
    """Returns a function that runs a command here, where no party can be started."""

    def run_here(*arguments: str) -> Done:
        monkeypatch.setattr(sf, "init", lambda *_, **__: pytest.fail("no party is needed for this"))
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run_here


@pytest.fixture(
    scope="module",
    params=[
        pytest.param([sys.executable, "-c", LINEAR], id="linear"),
        pytest.param(COMMAND, id="as it stands", marks=pytest.mark.slow),
    ],
)
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """Returns the folder of a small demo with three parties and every output there is, and how it went."""
    folder = tmp_path_factory.mktemp("demo")
    files = ["--plot", str(folder / "curves.png"), "--ledger", str(folder / "ledger.jsonl")]
    command = [*request.param, *SMALL, "--parties", "3", "--json", *files]
    return folder, subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_json_is_all_that_stdout_holds(demo: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    _, done = demo
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["parties"] == ["alice", "bob", "carol"]
    assert result["server"] == "charlie"
    assert result["train_images"] == {"alice": 342, "bob": 341, "carol": 341}
    assert result["aggregator"] == "secure"
    for curves in (result["federated"], result["alone"]):
        assert len(curves["val_accuracy"]) == 1
        assert 0.0 < curves["val_accuracy"][0] < 1.0
    masked = {entry["party"]: entry for entry in result["left"] if entry["kind"] == "masked"}
    assert set(masked) == {"alice", "bob", "carol"}
    assert {entry["to"] for entry in masked.values()} == {"charlie"}
    raw = [(entry["party"], entry["to"], entry["values"]) for entry in result["left"] if entry["kind"] == "raw"]
    assert raw == [("alice", "driver", 1)], "only the figures of alice's own model, which the demo asks for"


def test_people_are_told_on_stderr_meanwhile(demo: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    _, done = demo
    for text in ("alice, bob and carol train", "epoch: 1/1 - loss:", "alice alone", "what left each party"):
        assert text in done.stderr
    for chatter in ("oneDNN", "cpu_feature", "WARNING", "INFO", "raylet", "Traceback"):
        assert chatter not in done.stderr


def test_the_picture_is_a_png(demo: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    folder, _ = demo
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_ledger_shows_and_verifies(fedray: Fedray, demo: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    folder, made = demo
    path = str(folder / "ledger.jsonl")
    shown = fedray("ledger", path)
    assert shown.returncode == 0
    assert "masked" in shown.stdout
    assert "verified" not in shown.stdout, "nobody asked"
    checked = fedray("ledger", path, "--verify")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "verified" in checked.stdout
    fingerprint = made.stderr.rpartition("roster fingerprint ")[2].split()[0]
    assert fingerprint in shown.stdout
    assert fedray("ledger", path, "--roster", fingerprint.upper()).returncode == 0
    other = fedray("ledger", path, "--roster", "0" * 64)
    assert other.returncode == 1
    assert "not those of the roster" in other.stderr


@pytest.mark.parametrize("how", ["change", "drop", "cut", "swap", "empty"])
def test_ledger_finds_tampering(
    fedray: Fedray, demo: tuple[Path, "subprocess.CompletedProcess[str]"], how: str, tmp_path: Path
) -> None:
    lines = (demo[0] / "ledger.jsonl").read_text().splitlines(keepends=True)
    raw = next(number for number, line in enumerate(lines) if '"kind":"raw"' in line)
    if how == "change":
        lines[raw] = lines[raw].replace('"kind":"raw"', '"kind":"shape"')
    elif how == "drop":
        del lines[raw]
    elif how == "cut":
        del lines[-1]
    elif how == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines.clear()
    forged = tmp_path / "forged.jsonl"
    forged.write_text("".join(lines))
    done = fedray("ledger", str(forged), "--verify")
    assert done.returncode == 1
    assert done.stderr.startswith(f"fedray: {forged}: ")
    assert "verified" not in done.stdout
    assert "Traceback" not in done.stderr


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


def test_plain_aggregation_shows_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes and with few test images, which make no difference to what leaves."""
    start, whole, load = sf.init, demo_module.mnist_test, demo_module.load_mnist
    monkeypatch.setattr(sf, "init", lambda names, seed, **_: start(names, "inline", seed=seed))
    monkeypatch.setattr(demo_module, "mnist_test", lambda: tuple(part[:500] for part in whole()))
    monkeypatch.setattr(
        demo_module,
        "load_mnist",
        lambda parts, **form: load({party: (k / 50, (k + 1) / 50) for k, party in enumerate(parts)}, **form),
    )
    settings = Settings(epochs=1, aggregator="plain", train_samples=256)
    left = as_json(run(settings, print))["left"]
    assert {(entry["party"], entry["to"]) for entry in left if entry["kind"] == "raw"} == {
        ("alice", "driver"),
        ("alice", "charlie"),
        ("bob", "charlie"),
    }
    assert not [entry for entry in left if entry["kind"] == "masked"]


def test_ctrl_c_ends_it_cleanly_however_often_it_is_pressed() -> None:
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
    assert time.monotonic() - interrupted < 20
    _, alive = psutil.wait_procs(started, timeout=5)
    assert alive == []
