# SPDX-License-Identifier: Apache-2.0
"""Statistics over the rows of all parties, by sums in which no party's own part can be seen.

`mean`, `std` and `sum` open nothing but an average or a sum over parties, through an aggregator. So does `quantile`: of
counts, in as many sums as it takes. `extreme` is no sum: there each party's own smallest or largest value leaves it, as
egress kind `raw`.

A party may be missing from a sum: its process has ended, or it is late. Every sum says itself who is in it, so that a
statistic is that of the rows that are there, and a warning says whose are not.
Knows nothing of how an aggregator hides what it adds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.data import inside
from fedray.data.extremes import Extremes
from fedray.data.moments import elements, too_small, variance
from fedray.data.parts import ArrayPart, joint_shape
from fedray.data.quantiles import Bisection, rank_of
from fedray.data.rows import is_integer, row_axes
from fedray.device import PYU, PYUObject
from fedray.errors import DataError, EgressDenied, PlanError
from fedray.protocol.limbs import gather, limb_count, rounded
from fedray.runtime.session import current
from fedray.types import PartyName

_log = logging.getLogger("fedray")

Axis: TypeAlias = int | tuple[int, ...] | None


class IntegerSums(Protocol):
    """What opens a sum over parties; see `fedray.security.aggregation`. Only integers are summed here."""

    def sum(self, data: Sequence[PYUObject]) -> Any:
        """Returns the elementwise sum of one int64 array per party, exactly."""


SummingMaker: TypeAlias = Callable[[PYU, Sequence[PYU]], IntegerSums]

_default_maker: Callable[[PYU, tuple[PYU, ...]], IntegerSums] | None = None


def use_by_default(maker: SummingMaker) -> None:
    """Sets how a statistic that is given no aggregator gets one.

    Aggregators stand above this package, so the package that gathers both hands the default down.

    Args:
        maker: Takes the server and the parties that hold rows.
    """
    global _default_maker
    _default_maker = lru_cache(maxsize=8)(maker)  # an aggregator keeps services in the parties, so one is used again


class Spread:
    """One array spread over parties, as its statistics see it.

    Args:
        arrays: Each party's array.
        parts: Their shapes and dtypes, by party name in the same order.
        axis: The axes to reduce, the rows among them; `None` for all.

    Raises:
        DataError: The parties' rows differ in shape.
        PlanError: The rows are not among the axes.
    """

    def __init__(self, arrays: Mapping[PYU, PYUObject], parts: Mapping[PartyName, ArrayPart], axis: Axis) -> None:
        self.shape = joint_shape(parts)
        self.axes = row_axes(axis, len(self.shape))
        self.arrays = arrays
        self.rows = {party: parts[party.name].shape[0] for party in arrays}
        self.dtypes = {part.dtype for part in parts.values()}

    @property
    def count(self) -> int:
        """How many elements enter one number of the result."""
        return elements(self.shape, self.axes)

    def mean(self, aggregator: IntegerSums | None) -> NDArray[np.float64]:
        """Returns the mean: the exact sum of the parties' float64 sums, divided by the number of elements in it.

        Raises:
            DataError: There is no element, or rows at one party only.
        """
        chosen = self._chosen("mean", aggregator)
        if not self.count:
            raise DataError(f"mean: expected at least one element, found an array of shape {self.shape}")
        words, count = self._opened("mean", chosen, inside.real_sum)
        return rounded(self._numbers(words), count).reshape(self._reduced)

    def std(self, aggregator: IntegerSums | None, ddof: int) -> NDArray[np.float64]:
        """Returns the standard deviation; see `var`."""
        return np.sqrt(self.var(aggregator, ddof, name="std"))

    def var(self, aggregator: IntegerSums | None, ddof: int, *, name: str = "var") -> NDArray[np.float64]:
        """Returns the variance, from sums that open together and so are of the same parties.

        Args:
            aggregator: What opens the sums.
            ddof: The divisor is the number of elements less this.
            name: What it is called, for errors.

        Raises:
            DataError: There are no more than `ddof` elements, or rows at one party only; or numbers are so small that
                digits would be lost.
            PlanError: `ddof` is no whole number.
        """
        if not is_integer(ddof):
            raise PlanError(f"{name}: expected ddof to be a whole number, found {ddof!r}")
        chosen = self._chosen(name, aggregator)
        self._require_more(name, self.count, ddof)
        words, count = self._opened(name, chosen, inside.square_sums)
        self._require_more(name, count, ddof)
        sums = self._numbers(words)
        if too_small(sums, count):
            raise DataError(
                f"{name}: found numbers of less than 2^-64, about 5e-20, whose squares would lose digits, or count as "
                f"0; compute with a smaller unit, e.g. (x.astype('float64') * 2.0**100).{name}(), and divide after"
            )
        return variance(sums, count, ddof).reshape(self._reduced)

    def sum(self, aggregator: IntegerSums | None) -> NDArray[Any]:
        """Returns the sum: int64 for integers and booleans, the rounded sum of the parties' sums for real numbers.

        Raises:
            DataError: There are rows at one party only, or at none.
        """
        chosen = self._chosen("sum", aggregator)
        # If one party has floats all have to be summed as such: the terms of one sum must have one form.
        if any(np.dtype(dtype).kind == "f" for dtype in self.dtypes):
            words, _ = self._opened("sum", chosen, inside.real_sum)
            return rounded(self._numbers(words)).reshape(self._reduced)
        return self._opened("sum", chosen, inside.integer_sum)[0].reshape(self._reduced)

    def extreme(self, name: Literal["min", "max"]) -> NDArray[Any]:
        """Returns the smallest or largest of the parties' own extremes, each of which leaves its party.

        Raises:
            DataError: There is no element.
            EgressDenied: A party lets no value of its own leave.
        """
        session = current()
        # A party without rows has no smallest value to give.
        holders = [party for party, rows in self.rows.items() if rows]
        if not holders or not self.count:
            raise DataError(f"{name}: expected at least one element, found an array of shape {self.shape}")
        # A service and not `party(np.min)`: it checks that there are rows to hide one.
        services = {party: session.serve(party.name, Extremes) for party in holders}
        label = session.statement(name)
        calls = [
            session.ask(party.name, key, "find", self.arrays[party].slot(), name, self.axes, label=label)
            for party, key in services.items()
        ]
        try:
            found = session.get(calls)
        except EgressDenied as error:
            raise EgressDenied(f"{error}. Without any party's own value: x.{name}(approx=True)") from None
        finally:
            for party, key in services.items():
                session.release(party.name, key)
        reduce = np.minimum.reduce if name == "min" else np.maximum.reduce
        extreme: NDArray[Any] = np.asarray(reduce(found, axis=0))
        return extreme

    def quantile(self, name: str, q: float, aggregator: IntegerSums | None) -> NDArray[Any]:
        """Returns the smallest element that at least the part `q` of all elements is not above.

        It is found from counts over all parties, of which at most `MOST_ROUNDS` are opened, each by a sum of its own.

        Args:
            name: What it is called, for errors.
            q: From 0 to 1.
            aggregator: What opens the counts.

        Raises:
            DataError: There is no element, there are rows at one party only, or another party was missing from a count
                than from the first.
            PlanError: `q` is not from 0 to 1.
        """
        if isinstance(q, bool) or not isinstance(q, int | float | np.floating) or not 0 <= q <= 1:
            raise PlanError(f"{name}: expected q from 0 to 1, found {q!r}")
        chosen = self._chosen(name, aggregator)
        if not self.count:
            raise DataError(f"{name}: expected at least one element, found an array of shape {self.shape}")
        search: Bisection | None = None
        there: list[PYU] = []
        no_numbers = np.zeros(self._reduced, np.int64)
        while search is None or not search.done:
            # The first count tells who is there, and so how many elements there are and which one is wanted.
            asked = Bisection(self.dtypes, self._reduced, 1) if search is None else search
            thresholds = asked.thresholds()
            words, found = self._summed(chosen, partial(inside.counts_up_to, thresholds=thresholds))
            if search is None:
                there = found
                search = Bisection(self.dtypes, self._reduced, rank_of(q, self._told(name, there)))
                no_numbers = words[words.size // 2 :].reshape(self._reduced)
            elif found != there:
                raise DataError(f"{name}: other parties answered than before; ask again when all answer")
            search.narrow(words[: words.size // 2].reshape(self._reduced))
        result = search.found()
        # As NumPy: what is no number has no place in any order.
        return np.where(no_numbers > 0, np.nan, result) if no_numbers.any() else result

    @property
    def _reduced(self) -> tuple[int, ...]:
        """Shape of the result."""
        axes = range(len(self.shape)) if self.axes is None else self.axes
        return tuple(size for axis, size in enumerate(self.shape) if axis not in axes)

    def _numbers(self, words: NDArray[np.int64]) -> list[int]:
        """Returns the numbers that opened limbs stand for, as whole multiples of 2^-160."""
        parties = len(self.arrays)
        return gather(words.reshape(-1, limb_count(parties)), parties)

    def _require_more(self, name: str, count: int, ddof: int) -> None:
        if count <= ddof:
            raise DataError(f"{name}: expected more than ddof={ddof} elements, found {count}")

    def _opened(
        self, name: str, aggregator: IntegerSums, fn: Callable[..., NDArray[Any] | list[int]]
    ) -> tuple[NDArray[np.int64], int]:
        """Opens the sum over parties of the integers that `fn` makes of each party's array.

        Returns:
            int64[n], and how many elements of the parties that are in it enter one number of the result.

        Raises:
            PlanError: The aggregator's sum is none.
            DataError: Rows of one party only are in it.
        """
        words, there = self._summed(aggregator, fn)
        return words, self._told(name, there)

    def _summed(
        self, aggregator: IntegerSums, fn: Callable[..., NDArray[Any] | list[int]]
    ) -> tuple[NDArray[np.int64], list[PYU]]:
        """Opens a sum as `_opened`, and returns with it whose terms are in it."""
        parties = list(self.arrays)
        terms = [
            party(inside.marked)(party.name, place, len(parties), fn, self.arrays[party], self.axes)
            for place, party in enumerate(parties)
        ]
        total = np.asarray(aggregator.sum(terms))
        # An aggregator of the user's own may round, and limbs would then be nonsense.
        if total.dtype != np.int64:
            raise PlanError(f"aggregator: expected exact sums of int64 arrays, found {total.dtype}")
        words, marks = total[: -len(parties)], total[-len(parties) :]
        if not np.isin(marks, (0, 1)).all():
            raise PlanError(
                "aggregator: expected the sum of one array of each party, found one that counts some otherwise"
            )
        return words, [party for party, mark in zip(parties, marks, strict=True) if mark]

    def _told(self, name: str, there: Sequence[PYU]) -> int:
        """Says whose rows are not in a statistic, and returns how many elements enter one number of it.

        Raises:
            DataError: Rows of one party only are.
        """
        missing = [party for party in self.arrays if party not in there]
        rows, all_rows = sum(self.rows[party] for party in there), self.shape[0]
        entering = elements((rows, *self.shape[1:]), self.axes)
        if not missing:
            return entering
        told = f"{', '.join(party.name for party in missing)} missing, {rows} of {all_rows} rows are there"
        if sum(self.rows[party] > 0 for party in there) < 2:
            raise DataError(f"{name}: expected rows of two parties or more, found {told}; ask again when all answer")
        _log.warning("%s: %s, and the result is theirs", name, told)
        return entering

    def _chosen(self, name: str, aggregator: IntegerSums | None) -> IntegerSums:
        """Returns the aggregator to use, after checking that a sum hides anything at all.

        Raises:
            DataError: There are rows at one party only, or at none.
            PlanError: No aggregator is given, and none is the default.
        """
        holders = [party for party, rows in self.rows.items() if rows]
        if len(holders) < 2:
            if not holders:
                raise DataError(f"{name}: expected rows at two parties or more, found no rows at all")
            who = holders[0].name
            raise DataError(
                f"{name}: expected rows at two parties or more, found them at {who} only: a sum of one party is that "
                f"party's value. Compute it there, e.g. {who}(np.{name})(x.partitions[{who}])"
            )
        if aggregator is not None:
            if not callable(getattr(aggregator, "sum", None)):
                raise PlanError(f"{name}: aggregator: expected a SecureAggregator or the like, found {aggregator!r}")
            return aggregator
        if _default_maker is None:
            raise PlanError(f"{name}: no default aggregator is set; pass aggregator=, e.g. SecureAggregator(...)")
        names = current().parties
        # A server without rows knows no term of the sum; one with rows would learn the other's of two.
        outside = [PYU(other) for other in names if other not in {party.name for party in self.arrays}]
        return _default_maker([*outside, *holders][0], tuple(self.arrays))
