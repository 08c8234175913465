# SPDX-License-Identifier: Apache-2.0
"""A party's part of a checkpoint, put back into a party that has just begun, is what is gathered there again."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedray.errors import DataError
from fedray.metrics import Mean
from fedray.party.rounds.past import Past
from fedray.party.training.part import gathered, put_back
from fedray.protocol.scales import Scales


class Model(SimpleNamespace):
    """What a part is gathered from, of a `LocalModel`."""

    def __init__(self, **fields: Any) -> None:
        fresh = {"weights": np.zeros(2), "known": (), "state": None, "scales": None, "as_built": True}
        super().__init__(**(fresh | {"bound": Counter(), "local": {}} | fields))
        self.backend = SimpleNamespace(
            stored=lambda: self.local,
            take_stored=lambda local: setattr(self, "local", local),
            spec=SimpleNamespace(size=2),
        )

    named = staticmethod(nullcontext)

    def adopt(self, weights: Any, known: Any) -> None:
        self.weights, self.known = weights, known


class Trainer:
    """What a part is gathered from, of a `Trainer`."""

    def __init__(self, *remembered: Any) -> None:
        self._remembered = remembered

    def remembered(self) -> Any:
        return self._remembered

    def remember(self, remembered: Any) -> None:
        self._remembered = remembered


def trained() -> dict[str, Any]:
    past = Past("alice")
    past.take({"head": b"h" * 32, "over": ("alice", "bob"), "anew": True, "because": ("bob",)})
    model = Model(
        weights=np.arange(2.0),
        known=(np.ones(2),),
        state={"m": np.ones(2)},
        scales=Scales((3, -1)),
        as_built=False,
        bound=Counter(train=2, evaluate=1),
        local={"momentum": np.full(2, 0.5)},
    )
    return gathered(model, past, Trainer({"c": np.ones(2)}, [Mean("loss", 3.0, 2.0)], b"run"))


def test_all_of_a_part_comes_back() -> None:
    part = trained()
    model, past, trainer = Model(), Past("alice"), Trainer(None, [], b"")
    put_back(part, model, past, trainer)
    again = gathered(model, past, trainer)
    assert again.keys() == part.keys()
    for name, value in part.items():
        assert repr(again[name]) == repr(value), name
        assert repr(gathered(Model(), Past("alice"), Trainer(None, [], b""))[name]) != repr(value), f"{name} is tried"


def test_a_part_of_another_model_changes_nothing() -> None:
    model = Model()
    with pytest.raises(DataError, match="the model that was kept has 3 shared words, this one has 2"):
        put_back(trained() | {"weights": np.zeros(3)}, model, Past("alice"), Trainer())
    assert (model.weights.tolist(), model.as_built) == ([0, 0], True)
