# SPDX-License-Identifier: Apache-2.0
"""ValueClient: a party's part in sums of the user's own values, which leave it under the aggregator's cover only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.errors import DataError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.rounds import summable
from fedray.party.rounds.contributor import Contributor
from fedray.protocol.scheme import Contribution, Manifest, RoundContext
from fedray.types import Round, Value


@dataclass(frozen=True, slots=True)
class SumOrder:
    """One sum.

    Attributes:
        number: Protocol number of its round.
        operation: Unique name of this sum in its session.
        manifest: What its words mean.
    """

    number: Round
    operation: str
    manifest: Manifest


class ValueClient:
    """Holds one value while it is summed.

    Args:
        context: The party this service lives in.
        contributor: Its end of the private sums.
    """

    def __init__(self, context: PartyContext, contributor: Contributor) -> None:
        self._context, self._contributor = context, contributor
        self._arrays: list[NDArray[Any]] | None = None
        self._weight = 1

    def offer(self, value: Value, weight: Any, most: float, unit: float) -> Reply:
        """Takes the value and its weight, and returns the nest and its tensors: names, shapes and dtypes.

        Args:
            value: Nested arrays.
            weight: A number from 0 to `most`, or None for a sum without weights.
            most: Largest weight.
            unit: The weight that counts as 1 in the protocol's integers.

        Raises:
            DataError: The value cannot be summed, or the weight is out of range.
        """
        nest, tensors, arrays = summable.flatten(value)
        self._weight = 1
        if weight is not None:
            number = float(np.asarray(weight))
            if not 0 <= number <= most:
                raise DataError(f"party {self._context.name!r}: its weight is not a number from 0 to {most:g}")
            self._weight = round(number / unit)
            tensors = [replace(tensor, dtype="float64") if tensor.integer else tensor for tensor in tensors]
            arrays = [array.astype(np.float64) for array in arrays]
        self._arrays = arrays
        return Reply(Kind.SHAPE, (nest, tensors))

    def contribute(self, order: SumOrder) -> Reply:
        """Takes part in the sum's round and returns what was opened; None where it was abandoned.

        Raises:
            DataError: No value was offered.
        """
        if self._arrays is None:
            raise DataError(f"party {self._context.name!r} was offered no value to sum")
        arrays, self._arrays = self._arrays, None
        operation = hashlib.sha256(order.operation.encode()).digest()
        context = RoundContext(order.number, operation, b"", order.manifest, "sum")
        answer = self._contributor.exchange(
            "sum", context, Contribution(summable.join(arrays), self._weight, np.empty(0))
        )
        return Reply(Kind.AGGREGATE, answer.values)
