# SPDX-License-Identifier: Apache-2.0
"""Backends: one framework's models behind one flat vector, a folder per framework, and the table that names them.

What the driver has to know of a framework stands in the table, so that it need not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from fedray.backends.backend import Backend, FileKind
from fedray.backends.generators import BUILDING, generators_kept
from fedray.errors import PlanError
from fedray.tree import Tree


@dataclass(frozen=True, slots=True)
class Framework:
    """What is known of a framework without importing it.

    Attributes:
        module: The module that holds `make`, `build_at_driver` and `describe_at_driver`.
        suffixes: How the names of its files may end, by what is in them.
        method: A method that its models have, by which a model is told from the function that builds one.
        extra: The extra that installs it; empty where fedray itself does.
    """

    module: str
    suffixes: Mapping[FileKind, tuple[str, ...]]
    method: str
    extra: str = ""


BACKENDS: Mapping[str, Framework] = {
    "tensorflow": Framework(
        "fedray.backends.keras.entry", {"model": (".keras",), "weights": (".weights.h5",)}, method="get_weights"
    ),
    "numpy": Framework("fedray.backends.numpy.model", {"model": (".npz",), "weights": (".npz",)}, method="predictions"),
    "torch": Framework(
        "fedray.backends.torch.entry",
        {"model": (".pt", ".safetensors"), "weights": (".pt", ".safetensors")},
        method="state_dict",
        extra="torch",
    ),
}
"""Name in `FLModel(backend=...)` -> the framework."""


def framework(name: str) -> Framework:
    """Returns what is known of a framework.

    Args:
        name: A key of `BACKENDS`.

    Raises:
        PlanError: There is none of this name.
    """
    if name not in BACKENDS:
        extras = [f"{known}: pip install 'fedray[{one.extra}]'" for known, one in BACKENDS.items() if one.extra]
        raise PlanError(f"backend: expected one of {', '.join(BACKENDS)} ({'; '.join(extras)}), found {name!r}")
    return BACKENDS[name]


def make_backend(
    name: str,
    builder: Callable[[], Any],
    seed: int,
    noise_seed: int,
    threads: int,
    local: Sequence[str] = (),
    gpus: float = 0.0,
) -> Backend:
    """Returns a party's model.

    Args:
        name: A key of `BACKENDS`.
        builder: Returns a compiled model.
        seed: Seed under which every party builds the same model.
        noise_seed: This party's own seed, for what a model draws while it trains.
        threads: Compute threads.
        local: Patterns for the names of tensors that stay in the party.
        gpus: How many GPUs, or which part of one, the party asks for.

    Raises:
        PlanError: The builder's model cannot be trained here, or a pattern matches nothing.
    """
    backend: Backend = import_module(BACKENDS[name].module).make(builder, seed, noise_seed, threads, tuple(local), gpus)
    return backend


def build_at_driver(
    name: str,
    builder: Callable[[], Any],
    weights: Sequence[NDArray[Any]],
    rows: Tree | None = None,
    rate: float | None = None,
) -> Any:
    """Returns a stock model of the framework in this process, with these weights.

    Args:
        name: A key of `BACKENDS`.
        builder: Returns a compiled model.
        weights: In the framework's own order.
        rows: A row of each input, whatever its numbers, where the model learns its shape from the data.
        rate: The learning rate that its optimizer is set to; None leaves the compiled one.
    """
    return import_module(BACKENDS[name].module).build_at_driver(builder, weights, rows, rate)


def describe_at_driver(name: str, builder: Callable[[], Any], rows: Tree | None, say: Callable[[str], Any]) -> None:
    """Describes the builder's model in this process, as its framework does.

    Args:
        name: A key of `BACKENDS`.
        builder: Returns a compiled model.
        rows: A row of each input, where they are known.
        say: Takes each line.
    """
    with BUILDING, generators_kept():  # whoever asks for a summary draws nothing
        import_module(BACKENDS[name].module).describe_at_driver(builder, rows, say)
