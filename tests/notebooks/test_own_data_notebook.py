# SPDX-License-Identifier: Apache-2.0
"""The notebook on data of one's own, executed (`slow`): what it shows in small is in `test_readme_example.py`."""

import re
from pathlib import Path

import nbformat
import pytest
from notebooks.executed import CHATTER, changed, execute, printed, read

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04_your_own_data.ipynb"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def notebook(joined: None, tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """Returns the notebook, executed on the cluster that is there."""
    executed = read(NOTEBOOK)
    changed(executed, {"address='local'": "address='auto', placement='anywhere'"})
    execute(executed, tmp_path_factory.mktemp("notebook"))
    return executed


def table(notebook: nbformat.NotebookNode, word: str) -> str:
    """The one table that is shown with this word in it."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    (found,) = [o.data["text/plain"] for o in outputs if "data" in o and word in o.data.get("text/plain", "")]
    return str(found)


def test_it_says_nothing_that_nobody_asked_for(notebook: nbformat.NotebookNode) -> None:
    assert printed(notebook, "stderr") == ""
    assert CHATTER.findall(printed(notebook, "stdout")) == []


def test_gaps_are_counted_and_filled_and_no_row_has_left(notebook: nbformat.NotebookNode) -> None:
    assert table(notebook, "deviation") == table(read(NOTEBOOK), "deviation"), "the same as what is committed"
    assert "('age', 'sex', 'pressure', 'days')" in printed(notebook, "stdout")
    raw = [line.split() for line in table(notebook, "masked").splitlines() if " raw " in line]
    assert [(line[0], line[1], line[3]) for line in raw] == [("alice", "driver", "1")]


def test_the_model_has_learned_and_its_picture_is_there(notebook: nbformat.NotebookNode) -> None:
    figures = dict(re.findall(r"^(\w+) +0\.\d+ +(0\.\d+)", table(notebook, "\nall "), flags=re.MULTILINE))
    assert set(figures) == {"all", "alice", "bob", "carol"}
    assert float(figures["all"]) > 0.75
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
