# SPDX-License-Identifier: Apache-2.0
"""LocalCluster: a cluster of our own on this machine. Imports no Ray; it is handed what it needs of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fedray.errors import PlanError
from fedray.runtime import environment, leftovers
from fedray.runtime.cluster_folder import ClusterFolder, sweep
from fedray.runtime.environment import Environment
from fedray.runtime.keeper import Keeper
from fedray.runtime.nodes.launch import INLINE_BYTES
from fedray.runtime.obstacles import check_path, check_process, lasting
from fedray.runtime.ray_errors import reason
from fedray.runtime.ray_interior import reread_authentication
from fedray.runtime.signals import held

_START_TRIES = 3  # on a busy machine the first may fail for no reason that would fail the second
_INNER = "r"  # short, see `fedray.runtime.obstacles.MOST_PATH`


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
        self._folder: ClusterFolder | None = None
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
        check_process()
        sweep()
        try:
            # A folder of our own, to be removed whole; Ray's usual one would keep this session's logs for good. Ray
            # lets everybody into its own, with its sockets and whatever parties print: so that lies inside one for us
            # alone.
            self._folder = ClusterFolder(self._mark)
            check_path(self._inner())
            self._environment.set(environment.authentication())
            # This process may have imported Ray before, and Ray keeps the token that it read first.
            reread_authentication()
            self._try(partial(self._start_once, resources, threads, show_output))
        except BaseException:
            self.stop()
            raise

    def _try(self, start: Callable[[], None]) -> None:
        for attempt in range(1, _START_TRIES + 1):
            with held("Ray starts"):  # an interrupt comes through between two tries
                try:
                    start()
                    return
                except Exception as error:
                    self._ray.shutdown()
                    self._end_processes()
                    if lasting(error):
                        raise PlanError(
                            f"Ray cannot start on this machine: {reason(error)}. Another try would end alike; mend "
                            "that, or use address='inline' to run without Ray"
                        ) from error
                    if attempt == _START_TRIES:
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
                _temp_dir=self._inner(),
                _system_config={"max_direct_call_object_size": INLINE_BYTES},
            )
            self._keeper.run(begin)
        finally:  # the cluster has inherited them; this process needs none of them
            self._environment.restore(passing)

    def _end_processes(self) -> None:
        if self._folder is not None:
            leftovers.end_processes(self._mark, self._folder.path)

    def _inner(self) -> str:
        return os.path.join(self._folder.path, _INNER) if self._folder is not None else ""

    def looked_over(self) -> str:
        """Returns what is wrong on the way to it: nothing, on one's own machine."""
        return ""

    def stop(self) -> None:
        """Ends it. Harmless when nothing runs."""
        if self._folder is None:
            return  # never started: a Ray that runs in this process is somebody else's
        with held():
            self._ray.shutdown()
            self._end_processes()
            self._keeper.release()
            folder, self._folder = self._folder, None
            folder.remove()
            # Last: while it ends the cluster, this process still needs the token that it started it with.
            self._environment.restore()
            reread_authentication()
