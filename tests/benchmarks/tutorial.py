# SPDX-License-Identifier: Apache-2.0
"""The reference program's model and data, for every benchmark alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from networks import conv_model, share
from numpy.typing import NDArray

from fedray.utils.simulation.datasets import dataset


def conv_net() -> Any:
    """Returns the same in PyTorch."""
    from fedray.commands.demo_torch import build_model

    return build_model()


def compiled_net() -> Any:
    """Returns the same through `torch.compile`."""
    from dataclasses import replace

    return replace(conv_net(), compile=True)


MODELS: dict[str, dict[str, Any]] = {
    "tensorflow": {"backend": "tensorflow", "model": conv_model},
    "torch": {"backend": "torch", "model": conv_net},
    "torch.compile": {"backend": "torch", "model": compiled_net},
}
"""Name on the command line -> arguments of `FLModel`."""


def lookup_model(parameters: int) -> Callable[[], Any]:
    """Returns a builder of a model whose step looks up one row, and so costs next to nothing at any size."""

    def build() -> Any:
        import keras

        layers = [keras.Input((1,), dtype="int32"), keras.layers.Embedding(parameters // 8, 8), keras.layers.Flatten()]
        model = keras.Sequential(layers)
        model.compile("sgd", "mse")
        return model

    return build


def rows(
    part: int, parts: int, samples: int, channels: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns one party's share of the first `samples` training images; see `networks.share`."""
    return share(dataset("mnist"), part, parts, samples, channels)
