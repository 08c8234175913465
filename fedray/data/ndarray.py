# SPDX-License-Identifier: Apache-2.0
"""FedNdarray: one array whose rows are held by several parties, and `load`, which makes one.

The driver's side only: it knows names, shapes and dtypes, and sends NumPy functions to the parties. It never sees a
value, but for the statistics that say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedray.data import inside
from fedray.data.casting import Casting
from fedray.data.columns import Names, joined, kept, refuse_names, stretched
from fedray.data.files import Column, Header, ReadOptions
from fedray.data.loading import ArraySource, place
from fedray.data.parts import ArrayPart, array_part, joint_dtype, joint_shape, require_columns
from fedray.data.rows import as_slice, local_ranges, locate, split_key
from fedray.data.statistics import Axis, IntegerSums, Spread
from fedray.data.words import ArrayWords
from fedray.device import PYU, PYUObject, describe
from fedray.errors import DataError, DeviceMismatch, FedRayError, PlanError
from fedray.types import PartyName

__all__ = ["FedNdarray", "load"]


class FedNdarray(ArrayWords):
    """An array of any number of dimensions whose rows (axis 0) are spread over parties.

    Rows are numbered in partition order: the first party's rows come first. All else is as in NumPy:

    * `x + 1`, `x / y`, `x > 0.5`, `-x`, ...: elementwise, computed inside the parties. `y` is a number, an array that
      is the same for every row (such as `x.mean(axis=0)`), or a FedNdarray with the same rows at the same parties.
    * `x[10:20]`, `x[::2]`, `x[-5:]`: rows by their global number. Every party stays, with no row where the slice does
      not touch it. With a negative step the parties' order is reversed too, so `x[::-1]` ends with the first row.
    * `x[7]`: one row, as an object of the party that holds it.
    * `x[:, 0]`, `x[..., None]`: the other axes, inside the parties.
    * `np.log1p(x)`, `np.where(x > 0, x, 0)`, `x.reshape(-1, 28, 28, 1)`, `x.map(fn)`: inside the parties, too.
    * `x.head(n)`: the first rows of each party, for a look or a trial run.

    Operations return at once; an error inside a party appears when the result is used. Shapes and dtypes are asked of
    the parties when they are first needed, and leave them as egress kind `shape`.

    Args:
        partitions: Each party's array, in the order of the rows. Party and holder must agree.
        columns: Names of the columns, the second axis of a table, the same at all parties.

    Attributes:
        partitions: The same; not to be changed.
        columns: The same; None where columns have no names. Slices and elementwise operations keep them while the
            columns stay what they are.

    Raises:
        PlanError: No partition, or something else than parties and their objects.
        DeviceMismatch: An object is held by another party than the one it stands for.

    Example:
        >>> from fedray.data.ndarray import load
        >>> x = load({alice: np.array([1.0, 2.0, 3.0]), bob: np.array([4.0, 5.0])})
        >>> (x * 2)[2:].partition_shape()
        {PYU(name='alice'): (1,), PYU(name='bob'): (2,)}
        >>> float(x.mean())
        3.0
    """

    def __init__(self, partitions: Mapping[PYU, PYUObject], columns: Sequence[str] | None = None) -> None:
        if not isinstance(partitions, Mapping) or not partitions:
            raise PlanError("FedNdarray: expected {PYU('alice'): object of alice, ...} with at least one party")
        for party, part in partitions.items():
            if not isinstance(party, PYU) or not isinstance(part, PYUObject):
                raise PlanError(
                    f"FedNdarray: expected PYU -> PYUObject, found {type(party).__name__} -> {type(part).__name__}; "
                    "load({alice: array}) places arrays at parties"
                )
            # Told here, where the mistake is, and not by the first operation on the array.
            if part.device != party:
                raise DeviceMismatch(
                    f"FedNdarray: {party.name}'s partition is held by {part.device.name}; move it with "
                    f"x.to({party.name})"
                )
        self.partitions = dict(partitions)
        self.columns: Names | None = None if columns is None else tuple(columns)
        self._parts: dict[PartyName, ArrayPart] | None = None

    def parts(self) -> dict[PartyName, ArrayPart]:
        """Returns shape and dtype of each party's array, by party name.

        Raises:
            DataError: A party holds something else than an array with rows, or other columns than there are names.
        """
        # Asked once and kept: partitions never change, and each question is an entry in every party's ledger.
        if self._parts is None:
            parts = {
                party.name: array_part(party.name, shape, dtype)
                for party, (shape, dtype) in zip(self.partitions, describe(self.partitions.values()), strict=True)
            }
            require_columns(parts, self.columns)
            self._parts = parts
        return self._parts

    def partition_shape(self) -> dict[PYU, tuple[int, ...]]:
        """Returns the shape of each party's array."""
        return {party: self.parts()[party.name].shape for party in self.partitions}

    def partition_size(self) -> dict[PYU, int]:
        """Returns the number of elements of each party's array. Rows are `partition_shape()[party][0]`."""
        return {party: self.parts()[party.name].size for party in self.partitions}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together.

        Raises:
            DataError: The parties' rows differ in shape.
        """
        return joint_shape(self.parts())

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that all parties share.

        Raises:
            DataError: The parties differ.
        """
        return joint_dtype(self.parts())

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements over all parties."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        try:
            rows = ", ".join(f"{party}: {part.shape[0]}" for party, part in self.parts().items())
            return f"FedNdarray(shape={self.shape}, dtype={self.dtype}, rows={{{rows}}})"
        except FedRayError as error:  # a repr is asked for while something else is being debugged: it must not raise
            parties = ", ".join(party.name for party in self.partitions)
            reason = str(error).partition("\n")[0]
            return f"FedNdarray(parties=[{parties}], {type(error).__name__}: {reason})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise PlanError(
            "a FedNdarray is held by several parties and cannot be sent to one; pass a party its own part, as in "
            "alice(fn)(x.partitions[alice])"
        )

    def __getitem__(self, key: Any) -> FedNdarray | PYUObject:
        refuse_names(key, self.columns)
        rows, rest = split_key(key)
        # The common `x[..., None]`: it needs no sizes, so nobody has to be asked or waited for.
        if rows == slice(None):
            return self._each(inside.take, rows, rest, columns=kept(self.columns, rest))
        sizes = [part.shape[0] for part in self.parts().values()]
        if isinstance(rows, int):
            position, row = locate(sizes, rows)
            party, part = list(self.partitions.items())[position]
            found: PYUObject = party(inside.take)(party.name, part, row, rest)
            return found
        ranges = local_ranges(sizes, rows)
        taken = [
            (party, party(inside.take)(party.name, part, as_slice(own), rest))
            for (party, part), own in zip(self.partitions.items(), ranges, strict=True)
        ]
        # Downwards, the last party's rows come first, and rows are numbered in the order of partitions.
        ordered = reversed(taken) if (rows.step or 1) < 0 else taken
        return FedNdarray(dict(ordered), kept(self.columns, rest))

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise DeviceMismatch(
            "a FedNdarray is held by its parties and has no array here; x.mean(axis=0) opens a sum over parties, and "
            "sf.reveal(x) brings each party's rows here, as kind 'raw'"
        )

    def mean(self, axis: Axis = None, *, aggregator: IntegerSums | None = None) -> Any:
        """Returns the mean over rows (and other axes) as float64, opened by a sum over parties.

        The driver, the server and the parties that hold rows learn it. No party's own mean can be seen by any of the
        others, with the limits that the aggregator states. Each party sums in float64; these sums are added exactly,
        whatever their magnitude, and rounded once.

        Where a party is missing from the sum, since its process has ended or it is late, this is the mean of the rows
        that are there: each sum carries marks of who is in it, and the `fedray` logger warns whose rows are not. It is
        the same for `sum` and `std`. Ask again for the mean of all, when all answer; note that the two results differ
        by the party that was missing.

        Args:
            axis: `None` for all axes, or axes with the rows, axis 0, among them.
            aggregator: What opens the sum, e.g. a `SecureAggregator`; by default one whose server is a party that
                holds no rows, where there is one.

        Raises:
            DataError: The rows are all at one party, whose mean this would be, or only that one's are there; or there
                are none. A party's sum is beyond 2^160 (1e48), or all its numbers are below 2^-128 (3e-39).
            PlanError: The rows are not among the axes.
        """
        return self._spread(axis).mean(aggregator)[()]

    def sum(self, axis: Axis = None, *, aggregator: IntegerSums | None = None) -> Any:
        """Returns the sum over rows, opened as in `mean`: int64 and exact for integers and booleans, else float64.

        Raises:
            DataError: As `mean`.
            PlanError: As `mean`.
        """
        return self._spread(axis).sum(aggregator)[()]

    def std(self, axis: Axis = None, ddof: int = 0, *, aggregator: IntegerSums | None = None) -> Any:
        """Returns the standard deviation over rows; sum and sum of squares are opened, in one round.

        So both are of the same parties. Digits are not lost where the deviation is small beside the mean. Where all
        numbers are very small, below 5e-20, they would be, and that is an error.

        Args:
            axis: As in `mean`.
            ddof: The divisor is the number of elements less this.
            aggregator: As in `mean`.

        Raises:
            DataError: As `mean`; or there are no more than `ddof` elements.
            PlanError: As `mean`.
        """
        return self._spread(axis).std(aggregator, ddof)[()]

    def var(self, axis: Axis = None, ddof: int = 0, *, aggregator: IntegerSums | None = None) -> Any:
        """Returns the variance over rows, the square of `std`; see `std` for arguments and errors."""
        return self._spread(axis).var(aggregator, ddof)[()]

    def quantile(self, q: float, axis: Axis = None, *, aggregator: IntegerSums | None = None) -> Any:
        """Returns the smallest element that at least the part `q` of all is not above, from sums of counts.

        It is `np.quantile(..., method="inverted_cdf")` of all rows. At most 40 sums tell how many elements of all
        parties are up to a number, halving what is left: those of up to 32 bits are found exactly, longer ones to 2^-28
        of themselves. It is some party's element, and nobody learns whose; with many `q` one learns all elements.

        Args:
            q: From 0 to 1; 0.5 is the median.
            axis: As in `mean`.
            aggregator: As in `mean`.

        Raises:
            DataError: As `mean`; or another party was missing from one of the counts than from the first.
            PlanError: As `mean`; or `q` is not from 0 to 1.
        """
        return self._spread(axis).quantile("quantile", q, aggregator)[()]

    def min(self, axis: Axis = None, *, approx: bool = False, aggregator: IntegerSums | None = None) -> Any:
        """Returns the minimum over rows.

        Each party's own minimum, a value of one of its rows, leaves it for the driver as kind `raw`.

        Args:
            axis: As in `mean`.
            approx: Whether to find it as `quantile(0)`, where no party's own value leaves it.
            aggregator: As in `mean`, for `approx`.

        Raises:
            DataError: A party holds a single row, or there are none; as `quantile`, for `approx`.
            PlanError: The rows are not among the axes.
            EgressDenied: A party lets no value of its own leave, as under `egress="strict"`, without `approx`.
        """
        return self._extreme("min", axis, aggregator, approx=approx)

    def max(self, axis: Axis = None, *, approx: bool = False, aggregator: IntegerSums | None = None) -> Any:
        """Returns the maximum over rows, as `min` does the minimum; `approx` finds it as `quantile(1)`.

        Args:
            axis: As in `mean`.
            approx: As in `min`.
            aggregator: As in `min`.

        Raises:
            DataError: As `min`.
            PlanError: As `min`.
            EgressDenied: As `min`.
        """
        return self._extreme("max", axis, aggregator, approx=approx)

    def _extreme(self, name: Literal["min", "max"], axis: Axis, aggregator: IntegerSums | None, *, approx: bool) -> Any:
        spread = self._spread(axis)
        if approx:
            return spread.quantile(name, 0.0 if name == "min" else 1.0, aggregator)[()]
        if aggregator is not None:
            raise PlanError(f"{name}: an aggregator opens sums; say approx=True to find it by them")
        return spread.extreme(name)[()]

    def _spread(self, axis: Axis) -> Spread:
        return Spread(self.partitions, self.parts(), axis)

    def _each(self, fn: Callable[..., Any], *args: Any, columns: Names | None) -> FedNdarray:
        made = {party: party(fn)(party.name, part, *args) for party, part in self.partitions.items()}
        return FedNdarray(made, columns)

    def _made(self, parts: Mapping[PYU, PYUObject], columns: Names | None) -> FedNdarray:
        return FedNdarray(parts, columns)

    def _unary(self, ufunc: np.ufunc) -> FedNdarray:
        made = {party: party(inside.transform)(party.name, ufunc, part) for party, part in self.partitions.items()}
        return FedNdarray(made, self.columns)

    def _binary(self, ufunc: np.ufunc, other: object, swapped: bool = False) -> FedNdarray:
        if isinstance(other, FedNdarray):
            # The same order as well: rows are numbered by it, so another order means other rows.
            if list(other.partitions) != list(self.partitions):
                raise DataError(
                    f"{ufunc.__name__}: expected the same parties in the same order, found "
                    f"{[party.name for party in self.partitions]} and {[party.name for party in other.partitions]}"
                )
        # A list or a text might mean anything; Python then asks the other operand, and at last raises TypeError.
        elif not isinstance(other, bool | int | float | np.generic | np.ndarray):
            return NotImplemented  # type: ignore[no-any-return] # Python's protocol, typed as Any
        rowwise = isinstance(other, FedNdarray)
        if isinstance(other, FedNdarray):
            columns = joined(ufunc.__name__, self.columns, other.columns)
        else:
            columns = stretched(self.columns, np.shape(other))
        return FedNdarray(
            {
                party: party(inside.combine)(
                    party.name,
                    ufunc,
                    part,
                    other.partitions[party] if isinstance(other, FedNdarray) else other,
                    rowwise=rowwise,
                    swapped=swapped,
                )
                for party, part in self.partitions.items()
            },
            columns,
        )


