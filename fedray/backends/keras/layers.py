# SPDX-License-Identifier: Apache-2.0
"""Layers that know or remember something besides their weights: what they have to have before training, and may not do.

Works on the objects it is handed; imports no framework.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from fedray.errors import PlanError


def check_stateless(model: Any) -> None:
    """Refuses layers whose state goes on from one batch to the next.

    Rows are dealt over the rounds anew each epoch, and batches differ in length: row 3 of one has nothing to do with
    row 3 of the next.

    Raises:
        PlanError: There is one; the message names it.
    """
    for layer in _layers(model):
        if getattr(layer, "stateful", False) is True:
            raise PlanError(
                f"model {model.name!r}: layer {layer.name!r} has stateful=True, which would carry its state from "
                "the rows of one batch to other rows; expected stateful=False, with a whole sequence in each row"
            )


def check_prepared(model: Any) -> None:
    """Refuses preprocessing layers that were neither given what they have to know nor adapted.

    Raises:
        PlanError: There is one; the message names it.
    """
    remedies = {
        "vocabulary": "pass vocabulary=[...] in the builder, the same for all parties",
        "mean": "pass mean=... and variance=... in the builder, e.g. x.mean() and x.std() ** 2 of all parties' rows",
        "bin_boundaries": "pass bin_boundaries=[...] in the builder, the same for all parties",
    }
    for layer in _layers(model):
        missing, kind = _missing(layer), type(layer).__name__
        if missing:
            raise PlanError(
                f"model {model.name!r}: layer {layer.name!r} ({kind}) has not been given its {missing}; "
                f"{remedies[missing]} (adapt() inside a party would see that party's rows only)"
            )


def known_hashes(model: Any) -> dict[str, str]:
    """Returns what such layers know that is no weight, e.g. `"text/vocabulary"` -> SHA-256, in hexadecimal digits.

    It is as much a part of the model as a frozen weight: word 7 has to be the same word at every party.
    """
    known: dict[str, bytes] = {}
    for layer in _layers(model):
        lookup = _lookup(layer)
        if lookup is not None:
            known[f"{layer.name}/vocabulary"] = json.dumps([str(word) for word in lookup.get_vocabulary()]).encode()
        elif _is(layer, "Discretization") and layer.bin_boundaries is not None:
            known[f"{layer.name}/bin_boundaries"] = _bytes(layer.bin_boundaries)
        elif _is(layer, "Normalization") and layer.input_mean is not None:
            known[f"{layer.name}/mean and variance"] = _bytes(layer.input_mean) + _bytes(layer.input_variance)
    return {name: hashlib.sha256(content).hexdigest() for name, content in known.items()}


def adapted_ids(model: Any) -> frozenset[int]:
    """Returns the `id` of each variable that `adapt` has set and that training leaves alone."""
    layers = [layer for layer in _layers(model) if _is(layer, "Normalization") and layer.input_mean is None]
    return frozenset(id(variable) for layer in layers for variable in layer._non_trainable_variables)


def take_over(model: Any) -> bool:
    """Lets layers compute with the weights that were assigned to them; returns whether one did so with others.

    Normalization works on a copy of its weights, which is a constant of every graph.
    """
    others = False
    for layer in _layers(model):
        if _is(layer, "Normalization") and layer.built and layer.input_mean is None:
            before = [np.array(part) for part in (layer.mean, layer.variance)]
            layer.finalize_state()
            after = [np.array(part) for part in (layer.mean, layer.variance)]
            others = others or not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    return others


def _missing(layer: Any) -> str:
    """Returns the argument that a layer lacks, or an empty text."""
    lookup = _lookup(layer)
    if lookup is not None and int(lookup.lookup_table.size()) == 0:
        return "vocabulary"
    if _is(layer, "Discretization") and layer.bin_boundaries is None:
        return "bin_boundaries"
    if _is(layer, "Normalization") and layer.built and layer.input_mean is None:
        # As built; rows whose mean is exactly 0 and variance exactly 1 need no such layer.
        fresh = not np.any(layer.adapt_mean.numpy()) and bool(np.all(layer.adapt_variance.numpy() == 1))
        return "mean" if fresh else ""
    return ""


def _lookup(layer: Any) -> Any:
    """Returns the table of words or numbers that a layer looks things up in, or None."""
    if _is(layer, "TextVectorization"):
        return layer._lookup_layer
    return layer if _is(layer, "IndexLookup") else None


def _layers(model: Any) -> Iterator[Any]:
    """Yields the layers of a model, each once; a table inside a TextVectorization goes with it."""
    every = list(model._flatten_layers(include_self=False, recursive=True))
    inner = {id(layer._lookup_layer) for layer in every if _is(layer, "TextVectorization")}
    yield from (layer for layer in every if id(layer) not in inner)


def _is(layer: Any, kind: str) -> bool:
    """Returns whether a layer is one of Keras's of this name, or derived from one."""
    return any(base.__name__ == kind and base.__module__.startswith("keras.") for base in type(layer).__mro__)


def _bytes(numbers: Any) -> bytes:
    return np.asarray(numbers, np.float64).tobytes()
