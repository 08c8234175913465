# SPDX-License-Identifier: Apache-2.0
"""Egress: the one door through which values leave a party.

Knows what kinds of values there are, asks the party's policy, and has every attempt written down. Does not know how
values travel, nor what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from fedray.errors import EgressDenied
from fedray.party.door.entry import Entry
from fedray.party.door.journal import Journal
from fedray.party.parcel import glance, measure
from fedray.types import PartyName

T = TypeVar("T")

DRIVER = "driver"
"""The addressee of answers to the driver; no party may have this name."""


class Kind(StrEnum):
    """What a leaving value is."""

    HELLO = "hello"  # public keys and signed set-up messages
    MASKED = "masked"  # a contribution under masks, or the answer-independent messages around it
    SHARE = "share"  # one additive or Shamir share
    AGGREGATE = "aggregate"  # a sum over parties, and what follows from it
    INITIAL = "initial"  # initial weights, made before any data was seen
    METRICS = "metrics"  # a party's own losses and scores
    SHAPE = "shape"  # shapes, dtypes, sizes and names of columns
    ERROR = "error"  # an exception
    LEDGER = "ledger"  # the ledger itself
    RAW = "raw"  # any other value: an explicit reveal or move, or a party's own extreme


@dataclass(frozen=True, slots=True)
class Leaving:
    """One value on its way out, as a policy sees it: everything but the value.

    Attributes:
        sender: The party it leaves.
        to: Another party's name, or `"driver"`.
        kind: What it is.
        shape: Shape of an array, else None.
        dtype: Dtype of an array, else the name of its type.
        nbytes: Its size; None where only its pickle could tell, which is made when it may leave.
        call: The driver's statement that asked for it, e.g. `"17:train_segment"`.
    """

    sender: PartyName
    to: PartyName
    kind: Kind
    shape: tuple[int, ...] | None
    dtype: str
    nbytes: int | None
    call: str


class EgressPolicy(Protocol):
    """Decides what may leave. Lives in the party; nobody outside can weaken it."""

    def check(self, leaving: Leaving) -> None:
        """Returns if the value may leave.

        Raises:
            EgressDenied: It may not.
        """


class DefaultPolicy:
    """Lets everything pass; raw values leave only on an explicit request and are in the ledger like all others."""

    def check(self, leaving: Leaving) -> None:
        """Returns, whatever is leaving."""


class StrictPolicy:
    """Lets everything pass but raw values."""

    def check(self, leaving: Leaving) -> None:
        """Returns unless the value is raw.

        Raises:
            EgressDenied: The value is raw.
        """
        if leaving.kind is Kind.RAW:
            raise EgressDenied(
                f"party {leaving.sender!r} does not let raw values leave (egress='strict'): {leaving.dtype} "
                f"{leaving.shape or ''} asked for by {leaving.call!r} for {leaving.to!r}; "
                "compute a sum over parties instead, or start the session with egress='default'"
            )


POLICIES: Mapping[str, type[DefaultPolicy] | type[StrictPolicy]] = {"default": DefaultPolicy, "strict": StrictPolicy}


class Egress:
    """The door of one party.

    Args:
        party: Whose door it is.
        policy: What may leave.
        journal: Where every attempt is written down.
    """

    def __init__(self, party: PartyName, policy: EgressPolicy, journal: Journal) -> None:
        self._party = party
        self._policy = policy
        self._journal = journal

    def send(self, value: T, *, to: PartyName, kind: Kind, call: str) -> T:
        """Returns the value if it may leave, and writes it down; a refused attempt is written down too.

        Args:
            value: What is to leave.
            to: Another party's name, or `"driver"`.
            kind: What it is.
            call: The driver's statement that asked for it.

        Raises:
            EgressDenied: The policy refuses.
            PlanError: The value cannot be pickled.
        """
        # The policy first. What it refuses is not even pickled: that may run the user's code, take as long as the value
        # is large, and fail with a text that quotes it. Policies see everything but the value, so none can leak it.
        seen = glance(value)
        leaving = Leaving(self._party, to, Kind(kind), seen.shape, seen.dtype, seen.nbytes, call)
        try:
            self._policy.check(leaving)
        except Exception:
            # Refused attempts are entries, too: they tell a party's operator what was tried.
            self._write(leaving, seen.nbytes or 0, allowed=False)
            raise
        # Written before the value is on its way: nothing leaves without an entry.
        self._write(leaving, measure(value).nbytes if seen.nbytes is None else seen.nbytes, allowed=True)
        return value

    def _write(self, leaving: Leaving, nbytes: int, *, allowed: bool) -> None:
        self._journal.append(
            Entry(
                to=leaving.to,
                kind=str(leaving.kind),
                shape=leaving.shape,
                dtype=leaving.dtype,
                nbytes=nbytes,
                call=leaving.call,
                allowed=allowed,
            )
        )
