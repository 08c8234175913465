# SPDX-License-Identifier: Apache-2.0
"""What users pass where rows of several parties are expected, and what to do instead. Imports none of what it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fedray.device.interfaces import Handle

_LOAD = "make one with fedray.data.ndarray.load({alice: ..., bob: ...})"
_FEEDERS = ("Dataset", "DatasetV2", "DataLoader", "PyDataset", "Sequence", "IterableDataset")
"""Classes that hand out batches, by their own name or a base's: of tf.data, of PyTorch, of Keras."""


def remedy(value: Any) -> str:
    """Returns how to come to a FedNdarray from something else that a model's method was given.

    Args:
        value: What was passed.
    """
    bases = {base.__name__ for base in type(value).__mro__ if base.__module__.split(".")[0] != "collections"}
    if bases & set(_FEEDERS) or isinstance(value, Iterator):
        return (
            "it hands out the batches of one process. Let each party read its own rows: load({alice: read, bob: "
            "read}), where read runs inside the party and returns an array; fit(batch_size=...) makes the batches"
        )
    if isinstance(value, Handle):
        return "it is one party's; load({alice: it, bob: ...}) joins what parties hold"
    if "DataFrame" in bases:
        return "load({alice: frame, bob: ...}) spreads data frames; a path to a CSV file is read inside its party"
    if hasattr(value, "shape"):
        return (
            "these rows are at the driver. load({alice: rows, bob: ...}) sends them to parties; "
            "fed_model.global_model() is the model here, which predicts rows that are here"
        )
    return _LOAD
