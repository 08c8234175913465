# SPDX-License-Identifier: Apache-2.0
"""One Ray actor per party. The only file that imports Ray; every Ray exception is translated before it leaves here."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from fedray.errors import PlanError
from fedray.party.party import LANES, Lane, Party, lane_widths
from fedray.party.printing import Output
from fedray.runtime import environment, placement
from fedray.runtime.environment import Environment
from fedray.runtime.gather import gather, opened
from fedray.runtime.keeper import Keeper
from fedray.runtime.line import LinedCalls, Lines
from fedray.runtime.placement import knock
from fedray.runtime.ray_errors import reason, translate
from fedray.runtime.ray_interior import left_alone, reread_authentication, say_nothing_of_lost_workers
from fedray.types import PartyConfig, PartyName, Ref

# Ray reads its variables when it is imported, and never again. They are set for that moment only.
_importing = Environment()
_importing.set(environment.importing())
_importing.keep("RAY_CLIENT_MODE")
logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)  # in a notebook it asks for widgets; nothing here
with warnings.catch_warnings():  # shows any, nor does the progress bar for which its import warns
    warnings.simplefilter("ignore")
    import ray  # it reads its variables once
    import ray.exceptions

_importing.restore()
_untyped: Any = ray  # where Ray's own annotations stop

_START_TRIES = 3  # on a busy machine the first may fail for no reason that would fail the second
_START_SECONDS = 60.0  # for a party's process to answer; ten times what it takes on an idle machine
_INNER = "r"  # short: the paths of Ray's sockets, 64 characters below this, may have 107
_INLINE_BYTES = 1 << 20  # a model of this size travels in the call itself; by way of the object store it costs ms


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
                self._handles[party, lane] = getattr(actor, lane)

    def call(self, party: PartyName, method: str, *args: Any) -> Ref:
        """Calls a method of a party and returns at once; see `fedray.types.Transport.call`.

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
        """Returns the calls that are done or failed; moves no data. See `fedray.types.Transport.wait`."""
        ours = cast("Sequence[RayRef]", refs)
        # Ray refuses a list that names a call twice.
        unique = list({ref.ref: None for ref in ours})
        count = 1 if first else len(unique)
        done: set[Any] = set()
        if unique:
            # `fetch_local=False`: an answer stays where it is until somebody wants it.
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
        # The common case: no `ray.wait` is needed in front of a single `ray.get`.
        if len(ours) == 1:
            return [_take(ours[0], timeout)]
        return gather(
            ours,
            timeout,
            lambda pending, seconds: cast("list[RayRef]", self.wait(pending, seconds, first=True)),
            lambda ref: _take(ref, None),
        )


