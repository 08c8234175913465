# SPDX-License-Identifier: Apache-2.0
"""The reference program's network and rows, for benchmarks and for floors alike. Imports nothing of fedray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 128
PARAMETERS = 34_826


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


def conv_module() -> Any:
    """Returns the same as a module of PyTorch."""
    from torch import nn

    first = [nn.Conv2d(1, 32, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(32, 64, kernel_size=3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Dropout(0.5), nn.Linear(1600, 10))


def share(
    file: Path | str, part: int, parts: int, samples: int, channels: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns one party's share of the first training images, one channel if asked, and one-hot labels.

    Args:
        file: MNIST as an .npz file.
        part: Whose share.
        parts: How many shares.
        samples: Images of all shares.
        channels: Whether images have an axis of channels in front.
    """
    with np.load(file) as mnist:
        start, stop = samples * part // parts, samples * (part + 1) // parts
        x = mnist["x_train"][start:stop].astype(np.float32) / 255
        x = x[:, None] if channels else x
        return x, np.eye(10, dtype=np.float32)[mnist["y_train"][start:stop]]


def batches(rows: int, part: int, epoch: int) -> list[NDArray[np.int64]]:
    """Returns the row numbers of an epoch, drawn anew, in as few batches of at most `BATCH` as can be."""
    order = np.random.default_rng((part, epoch)).permutation(rows)
    return np.array_split(order, -(-rows // BATCH))
