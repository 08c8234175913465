# SPDX-License-Identifier: Apache-2.0
"""The tutorial, executed: a copy with one epoch and a tenth of the images on the cluster that is there, or with all of
them and a cluster of its own (`slow`).

And what is committed of every notebook.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from cluster.reference import PROGRAM, REPORT, check
from notebooks.executed import CHATTER, code, execute, printed, read

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TUTORIAL = ROOT / "notebooks" / "01_federated_image_classification.ipynb"
EPOCHS = re.compile(r"epochs=\d+")
ADDRESS = "address='local'"
PARTIES = "parts=[alice, bob]"


@dataclass(frozen=True)
class Size:
    """How many images the tutorial works on, and what must be seen of that.

    Attributes:
        part: One in so many of the images.
        changes: Text of a cell -> what stands there instead.
        rounds: Rounds of an epoch: two parties, batches of 128.
        digits: The first labels of each party.
        alone: Images of the models that alice trains alone.
        test_loss: How the loss on test images begins; it falls below one in 235 rounds, and not yet in 24.
    """

    part: int
    changes: dict[str, str]
    rounds: int
    digits: dict[str, str]
    alone: set[str]
    test_loss: str


TENTH = Size(
    10,
    {
        ADDRESS: "address='auto'",
        PARTIES: "parts={alice: 0.05, bob: 0.05}",
        "6_700": "670",
        "mnist['x_test']": "mnist['x_test'][:1000]",
        "mnist['y_test']": "mnist['y_test'][:1000]",
    },
    24,
    {"alice": "50419213", "bob": "90881325"},
    {"3,000", "670"},
    r"\d",
)
WHOLE = Size(1, {}, 235, {"alice": "50419213", "bob": "37396441"}, {"30,000", "6,700"}, "0")


@pytest.fixture(
    scope="module", params=[pytest.param(TENTH, id="tenth"), pytest.param(WHOLE, id="whole", marks=pytest.mark.slow)]
)
def size(request: pytest.FixtureRequest) -> Size:
    """Returns how many images: a tenth, where the models alone are measured on the federated one's test images, too."""
    return request.param


@pytest.fixture(scope="module")
def tutorial(
    request: pytest.FixtureRequest, size: Size, tmp_path_factory: pytest.TempPathFactory
) -> nbformat.NotebookNode:
    """Returns the tutorial, executed with one epoch, and what the reference program in it says of itself."""
    if ADDRESS in size.changes:
        request.getfixturevalue("joined")
    notebook = read(TUTORIAL)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = EPOCHS.sub("epochs=1", cell.source)
            for old, new in size.changes.items():
                cell.source = cell.source.replace(old, new)
    *_, ending = notebook.cells
    assert ending.source == "sf.shutdown()"
    ending.source = f"{REPORT}\nsf.shutdown()"
    execute(notebook, tmp_path_factory.mktemp("notebook"))
    return notebook


def test_address_and_images_are_set_in_the_places_that_are_changed() -> None:
    text = "\n".join(code(read(TUTORIAL)))
    assert {old: text.count(old) for old in TENTH.changes} == {
        ADDRESS: 1,
        PARTIES: 1,
        "6_700": 2,
        "mnist['x_test']": 1,
        "mnist['y_test']": 1,
    }


def test_the_epochs_are_set_in_one_place() -> None:
    assert len(EPOCHS.findall("\n".join(code(read(TUTORIAL))))) == 1


def test_it_holds_the_reference_program_line_by_line() -> None:
    lines = iter("\n".join(code(read(TUTORIAL))).splitlines())
    for wanted in PROGRAM.splitlines():
        if wanted and not wanted.startswith("#"):
            assert wanted in lines, f"missing, or not in this place: {wanted}"


def test_the_reference_program_in_it_comes_out_right(tutorial: nbformat.NotebookNode, size: Size) -> None:
    check(printed(tutorial, "stdout").splitlines()[-1], size.part)


def test_no_line_of_chatter(tutorial: nbformat.NotebookNode) -> None:
    assert printed(tutorial, "stderr") == ""
    assert CHATTER.findall(printed(tutorial, "stdout")) == []


def test_the_bar_ends_full_with_the_epochs_figures(tutorial: nbformat.NotebookNode, size: Size) -> None:
    text = printed(tutorial, "stdout")
    assert f"{size.rounds}/{size.rounds}" in text
    figures = rf"epoch: 1/1 - loss:\d\.\d+ accuracy:0\.\d+ val_loss:{size.test_loss}\.\d+ val_accuracy:0\.\d+"
    assert re.search(figures, text)


def test_it_shows_each_partys_own_rows(tutorial: nbformat.NotebookNode, size: Size) -> None:
    text = printed(tutorial, "stdout")
    assert re.search(rf"alice:\s+{size.digits['alice']}", text), "the first rows of MNIST"
    assert re.search(rf"bob:\s+{size.digits['bob']}", text), "the rows after alice's"


def test_it_has_its_pictures(tutorial: nbformat.NotebookNode) -> None:
    outputs = [output for cell in tutorial.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3


def test_the_conclusion_states_what_was_measured(tutorial: nbformat.NotebookNode, size: Size) -> None:
    texts = [
        output.data["text/markdown"]
        for cell in tutorial.cells
        for output in cell.get("outputs", [])
        if "text/markdown" in output.get("data", {})
    ]
    assert len(texts) == 1
    figures = dict(re.findall(r"alice alone,\s+([\d,]+) images: test accuracy (0\.\d+)", printed(tutorial, "stdout")))
    assert set(figures) == size.alone
    for accuracy in figures.values():
        assert f"{float(accuracy):.2%}" in texts[0]
    (federated,) = re.findall(r"val_accuracy:(0\.\d+)", printed(tutorial, "stdout"))
    assert f"{float(federated):.2%}" in texts[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_is_small_and_clean(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    assert printed(notebook, "stderr") == ""
    assert CHATTER.findall(printed(notebook, "stdout")) == []
    errors = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert errors == []
    assert not re.search(r"/(tmp|work|home|root)/", path.read_text()), "no path of the machine it ran on"
