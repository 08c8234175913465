# SPDX-License-Identifier: Apache-2.0
"""The two floors: bare Python processes that train one half of the data each, with the same step and one thread each.

The free floor never talks. The synchronous floor swaps its vector with the others through shared memory and a barrier
after every step: what any synchronous averaging must at least cost.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np


def _worker(
    part: int, parts: int, samples: int, framework: str, memory: str, barrier: Barrier, pipe: Connection
) -> None:
    os.environ["OMP_NUM_THREADS"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1", "2"
    from tutorial import BATCH, MODELS, rows

    from fedray.backends import make_backend
    from fedray.backends.backend import Batch
    from fedray.party.training.sampling import Sampling
    from fedray.tree import Tree

    made = MODELS[framework]
    in_torch = made["backend"] == "torch"
    backend: Any = make_backend(made["backend"], made["model"], 1, part, 1)
    x, y = rows(part, parts, samples, channels=in_torch)
    data = backend.bind(Tree(x, "x"), Tree(y, "y"))
    sampling = Sampling(1, -(-len(x) // BATCH), BATCH)
    weights = np.array(backend.weights())
    shared = SharedMemory(memory)
    vectors: Any = np.ndarray((parts, len(weights)), np.float32, buffer=shared.buf)
    step = (_bare_torch_step if in_torch else _bare_step)(backend, data)

    def free(batch: Batch) -> None:
        step(batch.rows)

    def synchronous(batch: Batch) -> None:
        nonlocal weights
        vectors[part], *_ = backend.train(weights, data, [batch])
        barrier.wait()
        weights = vectors.mean(axis=0)
        barrier.wait()

    kinds = {"free": free, "synchronous": synchronous}
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        kind, epoch = order
        begun, cpu = time.perf_counter(), time.process_time()
        for batches in sampling.deal("floor", len(x), epoch):
            for batch in batches:
                kinds[kind](batch)
        pipe.send((time.perf_counter() - begun, time.process_time() - cpu))
    shared.close()


def _bare_step(backend: Any, data: Any) -> Any:
    """Returns Keras's own train step on gathered rows, compiled, with no vector in or out."""
    import tensorflow as tf

    model, tensors = backend._model, data.tensors

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int64)])
    def step(picked: Any) -> None:
        model.train_step(tuple(tf.gather(tensor, picked) for tensor in tensors))

    return step


def _bare_torch_step(backend: Any, data: Any) -> Any:
    """Returns the step of PyTorch's tutorials on gathered rows, with loss and metric kept; no vector in or out."""
    import torch

    torch.set_num_threads(1)
    made = backend._compiled
    forward = torch.compile(made.module) if made.compile else made.module
    (accuracy,), figures = made.metrics, [0.0, 0.0]
    made.module.train()

    def step(picked: Any) -> None:
        rows = torch.from_numpy(picked)
        x, y = data.x.index_select(0, rows), data.y.index_select(0, rows)
        made.optimizer.zero_grad()
        output = forward(x)
        loss = made.loss(output, y)
        loss.backward()
        made.optimizer.step()
        figures[0] += float(loss.detach()) * len(rows)
        figures[1] += float(accuracy(output.detach(), y).sum())

    return step


class Floors:
    """The floor processes, started once; an epoch of either kind on request."""

    def __init__(self, parts: int, samples: int, parameters: int, framework: str = "tensorflow") -> None:
        spawn = multiprocessing.get_context("spawn")
        self._memory = SharedMemory(create=True, size=parts * parameters * 4)
        barrier = spawn.Barrier(parts)
        self._pipes: list[Connection] = []
        self._processes = []
        for part in range(parts):
            ours, theirs = spawn.Pipe()
            arguments = (part, parts, samples, framework, self._memory.name, barrier, theirs)
            process = spawn.Process(target=_worker, args=arguments, daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        self._answers()

    def epoch(self, kind: str, number: int) -> tuple[float, float]:
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
