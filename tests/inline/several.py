# SPDX-License-Identifier: Apache-2.0
"""Small Keras models with several inputs and outputs, and their rows."""

import numpy as np
import pytest
from inline.keras_models import CLASS, RNG, X

AGE = RNG.normal(size=(60, 1)).astype(np.float32)
HEIGHT = (X.sum(axis=1, keepdims=True) + AGE).astype(np.float32)
HEAVY = np.linspace(0, 2, 60)
LIGHT = np.linspace(1, 0.5, 60)


def shared_layer():
    """Two named inputs and what the outputs are made of."""
    import keras
    from keras import layers

    inputs = [keras.Input((4,), name="image"), keras.Input((1,), name="age")]
    return inputs, layers.Dense(5, activation="tanh", name="both")(layers.Concatenate()(inputs))


def two_inputs(run_eagerly=False):
    """image, age -> class."""
    import keras

    inputs, shared = shared_layer()
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="kind")(shared))
    loss, optimizer = "sparse_categorical_crossentropy", keras.optimizers.SGD(0.5)
    model.compile(loss=loss, optimizer=optimizer, metrics=["accuracy"], run_eagerly=run_eagerly)
    return model


def two_by_two(form=list, run_eagerly=False, **compile_arguments):
    """image, age -> class and height, in a list or a dict."""

    def builder():
        import keras

        inputs, shared = shared_layer()
        kind = keras.layers.Dense(3, activation="softmax", name="kind")(shared)
        height = keras.layers.Dense(1, name="height")(shared)
        model = keras.Model(inputs, [kind, height] if form is list else {"kind": kind, "height": height})
        losses = {"kind": "sparse_categorical_crossentropy", "height": "mse"}
        scores = {"kind": ["accuracy"], "height": ["mae", keras.metrics.RootMeanSquaredError(name="rmse")]}
        by_list = {"loss": list(losses.values()), "loss_weights": [1.0, 0.25], "metrics": list(scores.values())}
        by_name = {"loss": losses, "loss_weights": {"kind": 1.0, "height": 0.25}, "metrics": scores}
        settings = (by_list if form is list else by_name) | compile_arguments
        model.compile(optimizer=keras.optimizers.SGD(0.2), run_eagerly=run_eagerly, **settings)
        return model

    return builder


def wide_and_deep(run_eagerly=False):
    """A model class of the user's own, which takes a dict and learns its shapes from the data."""
    import keras

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.deep, self.out = keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)

        def call(self, inputs):
            return self.out(keras.ops.concatenate([self.deep(inputs["image"]), inputs["age"]], axis=1))

    model = Own()
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.1), metrics=["mae"], run_eagerly=run_eagerly)
    return model


FORMS = {
    "lists": (list, [X, AGE], [CLASS, HEIGHT], [HEAVY, LIGHT]),
    "dicts": (dict, {"image": X, "age": AGE}, {"kind": CLASS, "height": HEIGHT}, {"kind": HEAVY, "height": LIGHT}),
    "names of lists": (
        list,
        {"image": X, "age": AGE},
        {"kind": CLASS, "height": HEIGHT},
        {"height": LIGHT, "kind": HEAVY},
    ),
}
"""How the outputs are made, then x, y and sample_weight."""

FORM_AND_WEIGHTED = [
    pytest.param(form, weighted, marks=[pytest.mark.slow] * ((form, weighted) != ("names of lists", True)))
    for form in FORMS
    for weighted in (False, True)
]
"""Every form with and without weights. The one that is not slow has weights, inputs by name, outputs in a list."""
