# SPDX-License-Identifier: Apache-2.0
"""LocalCluster: a cluster of our own on this machine. Imports no Ray; it is handed what it needs of it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fedray.errors import PlanError
from fedray.runtime import environment
from fedray.runtime.environment import Environment
from fedray.runtime.keeper import Keeper
from fedray.runtime.nodes.launch import INLINE_BYTES
from fedray.runtime.ray_errors import reason
from fedray.runtime.ray_interior import reread_authentication

_START_TRIES = 3  # on a busy machine the first may fail for no reason that would fail the second
_INNER = "r"  # short: the paths of Ray's sockets, 64 characters below this, may have 107


@dataclass(frozen=True, slots=True)
class RayProcess:
    """This process's Ray, as far as clusters need it.

    Attributes:
        init: Starts or joins a cluster: (address, whether to show what parties print, **settings of its own).
        shutdown: Leaves it, and ends it where it was started here.
        is_initialized: Whether this process is in one.
        nodes: Ray's own records of the cluster's nodes.
        address: Where the head of the cluster that it is in is called.
    """

    init: Callable[..., None]
    shutdown: Callable[[], None]
    is_initialized: Callable[[], bool]
    nodes: Callable[[], list[dict[str, Any]]]
    address: Callable[[], str]


class LocalCluster:
    """A cluster of our own on this machine. Leaves no process, no file and no variable behind.

    Args:
        ray: This process's Ray.
    """

    def __init__(self, ray: RayProcess) -> None:
        self._ray = ray
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
        if self._ray.is_initialized():
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
                self._ray.shutdown()
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
                self._ray.init,
                "local",
                show_output,
                include_dashboard=False,
                resources=dict(resources) or None,
                _temp_dir=os.path.join(self._folder, _INNER),
                _system_config={"max_direct_call_object_size": INLINE_BYTES},
            )
            self._keeper.run(begin)
        finally:  # the cluster has inherited them; this process needs none of them
            self._environment.restore(passing)

    def stop(self) -> None:
        """Ends it. Harmless when nothing runs."""
        if not self._folder:
            return  # never started: a Ray that runs in this process is somebody else's
        self._ray.shutdown()
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
