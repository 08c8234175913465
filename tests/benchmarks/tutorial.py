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


def lookup_model(parameters: int) -> Callable[[], Any]:
    """Returns a builder of a model whose step looks up one row, and so costs next to nothing at any size."""

    def build() -> Any:
        import keras

        layers = [keras.Input((1,), dtype="int32"), keras.layers.Embedding(parameters // 8, 8), keras.layers.Flatten()]
        model = keras.Sequential(layers)
        model.compile("sgd", "mse")
        return model

    return build


def rows(part: int, parts: int, samples: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns one party's share of the first `samples` training images and their one-hot labels."""
    with np.load(dataset("mnist")) as mnist:
        start, stop = samples * part // parts, samples * (part + 1) // parts
        x = mnist["x_train"][start:stop].astype(np.float32) / 255
        return x, np.eye(10, dtype=np.float32)[mnist["y_train"][start:stop]]
