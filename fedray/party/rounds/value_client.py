# SPDX-License-Identifier: Apache-2.0
"""ValueClient: a party's part in sums of the user's own values, which leave it under the aggregator's cover only."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError, EncodingError, ProtocolError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.rounds import summable
from fedray.party.rounds.contributor import Contributor
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.scheme import Contribution, RoundContext
from fedray.types import PartyName, Round, Value

MOST_REFUSED = 3
"""Sums that a party under strict egress refuses for values out of range before it takes part in none. To read a number
of 30 bits takes thirty sums where any answer may be a refusal, and some three thousand with three of them."""

_REFUSED = "sums refused for values out of range"  # in the party's state, which all services of a session share


@dataclass(frozen=True, slots=True)
class SumOrder:
    """One sum.

    Attributes:
        number: Protocol number of its round.
        operation: Unique name of this sum in its session.
        manifest: What its words mean.
        averaged: Whether values are multiplied by their weights first, and the sum divided by that of the weights.
        unit: The weight that counts as 1 in the protocol's integers, where values are averaged in fixed point.
        teller: The party that tells the driver what was opened; of the others a digest is enough.
    """

    number: Round
    operation: str
    manifest: Manifest
    averaged: bool = False
    unit: float = 1.0
    teller: PartyName = ""


@dataclass(frozen=True, slots=True)
class SumReport:
    """What a party tells the driver of a sum.

    Attributes:
        members: Whose values are in it.
        digest: SHA-256 of what was opened, the same at every party.
        opened: Values and totals; None where another party tells them.
    """

    members: tuple[PartyName, ...]
    digest: bytes
    opened: tuple[NDArray[Any], NDArray[np.float64]] | None


class ValueClient:
    """Holds one value while it is summed.

    Floats are summed exactly where they are totals of the order's manifest. Where they are among its tensors, they are
    summed in the session's fixed point. Integers are always tensors.

    Args:
        context: The party this service lives in.
        contributor: Its end of the private sums.
    """

    def __init__(self, context: PartyContext, contributor: Contributor) -> None:
        self._context, self._contributor = context, contributor
        self._arrays: list[NDArray[Any]] | None = None
        self._tensors: list[Tensor] = []
        self._weight = 1.0
        self._opened: tuple[NDArray[Any], NDArray[np.float64]] | None = None

    def offer(self, value: Value, weight: Any, most: float | None) -> Reply:
        """Takes the value and its weight, and returns the nest and its tensors: names, shapes and dtypes.

        Args:
            value: Nested arrays.
            weight: A number of 0 or more, or None for a sum without weights.
            most: Largest weight, or None for any.

        Raises:
            DataError: The value cannot be summed, or the weight is out of range.
        """
        nest, tensors, arrays = summable.flatten(value)
        self._weight = 1.0
        if weight is not None:
            self._weight = self._checked(weight, most)
            tensors = [replace(tensor, dtype="float64") if tensor.integer else tensor for tensor in tensors]
            arrays = [array.astype(np.float64) for array in arrays]
        self._arrays, self._tensors = arrays, tensors
        return Reply(Kind.SHAPE, (nest, tensors))

    def contribute(self, order: SumOrder) -> Reply:
        """Takes part in the sum's round and returns a `SumReport`; None where it was abandoned.

        Raises:
            DataError: No value was offered.
            ProtocolError: All weights are zero.
        """
        if self._arrays is None:
            raise DataError(f"party {self._context.name!r} was offered no value to sum")
        arrays, self._arrays, self._opened = self._arrays, None, None
        operation = hashlib.sha256(order.operation.encode()).digest()
        told = f"averaged {order.averaged}, unit {order.unit!r}".encode()
        context = RoundContext(order.number, operation, told, order.manifest, "sum")
        exact = len(order.manifest.metrics) > 0
        with self._counting_refusals():
            contribution = self._exact(arrays, order) if exact else self._compact(arrays, order)
            answer = self._contributor.exchange("sum", context, contribution)
        found = answer.opened if answer.verdict == "opened" else self._contributor.missed_sum(context, answer)
        if found is None:
            return Reply(Kind.AGGREGATE, None)
        opened = self._contributor.read(found, order.manifest)
        totals = opened.metrics
        if exact and order.averaged:
            totals, weight = totals[:-1], totals[-1]
            if not weight > 0:
                raise ProtocolError("all weights are zero: there is nothing to average")
            totals = totals / weight
        self._opened = opened.values, totals
        digest = hashlib.sha256()
        for array in self._opened:
            digest.update(f"{array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        shown = self._opened if order.teller == self._context.name else None
        return Reply(Kind.AGGREGATE, SumReport(opened.parties, digest.digest(), shown))

    def tell(self) -> Reply:
        """Returns the values and totals of the last sum, where the party that should tell them has not.

        Raises:
            DataError: Nothing was opened.
        """
        if self._opened is None:
            raise DataError(f"party {self._context.name!r} has no opened sum to tell")
        return Reply(Kind.AGGREGATE, self._opened)

    def _checked(self, weight: Any, most: float | None) -> float:
        """Returns a weight that is in range."""
        with self._counting_refusals():
            number = np.asarray(weight)
            found = float(number) if number.ndim == 0 and number.dtype.kind in "biuf" else math.nan
            if not (0 <= found < math.inf and (most is None or found <= most)):
                limits = "of 0 or more" if most is None else f"from 0 to {most:g}"
                raise DataError(f"party {self._context.name!r}: its weight is not a number {limits}")
        return found

    @contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        """Lets numbers of this party's be looked at; under strict egress, a few may be out of range and no more.

        Whoever chooses `bound` or `largest_weight` and sees whether it was kept learns a number bit by bit.
        """
        state = self._context.state
        if self._context.config.egress == "strict" and state.get(_REFUSED, 0) >= MOST_REFUSED:
            raise DataError(
                f"party {self._context.name!r} has refused {MOST_REFUSED} sums for values out of their range and "
                "takes part in no further sum under egress='strict': each refusal says something about a value. "
                "Start the session again with a wider bound= or largest_weight="
            )
        try:
            yield
        except (DataError, EncodingError):
            state[_REFUSED] = state.get(_REFUSED, 0) + 1
            raise

    def _exact(self, arrays: list[NDArray[Any]], order: SumOrder) -> Contribution:
        """Returns integers as they are and floats as totals; of an average all are floats, with the weight behind."""
        reals = {tensor.name: array for tensor, array in zip(self._tensors, arrays, strict=True) if not tensor.integer}
        if order.averaged:
            reals = summable.weighed(reals, self._weight) | {"the weight": np.array(self._weight)}
        summable.refuse_small(reals, f"party {self._context.name!r}")
        totals = summable.join_reals(list(reals.values()))
        whole = [] if order.averaged else [array for array in arrays if array.dtype.kind != "f"]
        return Contribution(summable.join(whole), 1, totals)

    def _compact(self, arrays: list[NDArray[Any]], order: SumOrder) -> Contribution:
        """Returns all values for the session's fixed point."""
        weight = round(self._weight / order.unit) if order.averaged else 1
        return Contribution(summable.join(arrays), weight, np.empty(0))
