# SPDX-License-Identifier: Apache-2.0
"""Small eager models, trained step by step: by plain Keras, by the mean gradient of two parties, under a hook."""

import numpy as np
from inline.keras_models import X, Y, hooked_by, stock

from fedray.backends.backend import Batch
from fedray.strategies import make_strategy

STEPS = 4
ALICE, BOB = np.arange(20).reshape(STEPS, 5), np.arange(30, 42).reshape(STEPS, 3)
"""Rows of the steps: a batch of the two together has five of alice and three of bob."""

POOLED = [np.concatenate(rows) for rows in zip(ALICE, BOB, strict=True)]


def sequential(*layers, optimizer="sgd", loss="mse", **inputs):
    """A builder of a small eager model of the layers that `layers` make, on 4 numbers a row."""

    def builder():
        import keras

        model = keras.Sequential([keras.Input((4,), **inputs), *(make(keras) for make in layers)])
        made = optimizer(keras.optimizers) if callable(optimizer) else optimizer
        model.compile(loss=loss(keras.losses) if callable(loss) else loss, optimizer=made, run_eagerly=True)
        return model

    return builder


def keras_steps(backend, builder, start, rows, x=X, y=Y):
    """Returns the flat vector after plain Keras has trained on these rows, step by step."""
    model = stock(backend, builder, start)
    for of_step in rows:
        model.train_on_batch(x[of_step], y[of_step])
    others = [v for v in model.non_trainable_weights if "float" in v.dtype]
    return backend.spec.pack([v.numpy() for v in [*model.trainable_weights, *others]])


def joint_steps(backend, data, shares=(ALICE, BOB)):
    """Takes fed_avg_g's steps: parties that apply the same mean are one model, so that one backend stands for all."""
    for rows in zip(*shares, strict=True):
        total, words = 0, np.zeros(backend.spec.size)
        for part in rows:
            gradient, count = backend.gradient(data, [Batch(part)])
            total, words = total + count, words + count * gradient.astype(np.float64)
        backend.apply_gradient((words / total).astype(np.float32))
    return backend.weights()


def without_pull(backend, data, batched):
    """Trains one round under fed_prox with mu 0, from where the backend stands."""
    start = backend.weights().copy()
    return backend.train(start, data, batched, *hooked_by(make_strategy("fed_prox", {"mu": 0.0}), backend, start))[0]
