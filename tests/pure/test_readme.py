# SPDX-License-Identifier: Apache-2.0
"""What the documents say, held against what is there: commands, programs, paths, names."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fedray.backends import BACKENDS
from fedray.party.door.egress import Kind
from fedray.strategies import STRATEGIES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "tests" / "contracts" / "reference_program.txt").read_text()
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> tuple[str, str]:
    """Returns the line that sets up and runs, and the line that sets up and tests."""
    run, test = (block.strip() for block in blocks("sh"))
    return run, test


def test_two_commands_and_each_is_one_line() -> None:
    run, test = commands()
    assert run.splitlines() == [run]
    assert test.splitlines() == [test]
    assert run.endswith("fedray demo")
    assert test.endswith("pytest")
    for command in (run, test):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ")


def test_ci_runs_exactly_the_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    reads = re.search(r'^test_command="\$\((.*)\)"$', script, flags=re.MULTILINE)
    assert reads is not None
    found = subprocess.run(["bash", "-c", reads[1]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == commands()[1]
    long = "-m 'slow or hypothesis' --hypothesis-profile=long"
    lines = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert lines[-4:] == [
        'eval "$test_command" || again',
        f".venv/bin/pytest {long} || again {long}",
        ".venv/bin/pip install -q -c constraints.txt -e '.[test,torch]'",
        ".venv/bin/pytest -m torch || again -m torch",
    ]
    assert "set -euo pipefail" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111, "it must be executable"


def test_contributors_are_given_the_same_command() -> None:
    assert blocks("sh", (ROOT / "CONTRIBUTING.md").read_text()) == [commands()[1] + "\n"]


def test_the_program_is_the_reference_program() -> None:
    assert blocks("python") == [REFERENCE]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_programs_compile(document: str) -> None:
    for block in blocks("python", (ROOT / document).read_text()):
        compile(block, document, "exec")


def test_tests_need_what_the_extra_installs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {re.split(r"[>=\[]", requirement)[0] for requirement in extras["test"] + extras["notebooks"]}
    assert {"pytest", "ruff", "mypy", "matplotlib", "nbclient", "nbformat", "ipykernel"} <= named


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    quoted = re.findall(r"`((?:fedray|tests|notebooks|\.ci)/[\w./-]*)`", text)
    assert links + quoted, "these documents name files"
    missing = [path for path in links + quoted if not (ROOT / path).exists()]
    assert missing == []


def test_the_map_is_complete() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = [path.parent.name for path in ROOT.glob("fedray/*/__init__.py")]
    modules = [path.stem for path in ROOT.glob("fedray/*.py") if not path.stem.startswith("_")]
    for name in packages:
        assert f"`fedray/{name}/" in text, f"fedray/{name} is not on the map"
    for name in modules:
        assert f"`fedray/{name}.py`" in text, f"fedray/{name}.py is not on the map"


def test_every_strategy_and_backend_is_spoken_of() -> None:
    model = README.split("## `FLModel`")[1].split("\n## ")[0]
    assert [name for name in [*STRATEGIES, *BACKENDS] if f'"{name}"' not in model] == []


def test_every_kind_of_egress_is_in_the_table() -> None:
    table = README.split("## What may leave a party")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted(str(kind) for kind in Kind)


def test_every_flag_of_the_demo_is_in_the_readme() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedray", "demo", "--help"], capture_output=True, text=True, timeout=60
    )
    flags = set(re.findall(r"--[a-z-]+", done.stdout)) - {"--help", "--verify"}
    assert flags
    assert {flag for flag in flags if flag not in README} == set()


def test_public_names_are_in_the_readme() -> None:
    import fedray

    told = {name for name in fedray.__all__ if re.search(rf"\b{name}\b", README)}
    assert set(fedray.__all__) - told - {"SPUObject", "errors"} == set()


def test_no_document_speaks_of_a_machine_it_was_written_on() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"/(tmp|work|home|root)/", (ROOT / document).read_text()), document


def test_licence_and_citation_of_the_data_are_there() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "CC BY-SA 3.0" in README
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
