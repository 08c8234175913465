# SPDX-License-Identifier: Apache-2.0
"""Our own backends' steps without federation, as the bare ones stand in `bare_steps.py`: what of a round is the step's.

Told apart from the rest, since a round's cost is the step's, the protocol's and the waiting.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from networks import share
from numpy.typing import NDArray


class Own:
    """A backend's step on one batch, snapshot and gather included.

    Attributes:
        rows: How many rows there are.
        vector: float32[n], the weights as they were made.
    """

    def __init__(self, file: Path | str, part: int, parts: int, samples: int, framework: str) -> None:
        os.environ["OMP_NUM_THREADS"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1", "2"
        from tutorial import MODELS

        from fedray.backends import make_backend
        from fedray.backends.backend import Batch
        from fedray.tree import Tree

        made = MODELS[framework]
        self._backend: Any = make_backend(made["backend"], made["model"], 1, part, 1)
        x, y = share(file, part, parts, samples, channels=made["backend"] == "torch")
        self._data, self._batch = self._backend.bind(Tree(x, "x"), Tree(y, "y")), Batch
        self.rows, self.vector = len(x), np.array(self._backend.weights())

    def train(self, vector: NDArray[np.float32], picked: NDArray[np.int64]) -> NDArray[np.float32]:
        """Trains on these rows from a vector, and returns the new one."""
        trained: NDArray[np.float32]
        trained, *_ = self._backend.train(vector, self._data, [self._batch(picked)])
        return trained
