# SPDX-License-Identifier: Apache-2.0
"""What users of NumPy and pandas type, said of rows that are spread over parties: done inside each, or refused by name.

Everything here computes at the parties, and nothing leaves one. What cannot be, since it would move rows or put them
together, says what can. Knows no party's values and no sum.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike

from fedray.data import inside, rowwise
from fedray.data.casting import Casting, checked_casting
from fedray.data.columns import Names, joined, stretched
from fedray.data.operators import Operators
from fedray.data.rows import is_integer
from fedray.data.shapes import order_of_axes, row_shape
from fedray.device import PYU, PYUObject
from fedray.device.interfaces import Parted
from fedray.errors import DataError, PlanError
from fedray.party.table import replace

_ELEMENTWISE = frozenset({np.where, np.clip, np.round, np.nan_to_num, np.isclose})
_SIDE_BY_SIDE = frozenset({np.concatenate, np.column_stack})
_METHODS: Mapping[Callable[..., Any], str] = {
    np.mean: "mean",
    np.sum: "sum",
    np.std: "std",
    np.var: "var",
    np.min: "min",
    np.max: "max",
    np.reshape: "reshape",
    np.transpose: "transpose",
    np.swapaxes: "swapaxes",
}
_FACTS: Mapping[Callable[..., Any], str] = {np.shape: "shape", np.ndim: "ndim", np.size: "size"}
_OPENED = "x.mean(axis=0), x.std(axis=0), x.quantile(0.5) and the like open figures over all parties"
_WITHOUT_GAPS = (
    "count and sum what is there, as there = ~np.isnan(x); np.where(there, x, 0.0).sum(axis=0) / there.sum(axis=0)"
)
_NO_METHODS: Mapping[str, str] = {
    "median": "say x.quantile(0.5), which is some party's value",
    "quantile": "say x.quantile(q), which is some party's value",
    "percentile": "say x.quantile(q / 100), which is some party's value",
    "nanmean": _WITHOUT_GAPS,
    "nansum": "say np.where(np.isnan(x), 0.0, x).sum(axis=0)",
    "nanstd": _WITHOUT_GAPS,
    "average": "say x.mean(axis=0); weigh the rows first, where they differ in weight",
    "stack": "say np.concatenate([x[..., None], y[..., None]], axis=-1)",
}
"""NumPy's function -> what does its work."""

_NOT_HERE: Mapping[str, str] = {
    "T": "rows are the first axis and stay with their parties; x.transpose(0, 2, 1) changes the others",
    "flatten": "rows stay rows; x.reshape(-1, numbers_in_a_row) flattens each",
    "ravel": "rows stay rows; x.reshape(-1, numbers_in_a_row) flattens each",
    "dot": "say x.map(lambda rows: rows @ w)",
    "copy": "a FedNdarray never changes, so it needs no copy",
    "describe": _OPENED,
    "value_counts": "say (x == value).sum() for each value",
    "median": _NO_METHODS["median"],
    "isna": "say np.isnan(x)",
    "isnull": "say np.isnan(x)",
    "notna": "say ~np.isnan(x)",
    "dropna": "rows are left out where they are read, as in load({alice: read}) with a function that returns the rest",
    "drop": "say x[:, 1:], or load(..., columns=[...]) without it",
    "apply": "say x.map(fn), which runs inside each party",
    "iloc": "say x[10:20], x[:, 0]",
    "loc": "say x[10:20], x[:, 0]; x.columns are the names of columns",
    "sample": "say x.head(n), or fedray.data.split.train_test_split(x, train_size=n)[0]",
    **dict.fromkeys(
        ("values", "numpy", "to_numpy", "tolist", "item"),
        f"its rows are at the parties; {_OPENED}, and sf.reveal(x) brings every row here, as kind 'raw'",
    ),
    **dict.fromkeys(
        ("argmax", "argmin", "argsort", "sort", "cumsum", "any", "all", "unique", "nonzero", "tail"),
        "say x.map(fn) for what has a row for each row, or alice(fn)(x.partitions[alice]) for what stays with alice",
    ),
}
"""A word of NumPy's or pandas's -> why there is none, and what to say."""


