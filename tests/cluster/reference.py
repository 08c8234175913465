# SPDX-License-Identifier: Apache-2.0
"""What is looked at when the reference program has run, alone or as the cells of the tutorial."""

import ast
from pathlib import Path
from typing import Any

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


def check(line: str, part: int) -> dict[str, Any]:
    """Checks what `REPORT` prints after one epoch on one part in `part` of the images; returns it."""
    result: dict[str, Any] = ast.literal_eval(line.removeprefix("RESULT "))
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
    assert result["refused"] == 0
    assert result["problems"] == []
    assert result["loaded"] == [], "the driver has no need of a framework"
    return result
