# SPDX-License-Identifier: Apache-2.0
"""What the words of the rounds of training mean: of those with updates, and of one with metrics alone. Pure."""

from __future__ import annotations

from fedray.backends.backend import ModelFacts
from fedray.party.training.model_rounds import totals
from fedray.protocol.manifest import Manifest, Tensor
from fedray.strategies import Strategy


def train_manifest(facts: ModelFacts, strategy: Strategy, row_weights: bool) -> Manifest:
    """Returns what the words of a training round mean; their order is that of `fedray.strategies.halves.payload`.

    Args:
        facts: Names and shapes of the model.
        strategy: Whose uplinks are sent.
        row_weights: Whether the rows of training have weights.
    """
    tensors = []
    for uplink in strategy.uplink:
        # With one uplink its name would say nothing in an error about a tensor.
        prefix = f"{uplink.name} of " if len(strategy.uplink) > 1 else ""
        weighted = uplink.weighted
        tensors += [
            Tensor(prefix + p.name, p.shape, p.word_dtype, weighted=weighted) for p in facts.spec.shared if p.trainable
        ]
    tensors += [Tensor(p.name, p.shape, p.word_dtype) for p in facts.spec.shared if not p.trainable]
    return Manifest(tuple(tensors), totals(facts.train_words, row_weights), counted=True)


def report_manifest(facts: ModelFacts, row_weights: bool) -> Manifest:
    """Returns what the words of a round of training metrics alone mean.

    Args:
        facts: The model's metrics.
        row_weights: Whether the rows of training have weights.
    """
    return Manifest((), totals(facts.train_words, row_weights), weighted=False)
