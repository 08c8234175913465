# SPDX-License-Identifier: Apache-2.0
"""What a wheel holds: every folder with code is a package, and every other file is named in `pyproject.toml`."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

import fedray

PACKAGE = Path(fedray.__file__).parent
PROJECT = PACKAGE.parent / "pyproject.toml"

pytestmark = pytest.mark.skipif(
    not PROJECT.exists(), reason="needs a clone: an installed package has no pyproject.toml"
)


def setuptools() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads(PROJECT.read_text())["tool"]["setuptools"]
    return settings


def data_files() -> set[str]:
    paths = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(PACKAGE).as_posix() for path in paths if path.suffix != ".py"}


def test_every_file_that_is_not_python_travels_in_the_wheel() -> None:
    patterns = setuptools()["package-data"]["fedray"]
    matched = {
        pattern: {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob(pattern)} for pattern in patterns
    }
    assert [pattern for pattern, files in matched.items() if not files] == [], "patterns that match nothing"
    assert data_files() - set().union(*matched.values()) == set()


def test_what_is_read_and_tested_is_among_them() -> None:
    assert {"py.typed", "data/mnist.npz", "data/LICENSE-MNIST.txt", "protocol/SECAGG.md"} <= data_files()


def test_every_folder_with_code_is_a_package() -> None:
    assert setuptools()["packages"]["find"]["include"] == ["fedray*"]
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder.name for folder in folders if not (folder / "__init__.py").exists()] == []
