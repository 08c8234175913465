# SPDX-License-Identifier: Apache-2.0
"""The notebook for several machines, and the tutorial with another address, driven from one of three hosts (`slow`)."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from cluster import hosts
from cluster.test_walk_through import NAMES, SCP, STEPS, WHY_NOT, step
from notebooks.executed import CHATTER, changed, printed, read
from notebooks.test_notebooks import EPOCHS, PARTIES, TENTH

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "05_several_machines.ipynb"
TUTORIAL = ROOT / "notebooks" / "01_federated_image_classification.ipynb"

EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
source, target = sys.argv[1:]
notebook = nbformat.read(source, 4)
try:
    NotebookClient(notebook, timeout=240, kernel_name="python3", coalesce_streams=True).execute()
finally:
    nbformat.write(notebook, target)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[hosts.Host]:
    """Returns charlie's machine, on which the head runs; alice's and bob's are nodes, and let what they print leave."""
    with hosts.hosts(*NAMES) as machines:
        tools = machines["charlie"].home.parent / "tools"
        tools.mkdir()
        (tools / "scp").write_text(SCP)
        (tools / "scp").chmod(0o755)
        for name, command in STEPS:
            if "train.py" not in command and "fedray stop" not in command:
                step(machines[name], command)
            if "party init" in command:
                rules = machines[name].home / ".fedray" / "parties" / name / "party.toml"
                text = rules.read_text()
                assert 'egress = "strict"' in text
                rules.write_text(text.replace('egress = "strict"', 'egress = "default"'))
        yield machines["charlie"]


def executed(server: hosts.Host, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Returns a notebook, executed on the server's machine."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    source, target = server.home / "source.ipynb", server.home / "target.ipynb"
    nbformat.write(notebook, source)
    (server.home / "execute.py").write_text(EXECUTE)
    words = [sys.executable, "execute.py", str(source), str(target)]
    code, out, err = server.run(words, 280, PYTHONPATH=str(ROOT), JUPYTER_PLATFORM_DIRS="1")
    assert code == 0, f"{out}\n{err}"
    return read(target)


def test_the_notebook_drives_a_cluster_that_runs(server: hosts.Host) -> None:
    notebook = executed(server, read(NOTEBOOK))
    assert printed(notebook, "stderr") == ""
    assert CHATTER.findall(printed(notebook, "stdout")) == []
    for cell in notebook.cells:
        if "def look" in cell.source:
            text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    for party in ("alice", "bob"):
        assert f"{party}: 3,000 images of shape (28, 28, 1), on the machine called {party}\n" in text
    (last,) = re.findall(r"epoch: 3/3 - loss:\d\.\d+ accuracy:(0\.\d+) val_loss", printed(notebook, "stdout"))
    assert float(last) > 0.7


def test_the_tutorial_runs_there_with_another_address_and_no_other_change(server: hosts.Host) -> None:
    notebook = read(TUTORIAL)
    changed(notebook, {"address='local'": "address='auto'", PARTIES: TENTH.changes[PARTIES]})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = EPOCHS.sub("epochs=1", cell.source)
            cell.source = cell.source.replace("6_700", "670")
    notebook = executed(server, notebook)
    assert printed(notebook, "stderr") == ""
    assert CHATTER.findall(printed(notebook, "stdout")) == []
    assert re.search(r"epoch: 1/1 - loss:\d\.\d+ accuracy:0\.\d+ val_loss", printed(notebook, "stdout"))
