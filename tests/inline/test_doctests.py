# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings: every one runs, in one session of three parties, and every public name has one."""

import doctest
import importlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fedray as sf

PACKAGE = Path(sf.__file__).parent
PUBLIC = [
    "fedray",
    "fedray.data.ndarray",
    "fedray.data.split",
    "fedray.metrics",
    "fedray.ml.nn",
    "fedray.ml.nn.numpy",
    "fedray.security.aggregation",
    "fedray.utils.simulation.datasets",
    "fedray.utils.testing",
]
"""Modules that users import from. What they offer needs an example."""


def module_of(path: Path) -> str:
    parts = ["fedray", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def with_examples() -> list[doctest.DocTest]:
    """Returns the docstrings that hold examples, of every module but the package itself, whose lines come first."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text()]
    modules = [importlib.import_module(module_of(path)) for path in paths]
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in modules for test in finder.find(module)]
    return [test for test in found if test.examples and test.name != "fedray"]


def offered(module_name: str) -> Iterator[tuple[str, Any]]:
    """Yields name and object of what a module offers: its `__all__`, else the classes and functions made in it."""
    module = importlib.import_module(module_name)
    for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
        value = getattr(module, name)
        if isinstance(value, types.ModuleType | type | types.FunctionType) and (
            hasattr(module, "__all__") or getattr(value, "__module__", None) == module_name
        ):
            yield name, value


@pytest.fixture(scope="module")
def world() -> Iterator[dict[str, Any]]:
    """Returns the names that the package's own docstring makes, which all examples take for granted."""
    sf.shutdown()
    first = doctest.DocTestParser().get_doctest(sf.__doc__ or "", {}, "fedray", sf.__file__, 0)
    run(first)
    yield first.globs
    sf.shutdown()


def run(test: doctest.DocTest) -> None:
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append, clear_globs=False)
    assert result.attempted, f"{test.name}: no example was run"
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("test", with_examples(), ids=lambda test: test.name)
def test_the_example_does_what_it_says(test: doctest.DocTest, world: dict[str, Any]) -> None:
    test.globs = dict(world)
    run(test)


@pytest.mark.parametrize("module", PUBLIC)
def test_whatever_is_offered_has_an_example(module: str) -> None:
    assert [name for name, value in offered(module) if ">>>" not in (value.__doc__ or "")] == []


def test_a_wrong_example_is_found() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    with pytest.raises(AssertionError, match="Expected"):
        run(wrong)
