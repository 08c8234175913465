# SPDX-License-Identifier: Apache-2.0
"""What both transports share: waiting for several calls, and turning an answer into a value or an error.

`RayRef` is here as well, which needs nothing of Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fedray.errors import PartyTimeout
from fedray.party.failures import to_error
from fedray.party.parcel import Parcel
from fedray.types import Failure, PartyName

R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class RayRef:
    """A call under way."""

    party: PartyName
    method: str
    ref: Any

    def __str__(self) -> str:
        return f"{self.method} at {self.party!r}"


def opened(answer: Any) -> Any:
    """Returns an answer's value.

    Raises:
        FedRayError: The answer is a failure.
    """
    if isinstance(answer, Failure):
        raise to_error(answer)
    return answer.open() if isinstance(answer, Parcel) else answer


def gather(
    refs: Sequence[R],
    timeout: float | None,
    wait: Callable[[Sequence[R], float | None], Sequence[R]],
    take: Callable[[R], Any],
) -> list[Any]:
    """Returns the answers in order; the first failure to arrive is raised at once, whatever else is awaited.

    Args:
        refs: The calls.
        timeout: Seconds in all, or None.
        wait: (pending calls, seconds) -> those that are done, at least one unless the seconds passed.
        take: Returns the answer of a call that is done, or raises.

    Raises:
        PartyTimeout: `timeout` seconds passed.
        FedRayError: What a call failed with.
    """
    # A deadline, not the seconds again for every call: the caller's limit is for all of them together.
    deadline = None if timeout is None else time.monotonic() + timeout
    values: dict[int, Any] = {}
    pending = list(range(len(refs)))
    while pending:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        # By identity: the same call may be listed twice.
        done = {id(ref) for ref in wait([refs[i] for i in pending], left)}
        if not done:
            awaited = ", ".join(sorted({str(refs[i]) for i in pending}))
            raise PartyTimeout(f"no answer within {timeout} seconds: {awaited}")
        for i in [i for i in pending if id(refs[i]) in done]:
            # Taken as they come, so that a failure is raised at once and not after the slowest of the others.
            values[i] = take(refs[i])
        pending = [i for i in pending if i not in values]
    return [values[i] for i in range(len(refs))]
