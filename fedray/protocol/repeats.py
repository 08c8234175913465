# SPDX-License-Identifier: Apache-2.0
"""When a party may send its last input once more, under other bounds (SECAGG section 4).

The server may ask for a repeat whenever it likes; what it asks of is in here. It is the very last round of this party,
over the same set of parties, on the same model and settings, with the same input, and only so often. Then all that the
repeats open together is a few sums of one set of inputs, each cut off at other bounds. Over two sets they would differ
by one party's input.

Knows the last input by reference only, which keeps nothing alive. Does not know what any number means.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.manifest import Manifest
from fedray.protocol.member import Member
from fedray.protocol.scales import MOST_REPEATS
from fedray.protocol.scheme import Contribution, RoundContext


@dataclass(frozen=True, slots=True)
class _Sent:
    """The last input that left.

    Attributes:
        context: The round it was for.
        over: Names the set of parties whose inputs that round summed.
        values: Returns the values while they are there.
        rest: Weight and metrics.
        times: How often they were sent again.
    """

    context: RoundContext
    over: bytes
    values: Callable[[], NDArray[Any] | None]
    rest: tuple[int, bytes]
    times: int


class LastInput(Guarded):
    """The last input of one party in one session.

    Args:
        member: The party.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._last: _Sent | None = None

    def is_repeat(self, context: RoundContext, contribution: Contribution, over: bytes) -> bool:
        """Returns whether a round sums the last input once more; False where it says that it is one of its own.

        Args:
            context: The round.
            contribution: The input for it.
            over: Names the set of parties whose inputs it sums.

        Raises:
            ProtocolError: It says that it is a repeat, and is none that is allowed.
        """
        if context.repeats is None:
            return False
        last = self._last
        if last is None or last.context.number != context.repeats:
            self._refuse(context, "that is not the last round that this party sent an input for")
        elif last.over != over:
            self._refuse(context, "over another set of parties: the two sums could differ by one input")
        elif _bound_to(context) != _bound_to(last.context):
            self._refuse(context, "on another model, other settings or other tensors")
        elif last.values() is not contribution.values or last.rest != contribution.rest:
            self._refuse(context, "with another input: freshly computed data belongs in a round of its own")
        elif last.times >= MOST_REPEATS:
            self._refuse(context, f"after {MOST_REPEATS} repeats already")
        return True

    def sent(self, context: RoundContext, contribution: Contribution, over: bytes) -> None:
        """Notes an input that is about to leave; see `is_repeat`, which has approved of it.

        Args:
            context: The round.
            contribution: The input for it.
            over: Names the set of parties whose inputs it sums.
        """
        times = 1 + self._last.times if context.repeats is not None and self._last is not None else 0
        self._last = _Sent(context, over, weakref.ref(contribution.values), contribution.rest, times)

    def _refuse(self, context: RoundContext, why: str) -> None:
        raise self._member.fault(f"round {context.number} is to repeat round {context.repeats} {why}; nothing was sent")


def _bound_to(context: RoundContext) -> tuple[bytes, bytes, str, Manifest]:
    """Returns what a repeat has in common with its round: all but the number and the bounds of tensors."""
    manifest = context.manifest
    bare = tuple(replace(tensor, bound=None) for tensor in manifest.tensors)
    return context.model, context.settings, context.purpose, replace(manifest, tensors=bare)
