# SPDX-License-Identifier: Apache-2.0
"""The tutorial in PyTorch, executed in small where PyTorch is; and what is committed of it."""

import re
from pathlib import Path

import nbformat
import pytest
from inline.torch_models import NEEDS_TORCH
from notebooks.executed import CHATTER, changed, execute, printed, read

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_pytorch.ipynb"

pytestmark = NEEDS_TORCH

SMALL = {
    "parts=[alice, bob]": "parts={alice: 0.05, bob: 0.05}",
    "[alice_rows, 6_700]": "[alice_rows, 670]",
    "compared(6_700)": "compared(670)",
    "address='local'": "address='auto'",
    "epochs=10": "epochs=1",
}
"""Text of the notebook -> a tenth of the images and one epoch, on the cluster that is there."""


@pytest.fixture(scope="module")
def notebook(joined: None, tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """Returns the notebook, executed anew, in small: what it is at its full size is what is committed."""
    executed = read(NOTEBOOK)
    changed(executed, SMALL)
    execute(executed, tmp_path_factory.mktemp("notebook"))
    return executed


def test_it_says_nothing_that_nobody_asked_for(notebook: nbformat.NotebookNode) -> None:
    assert printed(notebook, "stderr") == ""
    assert CHATTER.findall(printed(notebook, "stdout")) == []


def test_the_figures_are_those_of_a_model_that_learns(notebook: nbformat.NotebookNode) -> None:
    text = printed(notebook, "stdout")
    figures = r"epoch: 1/1 - loss:\d\.\d+ multiclassaccuracy:0\.\d+ multiclassprecision:0\.\d+ val_loss:\d\.\d+"
    assert re.search(figures, text)
    (accuracy,) = re.findall(r"val_multiclassaccuracy:(0\.\d+)", text)
    assert float(accuracy) > 0.5
    assert "All keys matched" in text
    assert len(re.findall(r"alice alone,\s+[\d,]+ images: test accuracy 0\.\d+", text)) == 2


def test_it_has_its_pictures_and_its_conclusion(notebook: nbformat.NotebookNode) -> None:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    (conclusion,) = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    (federated,) = re.findall(r"val_multiclassaccuracy:(0\.\d+)", printed(notebook, "stdout"))
    assert f"{float(federated):.2%}" in conclusion


def test_what_is_committed_has_learned_in_ten_epochs() -> None:
    text = printed(read(NOTEBOOK), "stdout")
    assert "epoch: 10/10 - " in text
    assert float(re.findall(r"val_multiclassaccuracy:(0\.\d+)", text)[-1]) > 0.98
