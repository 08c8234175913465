# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: read from the source, so that a forbidden import fails even where it is never executed.

A rule is one test for all files, which lists those that break it: a test for each file takes longer than the rule.
"""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import fedray
from fedray.party.code_source import parsed

PACKAGE = Path(fedray.__file__).parent
ORDER = ["errors", "types", "tree", "metrics", "protocol", "strategies", "backends", "party", "runtime", "device"]
ORDER += ["data", "rounds", "security", "ml", "utils", "commands", "__main__"]
"""A part may import itself and those before it."""

FRAMEWORKS = {"tensorflow": "keras", "keras": "keras", "jax": "spu", "spu": "spu"}
FRAMEWORKS |= dict.fromkeys(("torch", "torchmetrics"), "torch")
"""Framework -> the folder of `backends/` that may import it, inside functions."""

MAY_IMPORT_RAY = {"runtime/ray.py", "runtime/ray_errors.py"}
MAY_IMPORT_A_FRAMEWORK = {"commands/demo.py", "commands/demo_torch.py"}  # their builders, as in a user's program


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def module_of(path: Path) -> str:
    parts = ["fedray", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return parsed(path.read_text())


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Returns line and full name of whatever a file imports, inside functions too."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append((node.lineno, alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            for alias in node.names:
                found.append((node.lineno, f"{node.module}.{alias.name}"))
    return found


def part_of(module: str) -> str | None:
    pieces = module.split(".")
    return pieces[1] if pieces[0] == "fedray" and len(pieces) > 1 else None


def test_files_import_only_what_stands_above() -> None:
    found = []
    for path in files():
        if path == PACKAGE / "__init__.py":
            continue  # it gathers the public names
        mine = part_of(module_of(path))
        assert mine in ORDER, f"{name_of(path)}: a new part needs its place in ORDER, and in CONTRIBUTING.md"
        for line, module in imports(path):
            other = part_of(module)
            if other in ORDER and ORDER.index(other) > ORDER.index(mine):
                found.append(f"{name_of(path)}:{line}: {mine} may not import {module}")
    assert found == []


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Returns the strongly connected groups of more than one module (Tarjan, SIAM J. Comput. 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module_of(path) for path in files()}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for path in files():
        for _, name in imports(path):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            # A package's `__init__` gathers names: it is not a step on the way to its own modules.
            if name and name != module_of(path) and not module_of(path).startswith(f"{name}."):
                graph[module_of(path)].add(name)
    assert circles(graph) == []


def class_and_alias_names(path: Path) -> Iterator[str]:
    """Yields the names of classes and type aliases at the top of a file; type variables are everywhere the same."""
    for node in tree_of(path).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.dump(node.annotation):
            yield ast.unparse(node.target)
        elif (
            isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and "Literal" in ast.dump(node.value)
        ):
            yield ast.unparse(node.targets[0])


def test_one_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path in files():
        for name in class_and_alias_names(path):
            if not name.startswith("_"):
                places.setdefault(name, []).append(name_of(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_protocol_inherits_no_implementation_from_another_file() -> None:
    allowed = {"Guarded", "Protocol", "Generic", "NamedTuple", "ProtocolError"}
    found = []
    for path in files():
        tree = tree_of(path)
        here = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} | allowed
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and name_of(path).startswith("protocol/"):
                bases = {ast.unparse(base).split("[")[0] for base in node.bases}
                found += [f"{name_of(path)}: {node.name}({base})" for base in bases - here]
    assert found == []


def test_ray_and_frameworks_stay_where_they_belong() -> None:
    found = []
    for path in files():
        for line, module in imports(path):
            root = module.split(".")[0]
            at_home = root in FRAMEWORKS and name_of(path).startswith(f"backends/{FRAMEWORKS[root]}/")
            if root == "ray" and name_of(path) not in MAY_IMPORT_RAY:
                found.append(f"{name_of(path)}:{line}: {module}")
            if root in FRAMEWORKS and not at_home and name_of(path) not in MAY_IMPORT_A_FRAMEWORK:
                found.append(f"{name_of(path)}:{line}: {module}")
    assert found == []


def test_no_framework_is_imported_at_module_level() -> None:
    for path in files():
        for node in tree_of(path).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.split(".")[0] for name in names} & set(FRAMEWORKS), name_of(path)


def test_importing_fedray_loads_nothing_heavy_and_starts_nothing() -> None:
    code = (
        "import sys, threading, fedray, fedray.ml.nn, fedray.data.ndarray, fedray.security.aggregation\n"
        "import fedray.commands.cli\n"
        "heavy = {'ray', 'tensorflow', 'keras', 'torch', 'jax', 'matplotlib', 'pandas', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip(), done.stderr) == ("[] 1", "")


def in_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_public_names_are_sorted_and_are_all_that_is_visible() -> None:
    modules = {name for name, value in vars(fedray).items() if isinstance(value, type(sys))}
    visible = {name for name in vars(fedray) if not name.startswith("_")} - modules
    assert fedray.__all__ == sorted(fedray.__all__, key=in_order)
    assert set(fedray.__all__) - modules == visible
    strangers = [name for name in modules if getattr(fedray, name).__name__ != f"fedray.{name}"]
    assert [name for name in strangers if not name.startswith("_")] == [], "foreign modules are not for users"


@pytest.mark.parametrize("path", [path for path in files() if "\n__all__ =" in path.read_text()], ids=name_of)
def test_whatever_is_offered_is_there(path: Path) -> None:
    module = importlib.import_module(module_of(path))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert module.__all__ == sorted(module.__all__, key=in_order)


def test_every_file_names_its_licence_and_its_purpose() -> None:
    licence = "# SPDX-License-Identifier: Apache-2.0\n"
    assert [name_of(path) for path in files() if not path.read_text().startswith(licence)] == []
    silent = [name_of(path) for path in files() if not ast.get_docstring(tree_of(path))]
    assert silent == [], "a module docstring says what the file knows"
