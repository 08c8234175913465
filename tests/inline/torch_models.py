# SPDX-License-Identifier: Apache-2.0
"""Small models for the tests of the PyTorch backend, and the mark of tests that need PyTorch.

Without PyTorch, such tests are skipped and say so. Builders import it inside, as users' may.
"""

from importlib.util import find_spec

import numpy as np
import pytest
from inline.keras_models import CLASS, X, bind

from fedray.backends import make_backend

TORCH = find_spec("torch") is not None and find_spec("torchmetrics") is not None
WITHOUT = "PyTorch is not installed: pip install 'fedray[torch]'"
NEEDS_TORCH = [pytest.mark.torch, pytest.mark.skipif(not TORCH, reason=WITHOUT)]
"""Marks of a test, or of all tests of a file: `pytestmark = NEEDS_TORCH`."""

RATE = 0.25


def torch_softmax(momentum=0.0, rate=RATE):
    """One linear layer, 4 -> 3, with the loss that has the softmax in it, and an accuracy of a user's own."""

    def builder():
        import torch

        from fedray.ml.nn.torch import Compiled

        module = torch.nn.Sequential(torch.nn.Linear(4, 3))
        optimizer = torch.optim.SGD(module.parameters(), rate, momentum=momentum)
        return Compiled(module, torch.nn.CrossEntropyLoss(), optimizer, metrics={"accuracy": correct})

    return builder


def correct(output, y):
    """Which rows' likeliest class is theirs, by its number or one-hot."""
    return (output.argmax(1) == (y if y.ndim == 1 else y.argmax(1))).float()


def torch_outputs(module, x):
    """What a plain module says of rows."""
    import torch

    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def ready(builder, x=X, y=CLASS, seed=1, **arguments):
    """Returns a backend and its bound data."""
    backend = make_backend("torch", builder, seed, **({"noise_seed": 0, "threads": 1} | arguments))
    return backend, bind(backend, x, y)


def same_bytes(a, b):
    """Whether two vectors are equal to the last bit."""
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()
