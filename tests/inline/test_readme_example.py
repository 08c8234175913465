# SPDX-License-Identifier: Apache-2.0
"""README's program for data of one's own, run as it stands there but for the cluster and for graphs."""

import re
from pathlib import Path

import numpy as np
import pytest

import fedray as sf

README = Path(__file__).parents[2] / "README.md"
CHANGES = {"'server'])\n": "'server'], 'inline', seed=3)\n", "metrics=['auc'])": "metrics=['auc'], run_eagerly=True)"}

pytestmark = pytest.mark.usefixtures("kernels_kept")


def example(word: str = "build_own_model") -> str:
    blocks = re.findall(r"^```py\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return found


def test_own_data_are_trained_on_by_what_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("alice", "bob", "carol")):
        draw = np.random.default_rng(number)
        table = np.column_stack([draw.normal(60, 12, 40), draw.normal(130, 15, 40), draw.gamma(2, 3, 40)])
        ill = (table[:, 0] + draw.normal(0, 3, 40) > 60)[:, None]
        np.savetxt(f"{name}.csv", np.hstack([table, ill]), delimiter=",", header="age,pressure,days,ill", comments="")
    source = example().replace("epochs=10", "epochs=3")
    for old, new in CHANGES.items():
        assert source.count(old) in (1, 2), old
        source = source.replace(old, new, 1)
    names: dict[str, object] = {}
    try:
        exec(source, names)
        history = names["history"]
        assert history.history["auc"][-1] > history.history["auc"][0]  # type: ignore[attr-defined]
        assert "first=10: a trial run on the first 10 rows of each party" in capsys.readouterr().out
        kinds = {str(entry.kind) for page in sf.ledger().pages.values() for entry in page.entries}
        assert "raw" not in kinds
    finally:
        sf.shutdown()


def test_what_reads_gaps_text_and_dates_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    lines = ["age;pressure;sex;visit;Größe", "40;131.5;m;2024-01-03;1", "50;;f;2024-02-01;2"]
    (tmp_path / "alice.csv").write_text("\n".join(lines), encoding="latin-1")
    names: dict[str, object] = {"load": lambda _: None, "alice": "alice", "bob": "bob", "read_bob": None}
    exec(example("read_alice"), names)
    table = names["read_alice"]()  # type: ignore[operator]
    assert table.to_numpy().tolist() == [[40.0, 131.5, 1.0, 2.0], [50.0, 120.0, 0.0, 31.0]]
    assert list(table.columns) == ["age", "pressure", "male", "days"]