def load(
    sources: Mapping[PYU, ArraySource],
    *,
    key: str | None = None,
    columns: Column | Sequence[Column] | None = None,
    header: Header = "auto",
    delimiter: str = ",",
    dtype: DTypeLike | None = None,
    casting: Casting = "same_value",
) -> FedNdarray:
    """Returns one array with the rows that each party contributes.

    Each source is one of

    * a path to a `.npy`, `.npz` or `.csv` file, opened by the party where it runs: no party needs another's path;
    * a function without arguments, called inside the party, which returns an array or a data frame;
    * an object that the party holds already;
    * an array at the driver, which is sent to the party.

    The parties' rows must agree in shape and dtype. Parties and their order are those of `sources`.

    Columns of CSV files with a header, and of data frames, have names. The same names in another order are put in the
    order of the first party's, and the `fedray` logger says so; other names are refused. The names become
    `FedNdarray.columns`: they leave the parties with shape and dtype, as egress kind `shape`.

    Args:
        sources: What each party contributes.
        key: Name of the array in `.npz` files; not needed where a file holds one.
        columns: Columns by name (CSV files and data frames) or position, in the order wanted; those by position are
            joined whatever their names. One alone gives a one-dimensional array.
        header: Whether CSV files begin with column names; `"auto"` takes a first line without numbers for one.
        delimiter: What separates the fields of CSV files.
        dtype: Type to convert to; by default the source's own, and float64 for CSV.
        casting: What the conversion may do, as in `FedNdarray.astype`.

    Raises:
        PlanError: An option or a key of `sources` is of the wrong kind.
        DataError: A party's file is missing or unreadable, its array empty, no array of numbers, or unlike the other
            parties' in shape or dtype, or `dtype` would change a number; the message names the party.
        DeviceMismatch: An object is held by another party.

    Example:
        >>> from fedray.data.ndarray import load
        >>> load({alice: lambda: np.zeros((2, 3)), bob: np.ones((4, 3))})
        FedNdarray(shape=(6, 3), dtype=float64, rows={alice: 2, bob: 4})
    """
    options = ReadOptions(key, columns, header, delimiter, None if dtype is None else np.dtype(dtype).name, casting)
    if not isinstance(sources, Mapping) or not sources or not all(isinstance(party, PYU) for party in sources):
        raise PlanError("load: expected {PYU('alice'): path, array or object, ...} with at least one party")
    arrays, parts, names = place(sources, options)
    loaded = FedNdarray(arrays, names)
    loaded._parts = parts
    return loaded
