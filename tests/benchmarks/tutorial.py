# SPDX-License-Identifier: Apache-2.0
"""The reference program's model and data, for every benchmark alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.utils.simulation.datasets import dataset

BATCH = 128


def conv_model() -> Any:
    """Returns the tutorial's CNN, compiled (34,826 parameters)."""
    from tensorflow import keras
    from tensorflow.keras import layers

    model = keras.Sequential(
        [
            keras.Input(shape=(28, 28, 1)),
            layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


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
    """Returns one party's share of the first `samples` training images, one channel if asked, and one-hot labels."""
    with np.load(dataset("mnist")) as mnist:
        start, stop = samples * part // parts, samples * (part + 1) // parts
        x = mnist["x_train"][start:stop].astype(np.float32) / 255
        x = x[:, None] if channels else x
        return x, np.eye(10, dtype=np.float32)[mnist["y_train"][start:stop]]
