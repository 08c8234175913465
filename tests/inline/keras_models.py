# SPDX-License-Identifier: Apache-2.0
"""Small models and data for the tests of the Keras backend."""

from itertools import pairwise

import numpy as np
import pytest

from fedray.backends.backend import Batch
from fedray.backends.keras.model import KerasBackend
from fedray.tree import Tree

RNG = np.random.default_rng(7)
X = RNG.normal(size=(60, 4)).astype(np.float32)
CLASS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
Y = np.eye(3, dtype=np.float32)[CLASS]


EAGERLY = [pytest.param(True, id="eager"), pytest.param(False, id="graph", marks=pytest.mark.slow)]
"""Values of `run_eagerly` for tests that show the same with either: a graph costs ten of their steps."""


def dense(optimizer="sgd", loss="categorical_crossentropy", metrics=("accuracy",), **compile_arguments):
    """Two dense layers, 4 -> 5 -> 3."""

    def builder():
        import keras

        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(3, activation="softmax")]
        )
        model.compile(loss=loss, optimizer=optimizer, metrics=list(metrics), **compile_arguments)
        return model

    return builder


def noisy(run_eagerly=False):
    """BatchNorm and dropout: a model with statistics to average and a generator to keep."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer="adam", metrics=["accuracy"], run_eagerly=run_eagerly)
    return model


def binary(*metrics):
    """One sigmoid output with the metrics given by name of their class, eager."""

    def builder():
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
        made = [getattr(keras.metrics, name)() for name in metrics]
        model.compile(loss="binary_crossentropy", optimizer="sgd", metrics=made, run_eagerly=True)
        return model

    return builder


def one_matrix():
    """A model of a single variable, where flat vector and variable could share memory."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    model.compile(loss="mse", optimizer="sgd")
    return model


def batches(*sizes):
    """Consecutive batches of these sizes, in file order."""
    return [Batch(np.arange(start, stop)) for start, stop in pairwise(np.cumsum([0, *sizes]))]


def in_order(rows, batch_size):
    """All rows in file order in batches of `batch_size`, the last one shorter."""
    return batches(*np.diff([*range(0, rows, batch_size), rows]))


def ready(builder, x=X, y=Y, seed=1, **arguments):
    """Returns a backend and its bound data."""
    backend = KerasBackend(builder, seed=seed, **arguments)
    return backend, bind(backend, x, y)


def hooked_by(strategy, backend, vector):
    """Returns a strategy's hook, and a party's state for a round that begins with these weights: what `train` takes."""
    weights = vector[: backend.spec.trainable]
    return strategy.client_hook, strategy.client_begin(strategy.client_init(weights), weights, {})


def bind(backend, x, y=None, sample_weight=None, class_weight=None):
    """Binds arrays, alone or nested."""
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    trees = [None if nest is None else Tree(nest, name) for name, nest in given.items()]
    return backend.bind(*trees, class_weight)


def stock(backend, builder, values):
    """Returns a stock Keras model with the weights in a flat vector."""
    model = builder()
    variables = [*model.trainable_weights, *(v for v in model.non_trainable_weights if "float" in v.dtype)]
    for variable, value in zip(variables, backend.spec.unpack(values), strict=True):
        variable.assign(value)
    return model
