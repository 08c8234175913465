# SPDX-License-Identifier: Apache-2.0
"""The notebook on secure aggregation, executed (`slow`): what it shows, the tests of the protocols show in small."""

import re
from pathlib import Path

import nbformat
import pytest
from notebooks.executed import CHATTER, execute, printed, read

AGGREGATION = Path(__file__).parents[2] / "notebooks" / "02_secure_aggregation.ipynb"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aggregation(joined: None, tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """Returns the notebook on secure aggregation, executed: parties and masks are as they stand in it."""
    notebook = read(AGGREGATION)
    execute(notebook, tmp_path_factory.mktemp("notebook"))
    return notebook


def test_aggregation_without_a_line_of_chatter(aggregation: nbformat.NotebookNode) -> None:
    assert printed(aggregation, "stderr") == ""
    assert CHATTER.findall(printed(aggregation, "stdout")) == []


def test_masks_cancel_and_hide(aggregation: nbformat.NotebookNode) -> None:
    text = printed(aggregation, "stdout")
    assert "bit for bit the same results: True" in text
    assert "in every word: True" in text
    found, chance = re.findall(
        r"correlation of masked with plain words\s+([-+]\d\.\d+)   \(by chance within (\d\.\d+)\)", text
    )[0]
    assert abs(float(found)) < 1.5 * float(chance)


def test_the_dropout_is_survived_and_every_attack_refused(aggregation: nbformat.NotebookNode) -> None:
    text = printed(aggregation, "stdout")
    assert "party='dave'" in str(aggregation)
    assert re.search(r"epoch: 2/2 - loss:\d\.\d+ accuracy:0\.\d+ val_loss:\d\.\d+ val_accuracy:0\.[89]", text)
    assert "WENT THROUGH" not in text
    assert "7 of 7 attacks were refused" in str(aggregation)
