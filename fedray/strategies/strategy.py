# SPDX-License-Identifier: Apache-2.0
"""A strategy: what a party and the server do around one private mean, as pure functions on flat vectors.

A strategy knows no framework, no protocol and no party. State is a mapping of named vectors that is passed in and
returned; whoever holds it can store it, restore it, or throw it away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fedray.types import Vector

State: TypeAlias = Mapping[str, Vector]
"""Named vectors, each as long as the model's flat vector."""

Array: TypeAlias = Any
"""A NumPy array, a TensorFlow tensor or a torch tensor; hooks use arithmetic operators only."""

Hook: TypeAlias = Callable[[Mapping[str, Array], Array, Array], Array]
"""(state, gradient, weights) -> gradient, over the trainable part of the flat vector."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One federated algorithm.

    Attributes:
        name: Its name in `FLModel(strategy=...)`.
        local: Whether a round trains locally or computes one gradient.
        open: Party: (state, global vector) -> state, when a global vector arrives.
        close: Party: (state, global, local) -> (state, payload). With `local="gradient"`, `local` is the gradient.
        apply: Server: (state, global, mean payload) -> (state, new global). With `local="gradient"`, the answer is the
            mean gradient itself and every party applies it.
        hook: Party: changes each gradient before the optimizer sees it, or None.
        parameters: The settings it was made with, e.g. `{"mu": 0.1}`; they are part of what a round is bound to.
    """

    name: str
    local: Literal["train", "gradient"]
    open: Callable[[State, Vector], State]
    close: Callable[[State, Vector, Vector], tuple[State, Vector]]
    apply: Callable[[State, Vector, Vector], tuple[State, Vector]]
    hook: Hook | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
