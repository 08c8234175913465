# SPDX-License-Identifier: Apache-2.0
"""Egress: the one door through which values leave a party.

Knows what kinds of values there are, asks the party's policy, and has every attempt written down. Does not know how
values travel, nor what they mean.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

import numpy as np

from fedray.errors import OWN_TYPE, EgressDenied
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
    SHARE = "share"  # one additive or Shamir share, and what programs on shares send each other
    AGGREGATE = "aggregate"  # a sum over parties, and what follows from it
    INITIAL = "initial"  # initial weights, made before any data was seen
    METRICS = "metrics"  # a party's own losses and scores
    SHAPE = "shape"  # shapes, dtypes, sizes and names of columns
    ERROR = "error"  # an exception
    LOG = "log"  # what a party's process prints and logs
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
        call: The driver's statement that asked for it, e.g. `"17:train"`.
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
    """Lets everything pass but raw values and what is printed."""

    def check(self, leaving: Leaving) -> None:
        """Returns unless the value is raw or printed.

        Raises:
            EgressDenied: It is.
        """
        if leaving.kind is Kind.LOG:
            raise EgressDenied(f"party {leaving.sender!r} lets nothing leave that it prints (egress='strict')")
        if leaving.kind is Kind.RAW:
            what = " ".join(map(str, filter(None, (_kind(leaving.dtype), leaving.shape))))
            raise EgressDenied(
                f"party {leaving.sender!r} does not let raw values leave (egress='strict'): {what} for "
                f"{leaving.to!r}, asked for by {_call(leaving.call)}; "
                "compute a sum over parties instead. A session with egress='default' lets them leave, unless its "
                "party.toml says strict: that is for its operator to decide, and not for the driver"
            )


def _call(statement: str) -> str:
    """Returns a driver's statement, such as `"17:reveal"`, as a refusal names it; the ledger has it by its number."""
    number, _, name = statement.partition(":")
    return f"{name!r} (statement {number} in the ledger)" if name else repr(statement)


def _kind(dtype: str) -> str:
    """Returns a dtype or type as a refusal names it: a user's own class may have any text for a name."""
    found: object = getattr(builtins, dtype, None) or np.sctypeDict.get(dtype)
    return dtype if isinstance(found, type) or dtype == "NoneType" else OWN_TYPE


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

    def send(self, value: T, *, to: PartyName, kind: Kind, call: str, commitment: str | None = None) -> T:
        """Returns the value if it may leave, and writes it down; a refused attempt is written down too.

        Args:
            value: What is to leave.
            to: Another party's name, or `"driver"`.
            kind: What it is.
            call: The driver's statement that asked for it.
            commitment: Of a contribution, what `fedray.party.door.commitment` makes of it.

        Raises:
            EgressDenied: The policy refuses.
            PlanError: The value cannot be pickled.
        """
        # The policy first. What it refuses is not even pickled: that may run the user's code, take as long as the value
        # is large, and fail with a text that quotes it. Policies see everything but the value, so none can leak it.
        seen = glance(value)
        leaving = Leaving(self._party, to, Kind(kind), seen.shape, seen.dtype, seen.nbytes, call)
        self._check(leaving, commitment)
        # Written before the value is on its way: nothing leaves without an entry.
        nbytes = measure(value, seen).nbytes
        self._write(leaving, nbytes, commitment, allowed=True)
        return value

    def note(self, to: PartyName, kind: Kind, call: str, dtype: str, nbytes: int) -> None:
        """Writes down what leaves by another way, if it may.

        Args:
            to: Another party's name, or `"driver"`.
            kind: What it is.
            call: What asked for it.
            dtype: What to call it in the ledger.
            nbytes: Its size.

        Raises:
            EgressDenied: The policy refuses.
        """
        leaving = Leaving(self._party, to, kind, None, dtype, nbytes, call)
        self._check(leaving)
        self._write(leaving, nbytes, allowed=True)

    @contextmanager
    def passing(
        self, to: Sequence[PartyName], *, kind: Kind, call: str, sent: Callable[[], Mapping[PartyName, int] | None]
    ) -> Iterator[None]:
        """Lets messages leave by another way, such as a library's own links, for as long as the context is open.

        Args:
            to: Whom they go to.
            kind: What they are.
            call: What asked for them.
            sent: Tells afterwards how many bytes went to whom; None where nobody has counted them.

        Raises:
            EgressDenied: The policy refuses.
        """
        # An entry each before anything is sent: a party that dies in the midst has the record, if not the bytes.
        for party in to:
            self.note(party, kind, call, "link that opens", 0)
        try:
            yield
        finally:
            counts = sent()
            found: Mapping[PartyName, int] = dict.fromkeys(to, 0) if counts is None else counts
            dtype = "link of unknown size" if counts is None else "link"
            for party, nbytes in found.items():
                self._write(Leaving(self._party, party, kind, None, dtype, nbytes, call), nbytes, allowed=True)

    def _check(self, leaving: Leaving, commitment: str | None = None) -> None:
        try:
            self._policy.check(leaving)
        except Exception:
            # Refused attempts are entries, too: they tell a party's operator what was tried.
            self._write(leaving, leaving.nbytes or 0, commitment, allowed=False)
            raise

    def _write(self, leaving: Leaving, nbytes: int, commitment: str | None = None, *, allowed: bool) -> None:
        self._journal.append(
            Entry(
                to=leaving.to,
                kind=str(leaving.kind),
                shape=leaving.shape,
                dtype=leaving.dtype,
                nbytes=nbytes,
                call=leaving.call,
                allowed=allowed,
                commitment=commitment,
            )
        )
