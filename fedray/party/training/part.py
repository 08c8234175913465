# SPDX-License-Identifier: Apache-2.0
"""What of one party's training outlasts its process, as one plain value: gathered, and put back.

Knows a trainer, its model and its past. Knows no file. Secrets of sessions are not in it: sessions start anew.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedray.errors import DataError
from fedray.metrics import Mean, Metric, Tally
from fedray.party.rounds.past import Past
from fedray.party.training.local_model import LocalModel
from fedray.party.training.trainer import Trainer
from fedray.protocol.scales import Scales
from fedray.tree import Tree


def gathered(model: LocalModel, past: Past, trainer: Trainer) -> dict[str, Any]:
    """Returns a party's part between two segments.

    Args:
        model: Its model.
        past: What it was told.
        trainer: Its trainer.
    """
    state, measured, run = trainer.remembered()
    return {
        "weights": model.weights,
        "known": model.known,
        "state": model.state,
        "reaches": None if model.scales is None else model.scales.reaches,
        "as built": model.as_built,
        "bound": dict(model.bound),
        "local": model.backend.stored(),
        "strategy": state,
        "measured": [_plain(one) for one in measured],
        "run": run,
        "past": past.kept(),
    }


def put_back(part: Mapping[str, Any], model: LocalModel, past: Past, trainer: Trainer) -> None:
    """Puts back what `gathered` returned.

    Args:
        part: What it returned.
        model: The party's model.
        past: What it was told.
        trainer: Its trainer.

    Raises:
        DataError: It is of another model; nothing has changed then.
    """
    if len(part["weights"]) != model.backend.spec.size:
        raise DataError(
            f"the model that was kept has {len(part['weights'])} shared words, this one has {model.backend.spec.size}"
        )
    with model.named():
        model.backend.take_stored(part["local"])
    model.adopt(part["weights"], part["known"])
    model.state, model.as_built = part["state"], part["as built"]
    model.scales = None if part["reaches"] is None else Scales(part["reaches"])
    # Names of rows count how often arrays were bound: the same rows must have the same names.
    model.bound = Counter(part["bound"])
    trainer.remember((part["strategy"], [_metric(one) for one in part["measured"]], part["run"]))
    past.take(part["past"])


def content_hash(*arrays: Any) -> str:
    """Returns SHA-256 over arrays nested in lists, tuples and dicts, with their names, shapes and dtypes, hexadecimal.

    Args:
        *arrays: Nests of arrays, or None.
    """
    told = hashlib.sha256(b"fedray rows 1")
    for nest in arrays:
        for name, array in () if nest is None else Tree(nest, "x").named():
            if array is None:
                continue
            whole = np.ascontiguousarray(array)
            told.update(repr((name, whole.shape, whole.dtype.str)).encode())
            # Objects, such as text of any length, have no bytes of their own.
            told.update(repr(whole.tolist()).encode() if whole.dtype.hasobject else whole.view(np.uint8).data)
        told.update(b";")
    return told.hexdigest()


def _plain(metric: Metric) -> tuple[Any, ...]:
    if isinstance(metric, Mean):
        return "mean", metric.name, metric.total, metric.count, metric.whole
    return "tally", metric.name, metric.state, metric.value, metric.additive, metric.whole


def _metric(plain: tuple[Any, ...]) -> Metric:
    kind, *fields = plain
    return Mean(*fields) if kind == "mean" else Tally(*fields)
