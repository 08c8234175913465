# SPDX-License-Identifier: Apache-2.0
"""What the driver keeps of a run, as plain values: its history, and what callbacks remember. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from fedray.errors import DataError
from fedray.ml.nn.checkpoints.position import Position
from fedray.ml.nn.history import Dropout, FaultRecord, History, Reset
from fedray.party.kept.nest import taken_apart
from fedray.types import PartyName

REMEMBERED: Mapping[str, Sequence[str]] = {
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    "ReduceLROnPlateau": ("wait", "cooldown_counter", "best"),
    "ModelCheckpoint": ("best", "epochs_since_last_save", "_batches_seen_since_last_saving"),
}
"""Stock callback -> what of it decides what it does next. Others are asked, where they have `state_dict`."""


def history_state(history: History) -> dict[str, Any]:
    """Returns a history as a plain value."""
    return {
        "params": history.params,
        "epoch": history.epoch,
        "global": history.global_history,
        "local": history.local_history,
        "dropouts": [astuple(one) for one in history.dropouts],
        "resets": [astuple(one) for one in history.resets],
        "faults": [astuple(one) for one in history.faults],
        "notices": history.notices,
        "known": history._known,
    }


def set_history(history: History, state: Mapping[str, Any]) -> None:
    """Makes a history what `history_state` was given; its lists stay the same objects.

    Args:
        history: One that has recorded nothing yet.
        state: What `history_state` returned.
    """
    history.params, history.epoch = state["params"], state["epoch"]
    history.global_history, history.local_history = state["global"], state["local"]
    history.dropouts[:] = [Dropout(*one) for one in state["dropouts"]]
    history.resets[:] = [Reset(*one) for one in state["resets"]]
    history.faults[:] = [FaultRecord(*one) for one in state["faults"]]
    history.notices[:] = state["notices"]
    history._known = state["known"]


def record_of(
    number: int, time: str, position: Position, there: Sequence[PartyName], history: History
) -> dict[str, Any]:
    """Returns what people want to know of a checkpoint.

    Args:
        number: Its number.
        time: When it was made.
        position: Where the run is.
        there: Who takes part.
        history: As it is.
    """
    last = {name: values[-1] for name, values in history.global_history.items() if values}
    return {
        "number": number,
        "time": time,
        "epoch": position.epoch,
        "segments": position.segments,
        "parties": list(there),
        "metrics": {name: np.asarray(value).tolist() for name, value in last.items() if np.all(np.isfinite(value))},
    }


def callback_states(callbacks: Sequence[Any]) -> list[tuple[str, Any]]:
    """Returns what callbacks remember: the kind of each, and its state, or None where it offers none.

    Args:
        callbacks: The user's, in order.
    """
    return [(_kind(one), _state_of(one)) for one in callbacks]


def set_callback_states(callbacks: Sequence[Any], states: Sequence[tuple[str, Any]]) -> list[str]:
    """Puts back what callbacks remembered, and returns what could not be, in words.

    Args:
        callbacks: The user's, in order.
        states: What `callback_states` returned.
    """
    then, now = [kind for kind, _ in states], [_kind(one) for one in callbacks]
    if then != now:
        kinds = f"{', '.join(then) or 'none'} then, {', '.join(now) or 'none'} now"
        return [f"callbacks: {kinds}; what they remember begins anew"]
    for callback, (_, state) in zip(callbacks, states, strict=True):
        if state is None:
            continue
        if hasattr(callback, "load_state_dict"):
            callback.load_state_dict(state)
            continue
        for name, value in state.items():
            setattr(callback, name, value)
    return []


def _kind(callback: Any) -> str:
    return type(callback).__name__


def _state_of(callback: Any) -> Any:
    state: Any = None
    if hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict"):
        state = callback.state_dict()
    else:
        for base in type(callback).__mro__:
            if base.__name__ in REMEMBERED:
                names = REMEMBERED[base.__name__]
                state = {name: getattr(callback, name) for name in names if hasattr(callback, name)}
                break
    try:
        taken_apart(state)
    except DataError as error:
        raise DataError(f"callbacks: what {_kind(callback)} remembers: {error}") from None
    return state
