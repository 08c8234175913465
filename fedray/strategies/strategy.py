# SPDX-License-Identifier: Apache-2.0
"""A strategy: what comes before and after one private mean, as pure functions on flat vectors.

A strategy knows no framework, no protocol and no party. It has two halves: a party's and, as papers call it, the
server's. Every party runs both, the second one on the mean that all of them know: all come to the same, and nobody has
to believe a server. Each half has a state of its own that is passed in and returned; whoever holds it can store it,
restore it, or throw it away. A state belongs to the model: it goes on when a new protocol session begins, and ends when
other weights are loaded.

All vectors here are float[n], the trainable shared words of a model in its own order and unit. Shared words that no
optimizer changes (moving statistics) are averaged beside them and never stepped: see `fedray.strategies.halves`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from fedray.types import Vector

State: TypeAlias = Mapping[str, Vector | float]
"""Named vectors, float[n] each, and numbers. Never changed in place: a round that is taken back keeps the old one."""

NamedVectors: TypeAlias = Mapping[str, Vector]
"""Name of an uplink or downlink -> its vector, float[n]."""

Array: TypeAlias = Any
"""A NumPy array, a TensorFlow tensor or a torch tensor; hooks use arithmetic operators only."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """One vector that every party sends in a round.

    Attributes:
        name: Its name, e.g. `"update"`.
        weighted: Whether the mean counts each party by its rows; otherwise every party counts once.
    """

    name: str
    weighted: bool = True


class Init(Protocol):
    """Makes the state that a half begins with."""

    def __call__(self, weights: Vector, /) -> State:
        """Returns the state for a model with these weights, float[n]."""


class Begin(Protocol):
    """A party's step before it computes."""

    def __call__(self, state: State, weights: Vector, known: NamedVectors, /) -> State:
        """Returns the state with which the round is computed.

        Args:
            state: The party's.
            weights: float[n], the global vector of the round.
            known: What the server's half said after the last round, by name; zeros before the first.
        """


class Hook(Protocol):
    """A party's change to each gradient, before its optimizer sees it; runs inside the framework's own graph."""

    def __call__(self, state: Mapping[str, Array], gradient: Array, weights: Array, /) -> Array:
        """Returns the gradient to apply.

        Args:
            state: As `Begin` returned it, as tensors of the framework.
            gradient: float[n], of the loss at `weights`.
            weights: float[n], as they are at this step.
        """


class Finish(Protocol):
    """A party's step after it has computed."""

    def __call__(self, state: State, weights: Vector, local: Vector, /) -> tuple[State, NamedVectors]:
        """Returns the state, and a vector for every uplink.

        Args:
            state: As `Begin` returned it.
            weights: float[n], the global vector of the round.
            local: float[n], what local training made of it; with `local="gradient"`, the mean gradient.
        """


class Update(Protocol):
    """The server's step after a sum was opened, which every party takes.

    It uses element-wise + - * / and square roots of IEEE numbers only, which are the same bits on every machine: a long
    vector is stepped in stretches, so what becomes of a word depends on that word's own state, weight and means, and on
    numbers. It keeps nothing of the memory of the means.
    """

    def __call__(self, state: State, weights: Vector, means: NamedVectors, /) -> tuple[State, Vector, NamedVectors]:
        """Returns the state, the new global vector and a vector for every downlink.

        Args:
            state: The server's.
            weights: float[n], the global vector of the round, in the model's dtype; zeros with `local="gradient"`, as
                only the parties have a model then.
            means: Uplink -> float64[n], the opened mean.
        """


def no_state(weights: Vector, /) -> State:  # noqa: ARG001 (one signature for all)
    """Returns an empty state."""
    return {}


def as_it_is(state: State, weights: Vector, known: NamedVectors, /) -> State:  # noqa: ARG001
    """Returns the state as it is: there is nothing to prepare; see `Begin`."""
    return state


@dataclass(frozen=True, slots=True)
class Strategy:
    """One federated algorithm.

    Attributes:
        name: Its name in `FLModel(strategy=...)`.
        parameters: The settings it was made with, e.g. `{"mu": 0.1}`; they are part of what a round is bound to.
        uplink: What a party sends, at least one vector.
        client_finish: Party: from what it computed to what it sends.
        server_update: Server's half: from the opened means to the new global vector. With `local="gradient"` it returns
            the gradient that every party applies with its own optimizer.
        local: Whether a round trains locally or computes one gradient.
        downlink: Names of what everybody knows after a round besides the model.
        client_init: Party: its first state.
        client_begin: Party: its state for a round, when a global vector has arrived.
        client_hook: Party: changes each gradient before the optimizer sees it, or None.
        server_init: Server's half: its first state.
        is_mean: Whether the new global vector is a mean of the parties' own, so that what holds for them and for every
            mean of them, such as having no number below 0, holds for it.
    """

    name: str
    parameters: Mapping[str, float]
    uplink: tuple[Uplink, ...]
    client_finish: Finish
    server_update: Update
    local: Literal["train", "gradient"] = "train"
    downlink: tuple[str, ...] = ()
    client_init: Init = no_state
    client_begin: Begin = as_it_is
    client_hook: Hook | None = None
    server_init: Init = no_state
    is_mean: bool = True
