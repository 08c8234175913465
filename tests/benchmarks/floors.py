# SPDX-License-Identifier: Apache-2.0
"""The floors: bare Python processes that train one part of the data each, with one thread each.

The free floor never talks. The synchronous floor swaps its vector with the others through shared memory and a barrier
after every step: what any synchronous averaging must at least cost. Imports nothing of fedray, and nor do its processes
but those that are told to train by our own step.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Literal

import numpy as np
from networks import PARAMETERS, batches

Kind = Literal["free", "synchronous"]


def _made(own: bool, framework: str, file: str, part: int, parts: int, samples: int) -> Any:
    """Returns the step of one process: our own, or one by hand."""
    if own:
        from own_steps import Own

        return Own(file, part, parts, samples, framework)
    from bare_steps import Keras, Torch

    if framework == "tensorflow":
        return Keras(file, part, parts, samples)
    return Torch(file, part, parts, samples, compiled=framework == "torch.compile")


def _worker(memory: str, barrier: Barrier, pipe: Connection, part: int, parts: int, how: tuple[Any, ...]) -> None:
    own, framework, file, samples = how
    step = _made(own, framework, file, part, parts, samples)
    shared = SharedMemory(memory)
    vectors: Any = np.ndarray((parts, PARAMETERS), np.float32, buffer=shared.buf)
    vector = step.vector

    def synchronous(picked: Any) -> None:
        nonlocal vector
        vectors[part] = step.train(vector, picked)
        barrier.wait()
        vector = vectors.mean(axis=0)
        barrier.wait()

    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        kind, epoch = order
        run = step.free if kind == "free" else synchronous
        begun, cpu = time.perf_counter(), time.process_time()
        for picked in batches(step.rows, part, epoch):
            run(picked)
        pipe.send((time.perf_counter() - begun, time.process_time() - cpu))
    shared.close()


class Floors:
    """The floor processes, started once; an epoch of either kind on request.

    Args:
        parts: How many processes.
        samples: Images of all of them.
        file: Where the images are.
        framework: Name of the framework, as in `MODELS` of tutorial.py.
        own: Whether they train by our own step, which has no free kind; otherwise by one that is written by hand.
    """

    def __init__(self, parts: int, samples: int, file: Path | str, framework: str, *, own: bool = False) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._memory = SharedMemory(create=True, size=parts * PARAMETERS * 4)
        barrier = spawn.Barrier(parts)
        self._pipes: list[Connection] = []
        self._processes = []
        for part in range(parts):
            ours, theirs = spawn.Pipe()
            arguments = (self._memory.name, barrier, theirs, part, parts, (own, framework, str(file), samples))
            process = spawn.Process(target=_worker, args=arguments, daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        self._answers()

    def epoch(self, kind: Kind, number: int) -> tuple[float, float]:
        """Returns wall seconds of the slowest process and CPU seconds of all, for one epoch."""
        for pipe in self._pipes:
            pipe.send((kind, number))
        times: Sequence[tuple[float, float]] = self._answers()
        return max(wall for wall, _ in times), sum(cpu for _, cpu in times)

    def stop(self) -> None:
        """Ends the processes."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(30)
        self._memory.close()
        self._memory.unlink()

    def _answers(self) -> list[Any]:
        return [pipe.recv() for pipe in self._pipes]
