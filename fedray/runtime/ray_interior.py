# SPDX-License-Identifier: Apache-2.0
"""What has to be changed in Ray's interior, since Ray offers no public way; to be looked at with each new version.

Imports Ray when it is called, in a process that has done so.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fedray.errors import PlanError
from fedray.runtime.environment import Environment

_PRINTING = "ray_print_logs"
_IN_RAYS_FORM = re.compile(r"(?:\x1b\[\d*m)?\([^()]*\bpid=(?P<pid>\d+)(?:, ip=(?P<ip>[^()]*))?\)(?:\x1b\[\d*m)? ")
_STDERR = -2  # the level of such lines
ctypes.pythonapi.PyOS_getsig.restype = ctypes.pythonapi.PyOS_setsig.restype = ctypes.c_void_p
_LOOK_SECONDS, _LOOKED_SECONDS = 0.02, 10.0  # how often for a node that starts, and until that is left to Ray
_LOSSES = re.compile("^A worker died or was killed while executing|^The node with node id: |^Raylet is terminated[.] ")


def reread_authentication() -> None:
    """Makes Ray look at its variables again, in case it was imported before they changed."""
    raylet: Any = importlib.import_module("ray._raylet")
    if hasattr(raylet, "AuthenticationTokenLoader"):  # versions without it know no tokens
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def node_records(address: str) -> list[dict[str, Any]]:
    """Returns Ray's records of a cluster's nodes; this process need not be in it, and is not afterwards.

    Args:
        address: Where its head is, `"host:port"`.

    Raises:
        PlanError: The cluster does not take this process's token.
        ConnectionError: The head does not answer.
    """
    records: list[dict[str, Any]] = _state(address).node_table()
    return records


def system_settings(address: str) -> dict[str, Any]:
    """Returns the settings that a cluster's head was started with, for all its nodes.

    Args:
        address: Where its head is, `"host:port"`.

    Raises:
        PlanError: The cluster does not take this process's token.
        ConnectionError: The head does not answer.
    """
    settings: dict[str, Any] = _state(address).get_system_config()
    return settings


def _state(address: str) -> Any:
    raylet: Any = importlib.import_module("ray._raylet")
    options = _options(address)
    with _kept_quiet() as said:
        if raylet.GlobalStateAccessor(options).connect():
            return _unasked(options)
    # Ray tells only its log why.
    if any("AuthToken" in line or "Unauthenticated" in line for line in said):
        has = "has none" if os.environ.get("RAY_AUTH_MODE", "").lower() != "token" else "has another one, or an old one"
        raise PlanError(
            f"the cluster at {address} asks for its token, and this driver {has}. On a node's machine it is taken from "
            "there; elsewhere set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a copy of the head's token file"
        )
    raise ConnectionError("its head does not answer")


def _options(address: str) -> Any:
    raylet: Any = importlib.import_module("ray._raylet")
    return raylet.GcsClientOptions.create(address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)


def _unasked(options: Any) -> Any:
    """Returns what asks a cluster's head for its records, which connects with the first question."""
    state: Any = importlib.import_module("ray._private.state").GlobalState()
    state._initialize_global_state(options)
    return state


@contextmanager
def _kept_quiet() -> Iterator[list[str]]:
    """Catches, in the block, what Ray's C++ writes to the terminal; the lines are there after it."""
    said: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            said += caught.read().decode(errors="replace").splitlines()


def say_nothing_of_losses() -> None:
    """Keeps Ray from writing to the user's output that a process or a node is lost, where `PartyLost` says so.

    There is a variable for it, which Ray reads when it is imported; this process may have done so before us. A pattern
    of the user's own stays.
    """
    logs: Any = importlib.import_module("ray._private.ray_logging")
    for output in (logs.stdout_deduplicator, logs.stderr_deduplicator):
        if output.skip_re is None:
            output.skip_re = _LOSSES


@functools.cache
def let_forks_end() -> None:
    """Keeps a fork of this process from ending Ray's connections when it ends itself, e.g. by `sys.exit`.

    They are its parent's: the fork would hang there for good, and its parent when it ends its cluster.
    """
    worker: Any = importlib.import_module("ray._private.worker")

    def forget() -> None:
        if worker.is_initialized():  # else it may begin one of its own, which is to end with it
            atexit.unregister(worker.shutdown)

    os.register_at_fork(after_in_child=forget)


