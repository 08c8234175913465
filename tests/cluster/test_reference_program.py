# SPDX-License-Identifier: Apache-2.0
"""The reference program, word for word, in a process of its own, as a user would run it.

Only the number of epochs is reduced, and with a strict door the number of images, which makes no difference to what may
leave. What it prints is looked at, too: bars and figures, and not a line of chatter.

The tutorial holds the program line by line, and `tests/notebooks/test_notebooks.py` runs it on a tenth of the images.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster.reference import PROGRAM, REPORT, check

from fedray.protocol.policy import TWO_PARTY_NOTICE


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(program)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )


@pytest.mark.slow
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

    assert "raw" not in check(last, part)["kinds"]