class ArrayWords(Operators, Parted):
    """NumPy's functions and some of pandas's words, for a class that says how to apply a function to every part."""

    partitions: dict[PYU, PYUObject]
    columns: Names | None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together."""

    @abstractmethod
    def _made(self, parts: Mapping[PYU, PYUObject], columns: Names | None) -> Self:
        """Returns an array of these parts."""

    def head(self, n: int = 5) -> Self:
        """Returns the first `n` rows of each party, which stay there; all of a party that has fewer.

        Args:
            n: Rows of each party.

        Raises:
            PlanError: It is no positive integer.
        """
        if not is_integer(n) or n < 1:
            raise PlanError(f"head: expected a number of rows of at least 1, found {n!r}")
        return self._made(
            {p: p(inside.take)(p.name, part, slice(0, int(n)), ()) for p, part in self.partitions.items()}, self.columns
        )

    def map(self, fn: Callable[[Any], Any], *, columns: Sequence[str] | None = None) -> Self:
        """Returns `fn` of each party's part, computed inside the party, where the results stay.

        Args:
            fn: Takes a party's array and returns one with a row for each row. It travels as `alice(fn)` does.
            columns: Names of the result's columns; it has none otherwise, since nobody here sees what `fn` did.

        Raises:
            PlanError: `fn` is no function.
            DataError: A result has other rows, or other columns than there are names, told when it is used; the
                message names the party.
        """
        if not callable(fn):
            raise PlanError(f"map: expected a function of a party's array, found {type(fn).__name__}")
        name = f"map({getattr(fn, '__name__', type(fn).__name__)})"
        named = None if columns is None else tuple(columns)
        wide = None if named is None else len(named)
        made = {p: p(rowwise.mapped)(p.name, name, fn, part, wide) for p, part in self.partitions.items()}
        return self._made(made, named)

    def astype(self, dtype: DTypeLike, *, casting: Casting = "same_value") -> Self:
        """Returns the array with every party's part converted to `dtype`.

        Args:
            dtype: The type.
            casting: `"same_value"` refuses to change a number, but for the rounding of a float to a shorter float:
                fractions, NaN and what is out of range do not become integers, nor long integers floats. `"unsafe"`
                converts as NumPy does by default, whatever is lost.

        Raises:
            PlanError: `casting` is neither.
            DataError: A number would be changed, told when the result is used; the message names the party.
        """
        name, allowed = np.dtype(dtype).name, checked_casting(casting)
        made = {p: p(inside.convert)(p.name, part, name, allowed, self.columns) for p, part in self.partitions.items()}
        return self._made(made, self.columns)

    def reshape(self, *shape: Any) -> Self:
        """Returns the rows in another shape, as `x.reshape(-1, 28, 28, 1)`; rows stay rows.

        Args:
            *shape: -1 or the number of rows first, then the shape of a row, in which one number may be -1.

        Raises:
            PlanError: The numbers of a row do not fill it, or rows would be cut or joined.
        """
        rest = row_shape(self.shape, shape)
        return self._made({p: p(rowwise.reshaped)(part, rest) for p, part in self.partitions.items()}, None)

    def transpose(self, *axes: Any) -> Self:
        """Returns the array with its axes in another order, in which axis 0, the rows, stays in front.

        Args:
            *axes: All axes, e.g. `x.transpose(0, 2, 3, 1)`.

        Raises:
            PlanError: The rows do not stay in front, or it is no order of the axes.
        """
        order = order_of_axes(len(self.shape), axes or tuple(reversed(range(len(self.shape)))))
        return self._made({p: p(rowwise.turned)(part, order) for p, part in self.partitions.items()}, None)

    def swapaxes(self, axis1: int, axis2: int) -> Self:
        """Returns the array with two axes exchanged, neither of them the rows; see `transpose`.

        Raises:
            PlanError: One is the rows, or there is no such axis.
        """
        order = list(range(len(self.shape)))
        try:
            order[axis1], order[axis2] = order[axis2], order[axis1]
        except (IndexError, TypeError):
            raise PlanError(f"swapaxes: expected two of {len(order)} axes, found {axis1!r} and {axis2!r}") from None
        return self.transpose(*order)

    def clip(self, low: Any = None, high: Any = None) -> Self:
        """Returns the array with everything below `low` or above `high` set to these, as `np.clip`."""
        clipped: Self = np.clip(self, low, high)  # type: ignore[call-overload] # comes back by __array_function__
        return clipped

    def round(self, decimals: int = 0) -> Self:
        """Returns the array rounded, as `np.round`."""
        rounded: Self = np.round(self, decimals)  # type: ignore[call-overload] # as above
        return rounded

    def fillna(self, value: Any) -> Self:
        """Returns the array with `value`, a number or one for each column, where there is NaN."""
        filled: Self = np.where(np.isnan(self), value, self)  # type: ignore[call-overload] # as above
        return filled

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy asks here whenever one of its elementwise functions meets such an array."""
        name = ufunc.__name__
        if method != "__call__":
            raise PlanError(f"np.{name}.{method}: not over rows that are spread over parties; {_OPENED}")
        if ufunc.signature is not None or ufunc.nout != 1 or len(inputs) > 2:
            raise PlanError(f"np.{name} is not elementwise; say x.map(lambda rows: np.{name}(rows, ...))")
        if options:
            raise PlanError(f"np.{name}: {', '.join(options)}: not with a FedNdarray; convert with x.astype(...) after")
        if len(inputs) == 1:
            return self._unary(ufunc)
        first, second = inputs
        # The left one may be NumPy's own array, which asks here in place of iterating over our rows.
        return (
            first._binary(ufunc, second) if isinstance(first, ArrayWords) else self._binary(ufunc, first, swapped=True)
        )

    def __array_function__(self, fn: Callable[..., Any], _: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """NumPy asks here whenever one of its other functions meets such an array."""
        name = getattr(fn, "__name__", "function")
        if fn in _FACTS:
            return getattr(args[0], _FACTS[fn])
        if fn in _METHODS and args and isinstance(args[0], ArrayWords):
            return getattr(args[0], _METHODS[fn])(*args[1:], **kwargs)
        if fn in _ELEMENTWISE:
            return self._elementwise(fn, args, kwargs)
        if fn in _SIDE_BY_SIDE:
            if fn is np.concatenate and (args[1] if len(args) > 1 else kwargs.get("axis", 0)) in (0, None):
                raise PlanError(
                    "np.concatenate: expected axis=1 or another one; rows, axis 0, are joined by load({...})"
                )
            return self._side_by_side(fn, args, kwargs)
        remedy = _NO_METHODS.get(name, f"where it has a row for each row, say x.map(np.{name})")
        raise PlanError(f"np.{name}: not over rows that are spread over parties; {remedy}")

    def _elementwise(self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Self:
        arrays = _arrays((args, kwargs))
        foreign = [value.shape for value in _found(np.ndarray, (list(args), dict(kwargs)))]
        names: Names | None = reduce(lambda a, b: joined(fn.__name__, a, b), [array.columns for array in arrays])
        for shape in foreign:
            names = stretched(names, shape)
        made = {
            party: party(rowwise.applied)(
                party.name, fn, _parts(arrays, party), foreign, _at(tuple(args), party), _at(dict(kwargs), party)
            )
            for party in arrays[0].partitions
        }
        return self._made(made, names)

    def _side_by_side(self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Self:
        arrays = _arrays((args, kwargs))
        names = [name for array in arrays for name in array.columns or ()]
        named = all(array.columns is not None for array in arrays) and len(set(names)) == len(names)
        made = {
            party: party(rowwise.side_by_side)(
                party.name, fn, _parts(arrays, party), _at(tuple(args), party), _at(dict(kwargs), party)
            )
            for party in arrays[0].partitions
        }
        return self._made(made, tuple(names) if named else None)

    if not TYPE_CHECKING:  # a type checker is to go on finding misspelt names

        def __getattr__(self, name: str) -> Any:
            if name in _NOT_HERE:
                raise AttributeError(f"a FedNdarray has no {name!r}: {_NOT_HERE[name]}")
            if name in (self.__dict__.get("columns") or ()):
                place = self.columns.index(name)
                raise AttributeError(f"a FedNdarray has no {name!r}: columns are taken by position, as x[:, {place}]")
            raise AttributeError(f"a FedNdarray has no {name!r}", name=name, obj=self)


def _found(kind: type[Any], nest: Any) -> list[Any]:
    found: list[Any] = []
    replace(nest, kind, found.append)
    return found


def _arrays(nest: Any) -> list[ArrayWords]:
    """Returns the arrays in the arguments of a function, which have to be at the same parties in the same order.

    Raises:
        DataError: They are not.
    """
    arrays: list[ArrayWords] = _found(ArrayWords, nest)
    first, *others = arrays
    for other in others:
        if list(other.partitions) != list(first.partitions):
            raise DataError(
                f"expected the same parties in the same order, found {_names(first.partitions)} and "
                f"{_names(other.partitions)}"
            )
    return arrays


def _names(parties: Iterable[PYU]) -> list[str]:
    return [party.name for party in parties]


def _parts(arrays: Iterable[ArrayWords], party: PYU) -> list[PYUObject]:
    return [array.partitions[party] for array in arrays]


def _at(nest: Any, party: PYU) -> Any:
    return replace(nest, ArrayWords, lambda array: array.partitions[party])
