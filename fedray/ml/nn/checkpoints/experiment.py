# SPDX-License-Identifier: Apache-2.0
"""An experiment: all that decides the result of a run, as plain JSON, its hash, and differences in words. Pure.

What only a party may know of, its rows, it compares by itself. Versions are recorded beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedray.backends.spec import ParamSpec
from fedray.ml.nn.plan import FitPlan
from fedray.types import PartyName

NOTHING = "nothing"


def experiment_of(
    model: Mapping[str, Any],
    plan: FitPlan,
    spec: ParamSpec,
    validation: Mapping[str, int] | None,
    class_weight: Mapping[int, float] | None,
    seed: int | None,
) -> dict[str, Any]:
    """Returns all that decides the result of a fit, as plain JSON.

    Args:
        model: What the model was made with.
        plan: What is going to be done.
        spec: The model's tensors.
        validation: Rows of validation of each party, or None.
        class_weight: Weights of classes, or None.
        seed: The seed of the order of rows that was asked for, or None.
    """
    sampling, freq = plan.sampling, plan.validation
    return {
        **model,
        "rows": dict(plan.sizes),
        "rows of validation": validation and dict(validation),
        "tensors": {one.name: [list(one.shape), str(np.dtype(one.dtype)), one.role] for one in spec.params},
        "epochs": plan.epochs,
        "initial_epoch": plan.initial_epoch,
        "batch_size": sampling.batch_size,
        "aggregate_freq": plan.aggregate_freq,
        "sampler_method": sampling.method,
        "shuffle": sampling.shuffle,
        "validation_freq": freq if isinstance(freq, int) else sorted(freq),
        "class_weight": class_weight and {str(number): float(one) for number, one in sorted(class_weight.items())},
        "random_seed of fit": seed,
        # Metrics are added up from stop to stop, in floats; and a position is counted in stops.
        "rounds between two stops": 1 if plan.every_round else plan.pause,
    }


def experiment_hash(experiment: Mapping[str, Any]) -> str:
    """Returns SHA-256 over an experiment, hexadecimal."""
    return hashlib.sha256(json.dumps(experiment, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def without(experiment: Mapping[str, Any], gone: Sequence[PartyName]) -> dict[str, Any]:
    """Returns an experiment as it would be without some of its parties.

    Args:
        experiment: As `experiment_of` returns it.
        gone: Who is not in it.
    """
    left = dict(experiment)
    left["parties"] = [party for party in experiment["parties"] if party not in gone]
    for name in ("rows", "rows of validation"):
        if experiment[name] is not None:
            left[name] = {party: rows for party, rows in experiment[name].items() if party not in gone}
    return left


def differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns how two plain records differ, in words, one for each place.

    Args:
        then: What was kept.
        now: What there is.
        prefix: What stands before the names.
    """
    found: list[str] = []
    for name in dict.fromkeys([*then, *now]):
        before, after = then.get(name, NOTHING), now.get(name, NOTHING)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{name} of ")
        elif before != after:
            found.append(f"{prefix}{name}: {_said(before)} then, {_said(after)} now")
    return found


def _said(value: Any) -> str:
    text = value if value == NOTHING else json.dumps(value)
    return text if len(text) <= 120 else f"{text[:110]}..."