def _take(ref: RayRef, timeout: float | None) -> Any:
    try:
        answer = ray.get(ref.ref, timeout=timeout)
    except Exception as error:
        raise translate(error, ref.party, ref.method) from None  # what Ray says at length is in the message, in short
    return opened(answer)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a party runs: its Ray node, and the address of its lines there; empty where it has none."""

    node: str
    address: str


class RayParty:
    """The actor: a `Party` and the calls inside it."""

    def __init__(self, config: PartyConfig) -> None:
        # First of all: NumPy and TensorFlow read these when they are loaded, and the user's code may load them in any
        # call.
        os.environ.update(environment.computing(config.threads) | environment.debugging())
        logging.getLogger("fedray").setLevel(config.log_level)
        self._calls = RayCalls()
        self._lines = Lines.opened(config.name, self._delivered)
        # Nobody calls these lines before `ready` has told their address, so the party that answers there may come
        # second.
        self._party = Party(config, LinedCalls(self._calls, self._lines) if self._lines else self._calls)
        self._output = Output(self._party.printed, silent=config.egress == "strict")
        self._output.take()

    def _delivered(self, *message: Any) -> Any:
        return self._party.handle("deliver", *message)

    @ray.method(concurrency_group="command")
    def ready(self) -> Whereabouts:
        """Returns where the process runs, once it does."""
        return Whereabouts(_untyped.get_runtime_context().get_node_id(), self._lines.address if self._lines else "")

    @ray.method(concurrency_group="command")
    def connect(self, actors: Mapping[PartyName, Any], places: Mapping[PartyName, Whereabouts]) -> None:
        """Learns how to reach every party, itself included."""
        self._calls.connect(actors)
        if self._lines:
            # A line is a local socket, so only parties on the same node are dialled.
            here = places[self._party.name].node
            self._lines.connect({name: place.address for name, place in places.items() if place.node == here})

    # One method per lane. The arguments come in a tuple so that Ray leaves references inside them alone.

    @ray.method(concurrency_group="command")
    def command(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answers a command."""
        answer = self._party.handle(method, *args)
        self._output.settle()  # before the answer, so that what was printed is on the ledger that is read next
        return answer

    @ray.method(concurrency_group="message")
    def message(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answers a message."""
        return self._party.handle(method, *args)

    @ray.method(concurrency_group="watch")
    def watch(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answers the driver's watch."""
        return self._party.handle(method, *args)


class LocalCluster:
    """A cluster of our own on this machine. Leaves no process, no file and no variable behind."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(8)
        self._environment = Environment()
        self._folder = ""
        self._sigterm: Any = None
        self._keeper = Keeper()

    def start(self, resources: Mapping[str, float], threads: int, show_output: bool) -> None:
        """Starts it. Takes several tries, since Ray gives up by itself on a busy machine.

        Args:
            resources: What the machine is to offer besides its CPUs and GPUs, e.g. `{"alice": 1}`.
            threads: Compute threads of a party.
            show_output: Whether what parties print is shown at the driver.

        Raises:
            PlanError: Ray is running in this process already, or does not start.
        """
        # A Ray that the user started has other settings and is not ours to end.
        if ray.is_initialized():
            raise PlanError("Ray is running in this process already; use sf.init(..., address='auto') to run on it")
        # A folder of our own, to be removed whole; Ray's usual one would keep this session's logs for good. Ray lets
        # everybody into its own, with its sockets and whatever parties print: so that lies inside one for us alone.
        self._folder = environment.private_folder()
        self._environment.set(environment.authentication())
        # This process may have imported Ray before, and Ray keeps the token that it read first.
        reread_authentication()
        # Python lets only the main thread ask for signal handlers or set them.
        if threading.current_thread() is threading.main_thread():
            self._sigterm = signal.getsignal(signal.SIGTERM)  # Ray puts its own in place
        for attempt in range(1, _START_TRIES + 1):
            try:
                self._start_once(resources, threads, show_output)
                return
            except Exception as error:
                ray.shutdown()
                environment.end_processes(self._mark)
                if attempt == _START_TRIES:
                    self.stop()
                    raise PlanError(
                        f"Ray did not start on this machine in {attempt} tries ({reason(error)}); "
                        "close what keeps it busy, or use address='inline' to run without Ray"
                    ) from error

    def _start_once(self, resources: Mapping[str, float], threads: int, show_output: bool) -> None:
        passing = environment.services(self._mark) | environment.computing(threads)
        self._environment.set(passing)
        try:
            begin = partial(
                _init,
                "local",
                show_output,
                include_dashboard=False,
                resources=dict(resources) or None,
                _temp_dir=os.path.join(self._folder, _INNER),
                _system_config={"max_direct_call_object_size": _INLINE_BYTES},
            )
            self._keeper.run(begin)
        finally:  # the cluster has inherited them; this process needs none of them
            self._environment.restore(passing)

    def stop(self) -> None:
        """Ends it. Harmless when nothing runs."""
        if not self._folder:
            return  # never started: a Ray that runs in this process is somebody else's
        ray.shutdown()
        environment.end_processes(self._mark)
        self._keeper.release()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = ""
        # Last: while it ends the cluster, this process still needs the token that it started it with.
        self._environment.restore()
        reread_authentication()
        if self._sigterm is not None:
            signal.signal(signal.SIGTERM, self._sigterm)
            self._sigterm = None


class RayTransport(RayCalls):
    """Starts or joins a cluster, and starts one actor per party.

    Args:
        address: `"local"`, or where the cluster is.
        log_level: At INFO and below, what parties print is shown at the driver.
    """

    def __init__(self, address: str, log_level: str) -> None:
        super().__init__()
        self._address = address
        self._show_output = log_level in ("DEBUG", "INFO")
        self._cluster: LocalCluster | None = None
        self._joined = False
        self._actors: dict[PartyName, Any] = {}

    def start(self, parties: Mapping[PartyName, PartyConfig]) -> None:
        """Starts one actor per party.

        Raises:
            PlanError: The cluster cannot be started or reached, or lacks what a party asks for.
        """
        if self._address == "local":
            self._cluster = LocalCluster()
            # The cluster's workers inherit one number from here; each party then sets its own.
            threads = max(config.threads for config in parties.values())
            self._cluster.start(placement.custom(parties), threads, self._show_output)
        elif not (ray.is_initialized() and self._address == "auto"):
            self._join()
        # Ray itself would wait in silence for an actor that no host can take.
        lacking = placement.shortage(parties, [node["Resources"] for node in _untyped.nodes() if node["Alive"]])
        if lacking is not None:
            raise PlanError(f"resources: {lacking}")
        places = self._start_parties(parties)
        # Only now, when every party answers: an actor that did not start was replaced by another, with another handle.
        self.connect(self._actors)
        connecting = {name: actor.connect.remote(self._actors, places) for name, actor in self._actors.items()}
        for name, ref in connecting.items():
            _take(RayRef(name, "connect", ref), _START_SECONDS)

    def _start_parties(self, parties: Mapping[PartyName, PartyConfig]) -> dict[PartyName, Whereabouts]:
        """Starts the actors. Takes several tries, since Ray can forget a process that it starts on a busy host."""
        starting, places = dict(parties), dict[PartyName, Whereabouts]()
        for left in reversed(range(_START_TRIES)):
            self._actors.update({name: self._actor(config) for name, config in starting.items()})
            deadline = time.monotonic() + _START_SECONDS
            ready = {name: self._actors[name].ready.remote() for name in starting}
            found = {name: _placed(name, ref, deadline) for name, ref in ready.items()}
            places |= {name: place for name, place in found.items() if place is not None}
            starting = {name: parties[name] for name, place in found.items() if place is None}
            if not starting:
                return places
            if left:
                for name in starting:
                    # Else it could still start, beside the one that takes its place.
                    ray.kill(self._actors[name])
        name, config = next(iter(starting.items()))
        free = placement.listed(_untyped.available_resources())
        raise PlanError(
            f"party {name!r} found no place in the cluster within {_START_TRIES * _START_SECONDS:.0f} s; it asks for "
            f"{placement.listed(config.resources or {})}, free now are {free}"
        )

    def _actor(self, config: PartyConfig) -> Any:
        chosen = placement.options(config)
        if self._cluster is None and config.threads != placement.threads_by_default(config):
            chosen["runtime_env"] = {"env_vars": environment.computing(config.threads)}  # costs a second
        widths = lane_widths(len(config.parties))
        # Made for each session: the number of threads depends on the number of parties.
        actor_class: Any = ray.remote(concurrency_groups=widths)(RayParty)  # type: ignore[call-overload]
        # No restart and no second try: a party that came back without its objects, or took part in a round twice,
        # would be worse than one that is lost.
        return actor_class.options(**chosen, max_restarts=0, max_task_retries=0).remote(config)

    def _join(self) -> None:
        if ray.is_initialized():
            raise PlanError("Ray is running in this process already; use address='auto' to run on it")
        for left in reversed(range(_START_TRIES)):
            try:
                knock(self._address)
                _init(self._address, self._show_output)
                break
            except (Exception, SystemExit) as error:  # Ray exits where it meets a cluster of another kind
                ray.shutdown()
                if left and "Initialization failure" in str(error):
                    continue  # the process that a head node starts for each Ray Client can die on a busy host
                raise PlanError(
                    f"no Ray cluster can be reached at address={self._address!r} ({reason(error)}); "
                    "start one with 'ray start --head', or use address='local'"
                ) from error
        self._joined = True

    def stop(self) -> None:
        """Ends every party and, if it was started here, the cluster. Harmless when nothing runs."""
        # First, so that a finalizer that runs meanwhile finds no party to call.
        self._handles.clear()
        actors, self._actors = self._actors, {}
        if self._cluster is not None:
            self._cluster.stop()
            return
        if ray.is_initialized():
            for actor in actors.values():
                with contextlib.suppress(Exception):  # it may have ended by itself
                    ray.kill(actor, no_restart=True)
        if self._joined:
            self._joined = False
            ray.shutdown()


def _placed(party: PartyName, ready: Any, deadline: float) -> Whereabouts | None:
    """Returns where a party has started, or None if it has not by the deadline."""
    try:
        place: Whereabouts = ray.get(ready, timeout=max(0.0, deadline - time.monotonic()))
    except ray.exceptions.GetTimeoutError:
        return None
    except Exception as error:
        raise PlanError(f"party {party!r} could not start: {str(error).strip()}") from error
    return place


def _init(address: str, show_output: bool, **own_cluster: Any) -> None:
    """Connects to Ray, quietly."""
    say_nothing_of_lost_workers()
    with left_alone(on_loopback=address == "local"):
        ray.init(address=address, log_to_driver=show_output, logging_level=logging.ERROR, **own_cluster)
