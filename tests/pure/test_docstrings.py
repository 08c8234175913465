# SPDX-License-Identifier: Apache-2.0
"""What docstrings must say: `Args:` where there are three or more, `Raises:` where one of our errors is raised."""

import ast
from collections.abc import Iterator
from pathlib import Path

import fedray
from fedray import errors
from fedray.party.code_source import parsed

PACKAGE = Path(fedray.__file__).parent

CHECKED = ["**/*.py"]
"""Files that keep the rules."""

MANY = 3
OURS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def checked_files() -> list[Path]:
    return sorted({path for pattern in CHECKED for path in PACKAGE.glob(pattern)})


def public_functions(tree: ast.Module) -> Iterator[tuple[str, Function, str]]:
    """Yields name, function and docstring; what a constructor says stands in the docstring of its class."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, Function) and (inner.name in ("__init__", "__call__") or inner.name[0] != "_"):
                    told_by = [node, inner] if inner.name == "__init__" else [inner]
                    text = "\n".join(ast.get_docstring(one) or "" for one in told_by)
                    yield f"{node.name}.{inner.name}", inner, text


def parameters(function: Function) -> list[str]:
    args = function.args
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs, *[one for one in (args.vararg, args.kwarg) if one]]
    return [one.arg for one in named if one.arg not in ("self", "cls")]


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes of a function's own body, without those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
            yield child
            yield from own_nodes(child)


def raised(function: Function) -> set[str]:
    """Returns the names of our errors that a function's own body raises."""
    found = {node.exc for node in own_nodes(function) if isinstance(node, ast.Raise) and node.exc is not None}
    names = {ast.unparse(exc.func if isinstance(exc, ast.Call) else exc).rpartition(".")[2] for exc in found}
    return names & OURS


def told(function: Function, docstring: str) -> bool:
    """Returns whether the parameters are told, here or where the docstring says to look (ruff checks each line)."""
    return "Args:" in docstring or "ee `" in docstring or any(map(_is_overload, function.decorator_list))


def _is_overload(mark: ast.expr) -> bool:
    return ast.unparse(mark).endswith("overload")


def missing(path: Path) -> list[str]:
    found = []
    for name, function, docstring in public_functions(parsed(path.read_text())):
        where = f"{path.relative_to(PACKAGE).as_posix()}:{function.lineno}: {name}"
        if len(parameters(function)) >= MANY and not told(function, docstring):
            found.append(f"{where}: no Args: for {', '.join(parameters(function))}")
        untold = sorted(one for one in raised(function) if f"{one}: " not in docstring.partition("Raises:")[2])
        if untold:
            found.append(f"{where}: no Raises: for {', '.join(untold)}")
    return found


def test_arguments_and_errors_are_told() -> None:
    assert [line for path in checked_files() for line in missing(path)] == []
