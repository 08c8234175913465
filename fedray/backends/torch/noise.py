# SPDX-License-Identifier: Apache-2.0
"""Noise: what a PyTorch model draws, from streams of its party's own; the process's generators stay as they were.

PyTorch's layers draw from generators that belong to the whole process, which may be the user's notebook. So each call
into a model puts the party's streams there and takes them away again. Works on the objects it is handed; imports no
framework.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from fedray.backends.generators import BUILDING

T = TypeVar("T")

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def word(seed: int, purpose: str) -> int:
    """Returns a 32-bit seed of its own for one purpose."""
    return int.from_bytes(hashlib.sha256(f"fedray torch {seed} {purpose}".encode()).digest()[:4], "big")


def seeded(torch: Any, seed: int, work: Callable[[], T]) -> T:
    """Runs `work` under the seed, one at a time in this process; all generators stay as they were.

    Args:
        torch: The torch module.
        seed: The seed.
        work: What to run.
    """
    return Noise(torch, torch.device("cpu"), word(seed, "build"), threads=0).run(work)


class Noise:
    """The streams of one party's model: PyTorch's, NumPy's and Python's own.

    Args:
        torch: The torch module.
        device: Where the model is.
        seed: 32 bits.
        threads: Compute threads while the model runs; 0 leaves them.

    Attributes:
        device: Where the model is.
        state: The streams as they are.
    """

    def __init__(self, torch: Any, device: Any, seed: int, threads: int) -> None:
        self._torch, self.device, self._threads = torch, device, threads
        self._gpu = device.type == "cuda"
        if self._gpu:
            os.environ.setdefault(_CUBLAS, ":4096:8")  # without it, PyTorch refuses to be deterministic
        streams = [torch.Generator().manual_seed(seed).get_state()]
        streams += [torch.Generator(device).manual_seed(seed).get_state()] if self._gpu else []
        python = random.Random(seed).getstate()  # noqa: S311 (no secret is drawn from it)
        self.state: tuple[Any, ...] = (streams, python, np.random.RandomState(seed).get_state())

    def run(self, work: Callable[[], T]) -> T:
        """Runs `work` with these streams, which go on from there the next time."""
        with self.drawn():
            return work()

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Lets the block draw from these streams, on so many threads."""
        torch = self._torch
        with BUILDING:
            kept, threads = self._read(), torch.get_num_threads()
            certain = torch.are_deterministic_algorithms_enabled()
            self._write(self.state)
            if self._threads and self._threads != threads:
                torch.set_num_threads(self._threads)
            if self._gpu:
                torch.use_deterministic_algorithms(True)
            try:
                yield
            finally:
                self.state = self._read()
                self._write(kept)
                if torch.get_num_threads() != threads:
                    torch.set_num_threads(threads)
                if self._gpu:
                    torch.use_deterministic_algorithms(certain)

    def _read(self) -> tuple[Any, ...]:
        torch = self._torch
        streams = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(self.device)] if self._gpu else [])
        return streams, random.getstate(), np.random.get_state()

    def _write(self, state: tuple[Any, ...]) -> None:
        streams, python, numpy = state
        self._torch.set_rng_state(streams[0])
        if self._gpu:
            self._torch.cuda.set_rng_state(streams[1], self.device)
        random.setstate(python)
        np.random.set_state(numpy)
