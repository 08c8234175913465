# SPDX-License-Identifier: Apache-2.0
"""The few types that every package shares. Knows no Ray, no framework and no protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

PartyName: TypeAlias = str
Round: TypeAlias = int
"""Number of one masked sum within a session; it only grows."""

Vector: TypeAlias = NDArray[np.floating[Any]]
"""One flat array, float32[n] or float64[n]: all parameters of a model, end to end."""

Message: TypeAlias = bytes | NDArray[np.uint8]
"""Bytes of one protocol message. Long ones are uint8[n], which travel between processes without a further copy."""

Key: TypeAlias = str
"""Name of one object in a party's object table; allocated by the driver."""

Value: TypeAlias = Any
"""Whatever a user's function returns. The driver sees one only after an explicit reveal."""


@dataclass(frozen=True, slots=True)
class PartyConfig:
    """What one party is told when its process starts.

    Attributes:
        name: The party's own name.
        parties: Names of all parties of the session.
        seed: The run's seed.
        egress: `"default"` or `"strict"`; strict refuses raw values and the text of errors.
        threads: Compute threads of this party.
        log_level: Level of the `fedray` logger inside the party, e.g. `"WARNING"`.
        resources: What the party asks of the cluster, e.g. `{"CPU": 1, "alice": 1}`.
        keys: Path of the party's key folder on its own machine; empty for keys that are made at its start.
        policy: Plain settings of the party's `Policy` of sums, where the driver states one.
        session: Which session and whose, for another driver that finds the party taken.
    """

    name: PartyName
    parties: tuple[PartyName, ...]
    seed: int
    egress: Literal["default", "strict"] = "default"
    threads: int = 1
    log_level: str = "WARNING"
    resources: Mapping[str, float] | None = None
    keys: str = ""
    policy: Mapping[str, Any] | None = None
    session: str = "a session"


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as it crosses a process border: text only, nothing to unpickle.

    Attributes:
        error: Class name of the fedray error to raise at the driver, e.g. `"PartyError"`.
        message: What to tell the user.
        party: Where it happened.
        function: What was called.
        remote_type: Class name of the original exception.
        traceback: The remote traceback, without lines of code where the party's policy withholds them; empty for
            errors of fedray's own.
        frames: Those of its frames that the user has written.
    """

    error: str
    message: str
    party: PartyName
    function: str = ""
    remote_type: str = ""
    traceback: str = ""
    frames: str = ""


class Ref(Protocol):
    """A call under way. Opaque; only the transport that made it can wait for it."""


class Transport(Protocol):
    """How calls travel between the driver and the parties, and among the parties.

    The same protocol is offered at the driver and inside a party. Calls from one caller to one party's command lane run
    in the order they were made.
    """

    def start(self, parties: Mapping[PartyName, PartyConfig]) -> None:
        """Starts one process (or what stands for it) per party.

        Raises:
            PlanError: The cluster cannot be reached or lacks what a party asks for.
        """

    def call(self, party: PartyName, method: str, *args: Any) -> Ref:
        """Calls a method of `fedray.party.party.Party` and returns at once.

        Args:
            party: Whom to call.
            method: One of `fedray.party.party.LANES`.
            *args: The call's label, then the method's arguments. The party gets copies of them.
        """

    def wait(self, refs: Sequence[Ref], timeout: float | None, first: bool = False) -> list[Ref]:
        """Returns the calls that are done or failed, in the order of `refs`.

        Args:
            refs: The calls.
            timeout: Seconds to wait at most, None for as long as it takes.
            first: Whether to return as soon as one call is done; otherwise all have to be.
        """

    def get(self, refs: Sequence[Ref], timeout: float | None) -> list[Any]:
        """Returns the results in order.

        Raises:
            PartyLost: A party's process ended before it answered.
            PartyTimeout: `timeout` seconds passed.
            FedRayError: What the call itself failed with, rebuilt from its `Failure`.
        """

    def abandon(self) -> None:
        """Ends every party at once, whatever it does, so that whoever waits for one learns it. `stop` is to follow."""

    def stop(self) -> None:
        """Ends every party. Harmless when nothing runs."""
