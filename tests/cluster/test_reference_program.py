# SPDX-License-Identifier: Apache-2.0
"""The reference program, word for word, in a process of its own, as a user would run it.

Only the number of epochs is reduced, and with a strict door the number of images, which makes no difference to what may
leave. What it prints is looked at, too: bars and figures, and not a line of chatter.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedray.protocol.policy import TWO_PARTY_NOTICE

PROGRAM = (Path(__file__).parents[1] / "contracts" / "reference_program.txt").read_text()

REPORT = """
print("RESULT", repr({
    "history": history.global_history,
    "keras": history.history == history["global_history"],
    "shape": x_train.shape,
    "mnist": sorted(mnist.files),
    "overall": [(type(m).__name__, m.name, m.total, m.count) for m in global_metric[0]],
    "local": {party: [(m.name, m.total, m.count) for m in metrics] for party, metrics in global_metric[1].items()},
    "kinds": sorted({row.entry.kind for row in sf.ledger().rows}),
    "refused": sum(not row.entry.allowed for row in sf.ledger().rows),
    "problems": sf.ledger().verify(),
    "loaded": [name for name in ("tensorflow", "keras", "torch") if name in __import__("sys").modules],
}))
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(program)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )


@pytest.mark.parametrize(("egress", "part"), [("default", 1), ("strict", 10)])
def test_runs_as_it_stands(egress: str, part: int, tmp_path: Path) -> None:
    program = PROGRAM.replace("epochs=10", "epochs=1")
    assert program != PROGRAM
    if egress == "strict":
        program = program.replace("address='local')", "address='local', egress='strict')")
        program = program.replace("parts=[alice, bob]", f"parts={{alice: {0.5 / part}, bob: {0.5 / part}}}")
        assert "strict" in program
        assert "parts={alice: 0.05" in program
    done = run(program + REPORT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a program that works says nothing on stderr"

    *shown, last = done.stdout.replace("\r", "\n").strip().splitlines()
    assert not [line for line in shown if line and not line.startswith(("epoch: 1/1", "evaluate", "note: "))]
    assert [line for line in shown if line.startswith("note: ")] == [f"note: {TWO_PARTY_NOTICE}"], "once, and on stdout"
    rounds = 235 if part == 1 else 24
    assert any(f"{rounds}/{rounds}" in line for line in shown), "60,000 images or a part, two parties, batches of 128"
    assert any(line.startswith("epoch: 1/1 - loss:") and "val_accuracy:" in line for line in shown)

    result = ast.literal_eval(last.removeprefix("RESULT "))
    assert set(result["history"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 1 for values in result["history"].values())
    least = 0.94 if part == 1 else 0.5
    assert least < result["history"]["val_accuracy"][0] < 0.985, "the reference's first epoch ended at 0.958"
    assert result["keras"]
    assert result["shape"] == (60_000 // part, 28, 28)
    assert result["mnist"] == ["x_test", "x_train", "y_test", "y_train"]
    assert [(kind, name, count) for kind, name, _, count in result["overall"]] == [
        ("Mean", "loss", 10_000.0 / part),
        ("Mean", "accuracy", 10_000.0 / part),
    ]
    assert result["overall"][1][2] == round(result["history"]["val_accuracy"][0] * 10_000 / part)
    assert {party: metrics[1][2] for party, metrics in result["local"].items()} == dict.fromkeys(
        ("alice", "bob"), 5_000.0 / part
    )
    assert sum(metrics[1][1] for metrics in result["local"].values()) == result["overall"][1][2]
    assert "raw" not in result["kinds"]
    assert result["refused"] == 0
    assert result["problems"] == []
    assert result["loaded"] == [], "the driver has no need of a framework"
