# SPDX-License-Identifier: Apache-2.0
"""The demo's CNN in PyTorch, and how one party trains it alone. All of it runs inside the parties."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 128  # the tutorial's

Images = NDArray[np.float32]


def accuracy(output: Any, y: Any) -> Any:
    """Returns which rows' likeliest class is theirs, 1 or 0 for each."""
    return (output.argmax(1) == y.argmax(1)).float()


def build_model() -> Any:
    """Returns the tutorial's CNN with loss and optimizer: 34,826 parameters."""
    from torch import nn, optim

    from fedray.ml.nn.torch import Compiled

    module = nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(1600, 10),
    )
    return Compiled(module, nn.CrossEntropyLoss(), optim.Adam(module.parameters()), metrics=[accuracy])


def new_model(seed: int) -> Any:
    """Returns the CNN with fresh weights."""
    import torch

    torch.manual_seed(seed)
    return build_model()


def one_epoch(model: Any, x: Images, y: Images, test: tuple[Images, Images]) -> dict[str, float]:
    """Trains the model for an epoch, in place, and returns its figures.

    Args:
        model: The party's own model.
        x: Images, float32[n, 1, 28, 28].
        y: One-hot labels, float32[n, 10].
        test: The test set: images, float32[m, 28, 28], and labels.
    """
    import torch

    images, labels = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y))
    model.module.train()
    loss = right = 0.0
    for rows in torch.randperm(len(images)).split(BATCH_SIZE):
        model.optimizer.zero_grad()
        output = model.module(images[rows])
        one = model.loss(output, labels[rows])
        one.backward()
        model.optimizer.step()
        loss, right = loss + len(rows) * float(one.detach()), right + float(accuracy(output, labels[rows]).sum())
    figures = {"accuracy": right / len(images), "loss": loss / len(images)}
    model.module.eval()
    images, labels = torch.from_numpy(test[0][:, None].copy()), torch.from_numpy(test[1])
    with torch.no_grad():
        output = torch.cat([model.module(part) for part in images.split(1000)])
        seen, said = float(accuracy(output, labels).mean()), float(model.loss(output, labels))
    return figures | {"val_accuracy": seen, "val_loss": said}
