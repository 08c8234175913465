# SPDX-License-Identifier: Apache-2.0
"""What a party's end of a round consists of: messages that are to be answered, one after the other. Plain records."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

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
