# SPDX-License-Identifier: Apache-2.0
"""What the table of frameworks names: a party's Keras model, and the stock model at the driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from fedray.backends.keras import layers, rates
from fedray.backends.keras.model import KerasBackend
from fedray.backends.keras.start import quietly
from fedray.tree import Tree


def make(
    builder: Callable[[], Any],
    seed: int,
    noise_seed: int,
    threads: int,
    local: Sequence[str],
    gpus: float,  # noqa: ARG001 (TensorFlow takes those that Ray lets the process see)
) -> KerasBackend:
    """Returns the backend of one party; see `fedray.backends.make_backend`."""
    return KerasBackend(builder, seed=seed, noise_seed=noise_seed, threads=threads, local=local)


def build_at_driver(
    builder: Callable[[], Any], weights: Sequence[NDArray[Any]], rows: Tree | None = None, rate: float | None = None
) -> Any:
    """Returns a model of the builder with these weights; see `fedray.backends.build_at_driver`."""
    with quietly():
        model = builder()
        if not model.built and rows is not None:
            model(rows.nest)
    model.set_weights(list(weights))
    layers.take_over(model)
    rates.set_rate(model.optimizer, rate)
    return model


def describe_at_driver(builder: Callable[[], Any], rows: Tree | None, say: Callable[[str], Any]) -> None:
    """Says Keras's own summary of the builder's model; see `fedray.backends.describe_at_driver`."""
    with quietly():
        model = builder()
        if not model.built and rows is not None:
            model(rows.nest)
    # One text, since its table is one: some versions hand it over in a piece, some by lines.
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(str(line)))
    say("\n".join(lines).strip())