@contextmanager
def left_alone(*, on_loopback: bool, with_lines: bool) -> Iterator[None]:
    """Keeps Ray, while it connects in the block, from taking over `breakpoint()`, SIGTERM, the driver's folder, stdout.

    Also from starting services that a cluster of one's own needs for nothing, and any of them in the driver's process
    group. It copies the driver's folder to the parties where the driver was started by `uv run`. A variable says so,
    too, but Ray reads that when it is imported, and this process may have imported it before us.

    Args:
        on_loopback: Whether a cluster that is started listens on this machine only. Elsewhere than on Linux it does by
            itself; here Ray puts the address of the network in the place of any that says so.
        with_lines: Whether the driver wants what parties print, which a service gathers.
    """
    kept = Environment()
    kept.keep("PYTHONBREAKPOINT")
    constants: Any = importlib.import_module("ray._private.ray_constants")
    node: Any = importlib.import_module("ray._private.node").Node
    services: Any = importlib.import_module("ray._private.services")
    utils: Any = importlib.import_module("ray._private.utils")
    wanted: list[tuple[Any, str, Any]] = [
        (constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),
        (utils, "set_sigterm_handler", lambda _handler: None),
        # What Ray would show of the parties and of its own services until `show_lines` takes its place, and after it.
        (importlib.import_module("ray._private.worker"), "print_to_stdstream", lambda *_, **__: None),
        # A kernel that is restarted first ends its process group, and a shell its job's; this process, which then ends
        # its cluster in order, would hang at its own end if the cluster had gone before.
        (services, "ConsolePopen", functools.partial(services.ConsolePopen, process_group=0)),
        # Nobody here asks for more nodes, nor for Ray's pages and jobs. The first one would also make each end a second
        # longer, since it does not heed that it is to end.
        (node, "start_monitor", lambda _self: None),
        (node, "start_api_server", lambda _self, **_: None),
        # Ray waits a second between two looks for the node that it has started, which takes less.
        (services, "get_node", functools.partial(_node_as_it_comes, services.get_node)),
    ]
    wanted += [(constants, "ENABLE_RAY_CLUSTER", False)] if on_loopback else []
    wanted += [] if with_lines else [(node, "start_log_monitor", lambda _self: None)]
    before = [(module, name, getattr(module, name)) for module, name, _ in wanted if hasattr(module, name)]
    for module, name, value in wanted:
        if hasattr(module, name):
            setattr(module, name, value)
    on_sigterm = ctypes.pythonapi.PyOS_getsig(signal.SIGTERM)
    try:
        yield
    finally:
        # Ray's C++ takes SIGTERM, too, to write a stack dump. Past Python's own `signal`, which is for the main thread.
        ctypes.pythonapi.PyOS_setsig(signal.SIGTERM, ctypes.c_void_p(on_sigterm))
        kept.restore()
        for module, name, value in before:
            setattr(module, name, value)


def _node_as_it_comes(get_node: Callable[[str, str], Any], address: str, node: str) -> Any:
    """Returns what Ray's own function does about a node, as soon as it is there.

    Args:
        get_node: That function.
        address: Where the cluster's head is, `"host:port"`.
        node: The node's number.
    """
    until = time.monotonic() + _LOOKED_SECONDS
    state = _unasked(_options(address))
    while all(each["NodeID"] != node for each in state.node_table()) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    return get_node(address, node)


def show_lines(show: Callable[[str, int, list[str], bool], None], *, outside: bool) -> None:
    """Hands what parties print to a function, until this process leaves the cluster, in place of Ray's own printing.

    Ray names the actor's class and the process, not the party, merges lines that are alike, and advertises.

    Args:
        show: Takes the address of the machine, the process, its lines, and whether they were written to stderr. The
            address is empty where Ray leaves it out.
        outside: Whether this process is outside the cluster (`ray://`).
    """
    if outside:
        client: Any = importlib.import_module("ray.util.client.logsclient").LogstreamClient
        client.stdstream = lambda _client, level, msg: _read_back(msg, level == _STDERR, show)
        return
    logs: Any = importlib.import_module("ray._private.ray_logging")
    dispatcher = logs.global_worker_stdstream_dispatcher

    def handle(batch: Mapping[str, Any]) -> None:
        process = str(batch.get("pid"))
        if process.isdigit():  # Ray's own services have a name here
            show(str(batch.get("ip")), int(process), list(batch.get("lines", ())), bool(batch.get("is_err")))

    dispatcher.remove_handler(_PRINTING)
    dispatcher.add_handler(_PRINTING, handle)  # under this name Ray takes it away when the process leaves


def _read_back(text: str, is_error: bool, show: Callable[[str, int, list[str], bool], None]) -> None:
    """Reads lines that a service of the cluster's has put into Ray's own form, as they come outside of it.

    That leaves the address out where it is its own machine's.
    """
    for line in text.split("\n"):
        if (process := _IN_RAYS_FORM.match(line)) is not None:
            show(process["ip"] or "", int(process["pid"]), [line[process.end() :]], is_error)
