# SPDX-License-Identifier: Apache-2.0
"""Copies of notebooks, executed in kernels of their own, and what they print."""

import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CHATTER = re.compile(r"oneDNN|cpu_feature|WARNING|INFO|absl|raylet|cuda|\bray\b|tensorflow/", flags=re.IGNORECASE)
"""What TensorFlow and Ray write when nobody asked them."""


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook: nbformat.NotebookNode, stream: str) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == stream)


def changed(notebook: nbformat.NotebookNode, changes: Mapping[str, str]) -> None:
    """Replaces text of its code, each of which stands there once."""
    for old, new in changes.items():
        assert sum(source.count(old) for source in code(notebook)) == 1, old
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source = cell.source.replace(old, new)


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Executes every cell in a folder, which is empty afterwards."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", coalesce_streams=True, resources=resources).execute()
    assert list(folder.iterdir()) == [], "nothing is left lying around"
