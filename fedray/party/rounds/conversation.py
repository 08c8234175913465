# SPDX-License-Identifier: Apache-2.0
"""What a conversation with the server is made of: messages, answers, and errands that go on beside it.

Knows no scheme and no party.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from fedray.errors import ProtocolError
from fedray.party.door.egress import Kind
from fedray.party.records import Answer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Post:
    """A message to the server that is to be answered.

    Attributes:
        call: What it is for, in words, for the ledger.
        message: The message.
        kind: What it is.
        commitment: Where it carries a contribution, the party's commitment to that.
    """

    call: str
    message: Any
    kind: Kind
    commitment: str | None = None


class Errand(Protocol):
    """A conversation that goes on beside the round; a `threading.Thread` is one."""

    def is_alive(self) -> bool:
        """Returns whether it still goes on."""

    def join(self) -> None:
        """Waits until it is over."""


Conversation: TypeAlias = Generator[Post | Errand, Answer | None, T]
"""Yields a message, and is resumed with its answer; or an errand, and is resumed when that is over."""


def answer_of(answer: Answer | None) -> Answer:
    """Returns the answer to a message; only what waits for an errand is resumed with None.

    Raises:
        ProtocolError: There is none.
    """
    if answer is None:
        raise ProtocolError("the server answered a message with nothing")
    return answer
