# SPDX-License-Identifier: Apache-2.0
"""One Ray actor per party. The only file that imports Ray; every Ray exception is translated here, by one table."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray
import ray.exceptions

from fedray.errors import FedRayError, PartyError, PartyLost, PartyTimeout, PlanError
from fedray.party.party import LANES, Lane, Party, lane_widths
from fedray.runtime.gather import gather, opened
from fedray.types import PartyConfig, PartyName, Ref

_START_TRIES = 3
_START_SECONDS = 180.0


@dataclass(frozen=True, slots=True, eq=False)
class RayRef:
    """A call under way."""

    party: PartyName
    method: str
    ref: Any

    def __str__(self) -> str:
        return f"{self.method} at {self.party!r}"


class RayCalls:
    """Calls to parties and their answers; the same at the driver and inside a party."""

    def __init__(self) -> None:
        self._handles: dict[tuple[PartyName, Lane], Any] = {}

    def connect(self, actors: Mapping[PartyName, Any]) -> None:
        """Makes the parties known."""
        for party, actor in actors.items():
            for lane in lane_widths(len(actors)):
                self._handles[party, lane] = actor.handle.options(concurrency_group=lane)

    def call(self, party: PartyName, method: str, *args: Any) -> Ref:
        """Calls a method of a party and returns at once.

        Raises:
            PlanError: There is no such party or method.
        """
        if method not in LANES:
            raise PlanError(f"a party has no method {method!r}")
        handle = self._handles.get((party, LANES[method]))
        if handle is None:
            known = ", ".join(repr(name) for name in dict.fromkeys(name for name, _ in self._handles))
            raise PlanError(f"unknown party {party!r}; this session has {known or 'none'}")
        return RayRef(party, method, handle.remote(method, args))

    def wait(self, refs: Sequence[Ref], timeout: float | None, first: bool = False) -> list[Ref]:
        """Returns the calls that are done or failed; moves no data."""
        ours = cast("Sequence[RayRef]", refs)
        unique = list({ref.ref: None for ref in ours})
        count = 1 if first else len(unique)
        done: set[Any] = set()
        if unique:
            done = set(ray.wait(unique, num_returns=count, timeout=timeout, fetch_local=False)[0])
        return [ref for ref in ours if ref.ref in done]

    def get(self, refs: Sequence[Ref], timeout: float | None) -> list[Any]:
        """Returns the results in order.

        Raises:
            PartyLost: A party's process ended before it answered.
            PartyTimeout: `timeout` seconds passed.
            FedRayError: What a call failed with.
        """
        ours = cast("Sequence[RayRef]", refs)
        if len(ours) == 1:
            return [_take(ours[0], timeout)]
        return gather(
            ours,
            timeout,
            lambda pending, seconds: cast("list[RayRef]", self.wait(pending, seconds, first=True)),
            lambda ref: _take(ref, None),
        )


class RayParty:
    """The actor: a `Party` and the transport inside it."""

    def __init__(self, config: PartyConfig) -> None:
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        logging.getLogger("fedray").setLevel(config.log_level)
        self._calls = RayCalls()
        self._party = Party(config, self._calls)

    def connect(self, actors: Mapping[PartyName, Any]) -> None:
        """Learns how to reach every party, itself included."""
        self._calls.connect(actors)

    def handle(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answers one call. The arguments come in a tuple so that Ray leaves references inside them alone."""
        return self._party.handle(method, *args)


class RayTransport(RayCalls):
    """Starts or joins a cluster, and one actor per party."""

    def __init__(self, address: str | None, log_level: str) -> None:
        super().__init__()
        self._address = address
        self._log_level = log_level
        self._actors: dict[PartyName, Any] = {}

    def start(self, parties: Mapping[PartyName, PartyConfig]) -> None:
        """Starts one actor per party.

        Raises:
            PlanError: The cluster cannot be started or reached.
        """
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(address=self._address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        actor_class: Any = ray.remote(concurrency_groups=lane_widths(len(parties)))(RayParty)  # type: ignore[call-overload]
        for name, config in parties.items():
            self._actors[name] = actor_class.options(num_cpus=0, max_restarts=0, max_task_retries=0).remote(config)
        self.connect(self._actors)
        ray.get(
            [actor.connect.options(concurrency_group="command").remote(self._actors) for actor in self._actors.values()]
        )

    def stop(self) -> None:
        """Ends every party and, if it was started here, the cluster. Harmless when nothing runs."""
        self._handles.clear()
        self._actors.clear()
        ray.shutdown()


def _take(ref: RayRef, timeout: float | None) -> Any:
    try:
        answer = ray.get(ref.ref, timeout=timeout)
    except Exception as error:
        raise translated(error, ref) from error
    return opened(answer)


def translated(error: Exception, ref: RayRef) -> FedRayError:
    """Returns our error for one of Ray's."""
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return PartyTimeout(f"no answer in time: {ref}")
    if isinstance(error, ray.exceptions.RayActorError):
        return PartyLost(f"party {ref.party!r} has ended", party=ref.party)
    return PartyError(str(error), party=ref.party, function=ref.method)
