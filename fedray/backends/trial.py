# SPDX-License-Identifier: Apache-2.0
"""Trial: whether the state of a metric adds up over rows, found out by trying.

A metric class of a user's own may be merged over parties only where its state over all rows is the sum of its states
over parts of them. The rows are made up, from nothing but the shapes and types of a party's: what is found out says
nothing about data, and is the same at every party. Works on the objects it is handed; knows no framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, product
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.tree import Tree

Verdict: TypeAlias = Literal["rows", "batches", "no", "untried"]
"""The state is a sum over rows; over batches, however many rows they have; of neither; or made-up rows did not tell."""

Reading: TypeAlias = list[NDArray[np.float64]]
Showing: TypeAlias = Callable[["MadeUp", NDArray[np.int64], bool], None]
"""Lets a metric see some of the rows as one batch, with weights or without."""

ROWS = 24
"""Enough that every class of a small problem occurs in both parts of every split below, and sums stay exact enough."""

SPLITS = (1, 9, 12, 22)
"""Rows in the first of two parts."""


@dataclass(frozen=True, slots=True)
class MadeUp:
    """Made-up rows.

    Attributes:
        x: Inputs, nested as the model's.
        y: Labels, nested as the model's outputs, or None.
        output: What a model might say of them; of its outputs' shapes and types.
        weight: One per row, for all outputs.
    """

    x: Any
    y: Any
    output: Any
    weight: NDArray[Any]


def verdict(metric: Any, update: Showing, several: Sequence[MadeUp], splits: Sequence[int] = SPLITS) -> Verdict:
    """Returns what a metric's state is on all kinds of rows that it can be tried on.

    Args:
        metric: Has `variables`, each with a `numpy()` and a `dtype`, and `reset_state()`; its state is lost.
        update: Lets it see rows.
        several: Made-up rows of several kinds.
        splits: Rows in the first of two parts, in each split.
    """
    found, moved = set[str](), np.zeros(len(metric.variables), bool)
    for rows, weighted in product(several, (False, True)):
        # Made-up rows that a metric cannot take (it may want sorted times, or text) say nothing of it.
        with suppress(Exception):
            one, states = _on(metric, lambda batch: update(rows, batch, weighted), splits)  # noqa: B023
            found.add(one)
            moved |= [any(np.any(state[place]) for state in states) for place in range(len(moved))]
    if "no" in found:
        return "no"
    # A variable that has rested may grow by any rule.
    if not found or not len(moved) or not moved.all():
        return "untried"
    return "batches" if "batches" in found else "rows"


def _on(metric: Any, see: Callable[[NDArray[np.int64]], None], splits: Sequence[int]) -> tuple[Verdict, list[Reading]]:
    """Tries a metric on rows of one kind; returns the verdict and all its states.

    Args:
        metric: The metric.
        see: Lets it see a batch of those rows.
        splits: As in `verdict`.

    Raises:
        ValueError: A state is not finite, which compares with nothing.
    """

    def state(*batches: NDArray[np.int64]) -> Reading:
        metric.reset_state()
        for batch in batches:
            see(batch)
        return [np.asarray(variable.numpy(), np.float64) for variable in metric.variables]

    every = np.arange(ROWS)
    dealt = np.concatenate([every[::2], every[1::2]])
    parts = [np.split(order, [size]) for order, size in zip(cycle((every, dealt)), splits, strict=False)]
    whole, again = state(every), state(every)
    apart = [(state(first), state(second)) for first, second in parts]
    in_turn = [state(first, second) for first, second in parts]
    states = [whole, *(one for pair in apart for one in pair), *in_turn]
    if not all(np.isfinite(array).all() for one in states for array in one):
        raise ValueError("a state is not finite")
    sums = [[a + b for a, b in zip(*pair, strict=True)] for pair in apart]
    near = _Near(metric.variables, states)
    if not near(whole, again) or not all(near(one, sum_) for one, sum_ in zip(in_turn, sums, strict=True)):
        return "no", states
    return "rows" if all(near(whole, sum_) for sum_ in sums) else "batches", states


class _Near:
    """Compares states to within the rounding of sums of so many rows.

    Args:
        variables: The metric's.
        states: All that were seen; sums of numbers of both signs may come out small, their roundings do not.
    """

    def __init__(self, variables: Sequence[Any], states: Sequence[Reading]) -> None:
        self._bounds = [
            (0.05 if "float16" in str(variable.dtype) else 1e-5)
            * max((float(np.abs(state[place]).max(initial=0.0)) for state in states), default=0.0)
            for place, variable in enumerate(variables)
        ]

    def __call__(self, a: Reading, b: Reading) -> bool:
        return all(
            bool(np.all(np.abs(one - other) <= bound)) for one, other, bound in zip(a, b, self._bounds, strict=True)
        )


def made_up(x: Any, y: Any, output: Any, kind: str) -> MadeUp:
    """Returns rows of the same shapes and types, with numbers of one kind.

    Args:
        x: Nested arrays or tensors of a few rows.
        y: The same of labels, or None.
        output: The same of what the model returns.
        kind: `"classes"`: labels are class numbers, or one 1 in each row, outputs are probabilities; `"numbers"`: both
            are any numbers, where their types allow it.
    """
    rng = np.random.default_rng(1)
    outputs = Tree(output)
    said = outputs.map(lambda like: _outputs(rng, like, kind))
    labels = None
    if y is not None:
        of_labels = Tree(y)
        likes = said.leaves() if len(said.leaves()) == len(of_labels.leaves()) else [None] * len(of_labels.leaves())
        made = [_labels(rng, leaf, like, kind) for leaf, like in zip(of_labels.leaves(), likes, strict=True)]
        labels = of_labels.rebuild(made).nest
    weight = rng.uniform(0.5, 2.0, ROWS).astype(np.float32)
    return MadeUp(Tree(x).map(lambda like: _inputs(rng, like)).nest, labels, said.nest, weight)


def _form(like: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    dtype = like.dtype if isinstance(like.dtype, np.dtype) else np.dtype(like.dtype.as_numpy_dtype)
    return (ROWS, *(int(n) for n in like.shape[1:])), dtype


def _inputs(rng: np.random.Generator, like: Any) -> NDArray[Any]:
    shape, dtype = _form(like)
    if dtype.kind in "OSU":
        return rng.choice(np.array(["a", "b"]), shape)
    # 0 and 1 are in the range of every table of embeddings
    values = rng.integers(0, 2, shape) if dtype.kind in "biu" else rng.normal(size=shape)
    return np.asarray(values).astype(dtype)


def _outputs(rng: np.random.Generator, like: Any, kind: str) -> NDArray[Any]:
    shape, dtype = _form(like)
    values = rng.normal(size=shape) * 3
    if dtype.kind in "biu":
        values = np.rint(np.abs(values)) % 2
    elif kind == "classes":
        values = np.exp(values)
        values /= values.sum(axis=-1, keepdims=True) if shape[-1] > 1 and len(shape) > 1 else 1 + values
    return np.asarray(values).astype(dtype)


def _labels(rng: np.random.Generator, like: Any, output: NDArray[Any] | None, kind: str) -> NDArray[Any]:
    shape, dtype = _form(like)
    if dtype.kind in "OSU":
        return _inputs(rng, like)
    if kind == "numbers" and dtype.kind not in "biu":
        return np.asarray(rng.normal(size=shape) * 3).astype(dtype)
    classes = max(output.shape[-1] if output is not None and output.ndim > 1 else 2, 2)
    one_hot = output is not None and output.shape == shape and shape[-1] > 1 and len(shape) > 1
    numbers = rng.permutation(np.arange(math.prod(shape[:-1] if one_hot else shape)) % classes)
    values: NDArray[Any] = np.eye(classes)[numbers] if one_hot else numbers
    return values.reshape(shape).astype(dtype)
