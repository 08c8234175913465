# SPDX-License-Identifier: Apache-2.0
"""One framework's models behind one flat vector: a backend per file, imported only inside a party."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from fedray.backends.backend import Backend

BACKENDS = {"tensorflow": "fedray.backends.keras"}
"""Name in `FLModel(backend=...)` -> the module that holds `make` and `build_at_driver`."""


def make_backend(name: str, builder: Callable[[], Any], seed: int, noise_seed: int, threads: int) -> Backend:
    """Returns a party's model.

    Args:
        name: A key of `BACKENDS`.
        builder: Returns a compiled model.
        seed: Seed under which every party builds the same model.
        noise_seed: This party's own seed, for what a model draws while it trains.
        threads: Compute threads.

    Raises:
        PlanError: The builder's model cannot be trained here.
    """
    backend: Backend = import_module(BACKENDS[name]).make(builder, seed, noise_seed, threads)
    return backend


def build_at_driver(
    name: str,
    builder: Callable[[], Any],
    weights: Sequence[NDArray[Any]],
    row_shape: tuple[int, ...] | None = None,
) -> Any:
    """Returns a stock model of the framework in this process, with these weights.

    Args:
        name: A key of `BACKENDS`.
        builder: Returns a compiled model.
        weights: In the framework's own order.
        row_shape: Shape of one row, where the model learns it from the data.
    """
    return import_module(BACKENDS[name]).build_at_driver(builder, weights, row_shape)
