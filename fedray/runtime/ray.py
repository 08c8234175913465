# SPDX-License-Identifier: Apache-2.0
"""One Ray actor per party. The only file that imports Ray; every Ray exception is translated before it leaves here."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from fedray.errors import PlanError
from fedray.party.house.process import settle
from fedray.party.logs import SHOWN, write_logs
from fedray.party.party import LANES, Lane, Party, lane_widths
from fedray.party.printing import Output
from fedray.runtime import environment, placement
from fedray.runtime.environment import LOOPBACK, Environment
from fedray.runtime.gather import RayRef, gather, opened
from fedray.runtime.joined_cluster import JoinedCluster
from fedray.runtime.lined import LinedCalls, Whereabouts
from fedray.runtime.local_cluster import LocalCluster, RayProcess
from fedray.runtime.memory import MemoryWatch
from fedray.runtime.obstacles import check_no_fork, note_begun
from fedray.runtime.own_nodes import Node, own_nodes
from fedray.runtime.ray_errors import node_gone, reason, translate
from fedray.runtime.ray_interior import left_alone, let_forks_end, say_nothing_of_losses, show_lines
from fedray.runtime.settings import Reach
from fedray.runtime.shown import follow
from fedray.runtime.signals import guard, held, unguard
from fedray.types import Failure, PartyConfig, PartyName, Ref

# Ray reads its variables when it is imported, and never again. They are set for that moment only.
_importing = Environment()
_importing.set(environment.importing())
_importing.keep("RAY_CLIENT_MODE")
logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)  # in a notebook it asks for widgets; nothing here
with warnings.catch_warnings():  # shows any, nor does the progress bar for which its import warns
    warnings.simplefilter("ignore")
    import ray  # it reads its variables once
    import ray.exceptions
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_importing.restore()
_untyped: Any = ray  # where Ray's own annotations stop

_START_TRIES = 3  # on a busy machine the first may fail for no reason that would fail the second
_START_SECONDS = 60.0  # for a party's process to answer; ten times what it takes on an idle machine


class RayCalls:
    """Calls to parties and their answers; the same at the driver and inside a party."""

    def __init__(self) -> None:
        self._handles: dict[tuple[PartyName, Lane], Any] = {}
        self._short_of_memory: Callable[[], int] = int  # see `MemoryWatch.since`; known on a cluster of our own only

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
            return [self._take(ours[0], timeout)]
        return gather(
            ours,
            timeout,
            lambda pending, seconds: cast("list[RayRef]", self.wait(pending, seconds, first=True)),
            lambda ref: self._take(ref, None),
        )

    def _take(self, ref: RayRef, timeout: float | None) -> Any:
        try:
            answer = ray.get(ref.ref, timeout=timeout)
        except Exception as error:  # what Ray says at length is in the message, in short
            raise translate(error, ref.party, ref.method, self._short_of_memory()) from None
        return opened(answer)


class RayParty:
    """The actor: a `Party` and the calls inside it.

    Args:
        config: What the party is told.
        several: Whether the cluster may have several nodes.
    """

    def __init__(self, config: PartyConfig, several: bool) -> None:
        # First of all: NumPy and TensorFlow read these when they are loaded, and the user's code may load them in any
        # call.
        settled = settle(config)
        os.environ.update(environment.computing(settled.config.threads) | environment.debugging())
        self._calls = RayCalls()
        # Nobody calls these lines before `ready` has told their addresses, so the party that answers there may come
        # second.
        self._lined = LinedCalls(config.name, self._calls, self._delivered, self._failed)
        self._party = Party(settled.config, self._lined, refusal=settled.refusal, handed=self._lined.handed)
        if several:
            self._lined.open_far(self._party.line_keys(), _untyped.util.get_node_ip_address)
        self._output: Output | None = None
        if not settled.printing_stays:
            self._output = Output(self._party.printed, silent=settled.config.egress == "strict")
            self._output.take()
        write_logs(config.log_level)

    def _delivered(self, *message: Any) -> Any:
        return self._party.handle("deliver", *message)

    def _failed(self, call: str, failure: Failure, to: PartyName) -> Failure:
        return self._party.fail(call, failure, to)

    @ray.method(concurrency_group="command")
    def ready(self) -> Whereabouts:
        """Returns where the process runs, once it does."""
        prints = self._output is not None and not self._output.silent
        return self._lined.whereabouts(_untyped.get_runtime_context().get_node_id(), prints=prints)

    @ray.method(concurrency_group="command")
    def connect(self, actors: Mapping[PartyName, Any], places: Mapping[PartyName, Whereabouts]) -> None:
        """Learns how to reach every party, itself included."""
        self._calls.connect(actors)
        self._lined.connect(places)

    # One method per lane. The arguments come in a tuple so that Ray leaves references inside them alone.

    @ray.method(concurrency_group="command")
    def command(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answers a command."""
        answer = self._party.handle(method, *args)
        if self._output is not None:
            self._output.settle()  # before the answer, so that what was printed is on the ledger that is read next
        return answer

    @ray.method(concurrency_group="message")
    def message(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answers a message."""
        return self._lined.delivered(*args) if method == "deliver" else self._party.handle(method, *args)

    @ray.method(concurrency_group="watch")
    def watch(self, method: str, args: tuple[Any, ...]) -> Any:
        """Answers the driver's watch."""
        return self._party.handle(method, *args)


class RayTransport(RayCalls):
    """Starts or joins a cluster, and starts one actor per party.

    Args:
        address: `"local"`, or where the cluster is.
        log_level: At INFO and below, what parties print is shown at the driver.
        reach: Where parties may run, and whether without token and TLS.
    """

    def __init__(self, address: str, log_level: str, reach: Reach) -> None:
        super().__init__()
        self._address, self._reach = address, reach
        self._anywhere = address == "local" or reach.placement == "anywhere"
        self._show_output = log_level in SHOWN
        self._unfollow: Callable[[], None] = lambda: None
        self._cluster: LocalCluster | JoinedCluster | None = None
        self._actors: dict[PartyName, Any] = {}

    def start(self, parties: Mapping[PartyName, PartyConfig]) -> None:
        """Starts one actor per party.

        Raises:
            PlanError: The cluster cannot be started or reached, lacks what a party asks for, or has no node of its own
                for one.
        """
        check_no_fork(ray.is_initialized())
        guard()
        if self._address == "local":
            self._cluster = local_cluster()
            self._short_of_memory = MemoryWatch().since
            # The cluster's workers inherit one number from here; each party then sets its own.
            threads = max(config.threads for config in parties.values())
            self._cluster.start(placement.custom(parties), threads, self._show_output)
        else:
            self._cluster = JoinedCluster(_process, self._address, self._reach.insecure)
            own = [] if self._anywhere else list(parties)
            self._cluster.start(own, self._show_output)
        # Ray itself would wait in silence for an actor that no host can take.
        lacking = placement.shortage(parties, [node["Resources"] for node in _untyped.nodes() if node["Alive"]])
        if lacking is not None:
            raise PlanError(f"resources: {lacking}")
        try:
            places = self._start_parties(parties)
        except PlanError as error:
            raise PlanError(f"{error}{self._cluster.looked_over()}") from error
        # Only now, when every party answers: an actor that did not start was replaced by another, with another handle.
        self.connect(self._actors)
        connecting = {name: actor.connect.remote(self._actors, places) for name, actor in self._actors.items()}
        for name, ref in connecting.items():
            self._take(RayRef(name, "connect", ref), _START_SECONDS)
        if self._show_output:
            machines = {node.id: node.address for node in Node.alive(_untyped.nodes())}
            shown = {(machines.get(at.node, ""), at.process): name for name, at in places.items() if at.prints}
            lines = partial(show_lines, outside=self._address.startswith("ray://"))
            self._unfollow = follow(list(parties), shown, self, lines)

    def _start_parties(self, parties: Mapping[PartyName, PartyConfig]) -> dict[PartyName, Whereabouts]:
        """Starts the actors. Takes several tries, since Ray can forget a process that it starts on a busy host.

        On a cluster the next try takes the next of a party's nodes: Ray may still have a record of one that was started
        again since, on which nothing ever runs.
        """
        starting, places = dict(parties), dict[PartyName, Whereabouts]()
        failed: Exception | None = None
        for left in reversed(range(_START_TRIES)):
            own = self._own_nodes(list(starting))
            turn = _START_TRIES - 1 - left
            for name, config in starting.items():
                nodes = own.get(name)
                self._actors[name] = self._actor(config, nodes[turn % len(nodes)] if nodes else None)
            deadline = time.monotonic() + _START_SECONDS
            ready = {name: self._actors[name].ready.remote() for name in starting}
            found = {name: _placed(name, ref, deadline) for name, ref in ready.items()}
            places |= {name: place for name, place in found.items() if isinstance(place, Whereabouts)}
            failed = next((each for each in found.values() if isinstance(each, Exception)), failed)
            starting = {name: parties[name] for name in starting if name not in places}
            if not starting:
                return places
            if left:
                for name in starting:
                    # Else it could still start, beside the one that takes its place.
                    ray.kill(self._actors[name])
        if failed is not None:
            raise failed
        name, config = next(iter(starting.items()))
        free = placement.listed(_untyped.available_resources())
        raise PlanError(
            f"party {name!r} found no place in the cluster within {_START_TRIES * _START_SECONDS:.0f} s; it asks for "
            f"{placement.listed(config.resources or {})}, free now are {free}"
        )

    def _own_nodes(self, parties: Sequence[PartyName]) -> dict[PartyName, list[Node]]:
        """Returns the nodes that each party may run on, the likeliest first; nothing where it may run anywhere."""
        if self._anywhere:
            return {}
        return own_nodes(parties, Node.alive(_untyped.nodes()), _address(self._address))

    def _actor(self, config: PartyConfig, node: Node | None) -> Any:
        chosen = placement.options(config)
        if isinstance(self._cluster, JoinedCluster) and config.threads != placement.threads_by_default(config):
            chosen["runtime_env"] = {"env_vars": environment.computing(config.threads)}  # costs a second
        if node is not None:
            chosen["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node.id, soft=False)
        widths = lane_widths(len(config.parties))
        # Made for each session: the number of threads depends on the number of parties.
        actor_class: Any = ray.remote(concurrency_groups=widths)(RayParty)  # type: ignore[call-overload]
        # No restart and no second try: a party that came back without its objects, or took part in a round twice,
        # would be worse than one that is lost.
        return actor_class.options(**chosen, max_restarts=0, max_task_retries=0).remote(
            config, isinstance(self._cluster, JoinedCluster)
        )

    def abandon(self) -> None:
        """Ends every party, whatever it does; see `fedray.types.Transport.abandon`."""
        for actor in self._actors.values():
            with contextlib.suppress(Exception):  # it may have ended by itself, or Ray has
                ray.kill(actor, no_restart=True)

    def stop(self) -> None:
        """Ends every party and, if it was started here, the cluster. Harmless when nothing runs."""
        try:
            with held():
                self._unfollow()
                # First, so that a finalizer that runs meanwhile finds no party to call.
                self._handles.clear()
                if isinstance(self._cluster, JoinedCluster):
                    self.abandon()
                self._actors = {}
                cluster, self._cluster = self._cluster, None
                if cluster is not None:
                    cluster.stop()
        finally:
            unguard()


def on_every_node(address: str, insecure: bool, work: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Runs a function on each node of a cluster; returns its results by the nodes' names, an error for one that failed.

    Args:
        address: As in `fedray.init`.
        insecure: As in `fedray.init`.
        work: A function that every node can import.
        *args: Its arguments.

    Raises:
        PlanError: The cluster cannot be reached.
    """
    cluster = JoinedCluster(_process, address, insecure)
    cluster.start([], show_output=False)
    try:
        task: Any = ray.remote(num_cpus=0, max_retries=0)(work)
        refs = {}
        for node in Node.alive(_untyped.nodes()):
            strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
            refs[f"{node.name} ({node.address})"] = task.options(scheduling_strategy=strategy).remote(*args)
        results: dict[str, Any] = {}
        deadline = time.monotonic() + _START_SECONDS
        for name, ref in refs.items():
            try:
                results[name] = ray.get(ref, timeout=max(0.0, deadline - time.monotonic()))
            except Exception as error:  # of whatever kind: it is what is to be shown of this node
                results[name] = PlanError(reason(error))
        return results
    finally:
        cluster.stop()


def local_cluster() -> LocalCluster:
    """Returns a cluster of this process's own, to be started."""
    return LocalCluster(_process)


def _address(given: str) -> str:
    """Returns where a cluster is called, for errors that tell how to start a node of it."""
    return given if ":" in given else _head()


def _placed(party: PartyName, ready: Any, deadline: float) -> Whereabouts | PlanError | None:
    """Returns where a party has started; None if it has not by the deadline, an error if its node has gone.

    Raises:
        PlanError: It cannot start anywhere.
    """
    try:
        place: Whereabouts = ray.get(ready, timeout=max(0.0, deadline - time.monotonic()))
    except ray.exceptions.GetTimeoutError:
        return None
    except Exception as error:
        if node_gone(error):
            return PlanError(f"party {party!r} could not start: its node has gone ({reason(error)})")
        raise PlanError(f"party {party!r} could not start: {str(error).strip()}") from error
    return place


def _init(address: str, show_output: bool, **own_cluster: Any) -> None:
    """Connects to Ray, quietly."""
    note_begun()
    say_nothing_of_losses()
    let_forks_end()
    if address.startswith("ray://"):
        show_lines(lambda *_: None, outside=True)  # until it is known whose they are
    # The variable is set where this machine's node of the cluster is on loopback; Ray has read it before that.
    loopback = address == "local" or os.environ.get(LOOPBACK) == "0"
    with left_alone(on_loopback=loopback, with_lines=show_output):
        ray.init(address=address, log_to_driver=show_output, logging_level=logging.ERROR, **own_cluster)


def _head() -> str:
    """Returns where the head of this process's cluster is called, as far as Ray tells."""
    try:
        return str(_untyped.get_runtime_context().gcs_address)
    except Exception:  # by ray:// it does not, in a different way in each version
        return "HOST:PORT"


_process = RayProcess(_init, ray.shutdown, ray.is_initialized, _untyped.nodes, _head)
