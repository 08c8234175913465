# SPDX-License-Identifier: Apache-2.0
"""The federated algorithms, one file of pure functions on flat vectors each, and the table that names them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from fedray.errors import PlanError
from fedray.strategies import fed_adam, fed_avg_g, fed_avg_u, fed_avg_w, fed_prox
from fedray.strategies.strategy import Hook, State, Strategy

__all__ = ["STRATEGIES", "Hook", "State", "Strategy", "make_strategy"]

STRATEGIES: Mapping[str, Callable[..., Strategy]] = {
    "fed_adam": fed_adam.make,
    "fed_avg_g": fed_avg_g.make,
    "fed_avg_u": fed_avg_u.make,
    "fed_avg_w": fed_avg_w.make,
    "fed_prox": fed_prox.make,
}


def make_strategy(name: str, parameters: Mapping[str, float] | None = None) -> Strategy:
    """Returns the strategy of that name.

    Args:
        name: A key of `STRATEGIES`.
        parameters: Its settings, e.g. `{"mu": 0.1}` for `fed_prox`; what is left out keeps its default.

    Raises:
        PlanError: No such strategy, no such parameter, or a value it cannot work with.

    Example:
        >>> from fedray.strategies import make_strategy
        >>> make_strategy("fed_prox", {"mu": 0.1}).parameters
        {'mu': 0.1}
    """
    if not isinstance(name, str) or name not in STRATEGIES:
        known_names = ", ".join(STRATEGIES)
        raise PlanError(f"strategy: expected one of {known_names}; found {name!r}{_nearest(name, STRATEGIES)}")
    known = inspect.signature(STRATEGIES[name]).parameters
    for parameter in parameters or {}:
        if parameter not in known:
            takes = ", ".join(known) or "no parameters"
            raise PlanError(f"strategy {name} takes {takes}; found {parameter!r}{_nearest(parameter, known)}")
    return STRATEGIES[name](**(parameters or {}))


def _nearest(name: object, known: Mapping[str, object]) -> str:
    close = get_close_matches(str(name), list(known), n=1)
    return f". Did you mean {close[0]!r}?" if close else ""
