# SPDX-License-Identifier: Apache-2.0
"""The demo: what it returns and prints, and the ledger that it saves."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster.commands import COMMAND, SMALL, Done, Fedray, run_here

import fedray as sf
from fedray.commands import demo as demo_module
from fedray.commands.demo import Settings, run
from fedray.commands.demo_report import as_json
from fedray.ml.nn import FLModel
from fedray.runtime.session import running


def without_framework() -> tuple[Callable[..., Any], ...]:
    """Returns what makes the joint model, and makes and trains the one of alice alone; nested: their code travels."""

    def joint() -> Any:
        from fedray.ml.nn.numpy import LinearRegression

        class Digits(LinearRegression):
            @property
            def measures(self):
                return {"accuracy": lambda predictions, y: predictions.argmax(axis=1) == y.argmax(axis=1)}

        return Digits(784, 10)

    def alone(seed: int) -> Any:
        return seed

    def one_epoch(_model: Any, x: Any, y: Any, test: Any) -> dict[str, float]:
        """Fits the images by least squares."""
        import numpy as np

        kernel = np.linalg.lstsq(x.reshape(len(x), -1), y, rcond=None)[0]
        found = {}
        for prefix, (images, labels) in {"": (x, y), "val_": test}.items():
            guessed = images.reshape(len(images), -1) @ kernel
            found[f"{prefix}loss"] = float(np.mean((guessed - labels) ** 2))
            found[f"{prefix}accuracy"] = float(np.mean(guessed.argmax(axis=1) == labels.argmax(axis=1)))
        return found

    return joint, alone, one_epoch


def in_small(patch: pytest.MonkeyPatch, address: str) -> None:
    """Gives the demo parties at an address, a fiftieth of the images for each, and models that need no framework."""
    joint, alone, one_epoch = without_framework()
    start, load, whole = sf.init, demo_module.load_mnist, demo_module.mnist_test
    patch.setattr(sf, "init", lambda names, seed, **_: start(names, address, seed=seed))
    patch.setattr(
        demo_module,
        "load_mnist",
        lambda parts, **form: load({party: (k / 50, (k + 1) / 50) for k, party in enumerate(parts)}, **form),
    )
    patch.setattr(demo_module, "mnist_test", lambda: tuple(part[:500] for part in whole()))
    patch.setattr(demo_module, "FLModel", lambda **given: FLModel(**(given | {"model": joint, "backend": "numpy"})))
    patch.setattr(demo_module, "new_model", alone)
    patch.setattr(demo_module, "one_epoch", one_epoch)


@pytest.fixture(scope="module", params=["in small", pytest.param("as it stands", marks=pytest.mark.slow)])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """Returns the folder of a demo with three parties and every output there is, and how it went.

    In small it runs in this process, on the cluster that is there.
    """
    folder = tmp_path_factory.mktemp("demo")
    files = ["--plot", str(folder / "curves.png"), "--ledger", str(folder / "ledger.jsonl")]
    arguments = [*SMALL, "--parties", "3", "--json", *files]
    if request.param == "as it stands":
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=200)
        return folder, Done(done.returncode, done.stdout, done.stderr)
    with pytest.MonkeyPatch.context() as patch:
        in_small(patch, request.getfixturevalue("cluster"))
        return folder, run_here(*arguments)


def test_json_is_all_that_stdout_holds(demo: tuple[Path, Done]) -> None:
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


def test_people_are_told_on_stderr_meanwhile(demo: tuple[Path, Done]) -> None:
    _, done = demo
    for text in ("alice, bob and carol train", "epoch: 1/1 - loss:", "alice alone", "what left each party"):
        assert text in done.stderr
    for chatter in ("oneDNN", "cpu_feature", "WARNING", "INFO", "raylet", "Traceback"):
        assert chatter not in done.stderr


def test_the_picture_is_a_png(demo: tuple[Path, Done]) -> None:
    folder, _ = demo
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_ledger_shows_and_verifies(fedray: Fedray, demo: tuple[Path, Done]) -> None:
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
def test_ledger_finds_tampering(fedray: Fedray, demo: tuple[Path, Done], how: str, tmp_path: Path) -> None:
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


def test_ctrl_c_amid_training_ends_it_though_it_is_pressed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small(monkeypatch, "inline")
    pressed, end = [], sf.shutdown

    def press(where: str) -> None:
        pressed.append(where)
        signal.raise_signal(signal.SIGINT)

    def shutdown() -> None:
        if running() is not None:
            press("amid the clean-up")
        end()

    monkeypatch.setattr(FLModel, "fit", lambda *_, **__: press("in training"))
    monkeypatch.setattr(sf, "shutdown", shutdown)
    done = run_here(*SMALL)
    assert pressed == ["in training", "amid the clean-up"]
    assert (done.returncode, done.stderr) == (130, "fedray: interrupted; every party has been stopped\n")
    assert running() is None


def test_plain_aggregation_shows_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small(monkeypatch, "inline")
    settings = Settings(epochs=1, aggregator="plain", train_samples=256)
    left = as_json(run(settings, print))["left"]
    assert {(entry["party"], entry["to"]) for entry in left if entry["kind"] == "raw"} == {
        ("alice", "driver"),
        ("alice", "charlie"),
        ("bob", "charlie"),
    }
    assert not [entry for entry in left if entry["kind"] == "masked"]
