# SPDX-License-Identifier: Apache-2.0
"""Tree: nested lists, tuples and dicts of arrays as one value. Pure; knows no framework, no party and no protocol.

A model may have several inputs and outputs. All that speaks of its rows (what is fed, what is expected, what comes out)
is a tree; a model with one input has a tree of one leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fedray.errors import DataError, type_of


@dataclass(frozen=True, slots=True)
class Tree:
    """One value, or lists, tuples and dicts (with string keys) of values; whatever is none of the three is a leaf.

    Leaves have an order: that of lists and tuples, and of dicts by their sorted keys. So two parties that wrote the
    keys of one dict in another order have the same tree.

    Attributes:
        nest: The nested values.
        name: What the whole is called in errors; its leaves are called e.g. `x['age']` and `y[0]`.
    """

    nest: Any
    name: str = "value"

    def __post_init__(self) -> None:
        for path, node in _nodes(self.nest, self.name):
            if isinstance(node, dict) and not all(isinstance(key, str) for key in node):
                raise DataError(f"{path}: expected a dict with string keys")

    @property
    def nested(self) -> bool:
        """Whether it is more than one value alone."""
        return isinstance(self.nest, dict | list | tuple)

    def leaves(self) -> list[Any]:
        """Returns the values, in order."""
        return [leaf for _, leaf in self.named()]

    def names(self) -> list[str]:
        """Returns what each leaf is called, in order."""
        return [name for name, _ in self.named()]

    def named(self) -> list[tuple[str, Any]]:
        """Returns (name, value) of each leaf, in order."""
        return [
            (path, node) for path, node in _nodes(self.nest, self.name) if not isinstance(node, dict | list | tuple)
        ]

    def map(self, change: Callable[[Any], Any]) -> Tree:
        """Returns the tree with every leaf changed."""
        return self.rebuild([change(leaf) for leaf in self.leaves()])

    def rebuild(self, leaves: Sequence[Any]) -> Tree:
        """Returns the tree with other values in the places of its leaves.

        Args:
            leaves: As many as this tree has, in order.

        Raises:
            DataError: They are more or fewer.
        """
        if len(leaves) != len(self.leaves()):
            raise DataError(f"{self.name}: expected {len(self.leaves())} leaves, found {len(leaves)}")
        return Tree(_filled(self.nest, iter(leaves)), self.name)

    def same_form(self, other: Tree) -> bool:
        """Returns whether both have leaves in the same places; a list and a tuple count as the same."""
        return bool(_form(self.nest) == _form(other.nest))

    @property
    def rows(self) -> int:
        """Length of the first axis, which all leaves share.

        Raises:
            DataError: There is no leaf, a leaf is no array with rows, or two differ in length.
        """
        return common_rows([self])


def common_rows(trees: Sequence[Tree]) -> int:
    """Returns the length of the first axis that all leaves of all trees share.

    Raises:
        DataError: There is no leaf, a leaf is no array with rows, or two differ in length.
    """
    lengths: dict[str, int] = {}
    for name, leaf in (pair for tree in trees for pair in tree.named()):
        shape = getattr(leaf, "shape", ())
        if not shape:
            raise DataError(f"{name}: expected an array with rows, found {type_of(leaf)} without an axis")
        lengths[name] = int(shape[0])
    if not lengths:
        raise DataError(f"{', '.join(tree.name for tree in trees) or 'value'}: expected at least one array, found none")
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {rows}" for name, rows in lengths.items())
        raise DataError(f"expected arrays of the same length, found rows of {found}")
    return next(iter(lengths.values()))


def _nodes(nest: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields every node of a nest with its name, a node before those inside it."""
    yield path, nest
    if isinstance(nest, dict):
        # Keys that cannot be ordered are left as they are: the caller refuses them.
        for key in sorted(nest) if all(isinstance(key, str) for key in nest) else ():
            yield from _nodes(nest[key], f"{path}[{key!r}]")
    elif isinstance(nest, list | tuple):
        for place, item in enumerate(nest):
            yield from _nodes(item, f"{path}[{place}]")


def _filled(nest: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(nest, dict):
        return {key: _filled(nest[key], leaves) for key in sorted(nest)}
    if isinstance(nest, list | tuple):
        items = [_filled(item, leaves) for item in nest]
        return tuple(items) if isinstance(nest, tuple) else items
    return next(leaves)


def _form(nest: Any) -> Any:
    if isinstance(nest, dict):
        return {key: _form(item) for key, item in nest.items()}
    return tuple(_form(item) for item in nest) if isinstance(nest, list | tuple) else None
