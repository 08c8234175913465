# SPDX-License-Identifier: Apache-2.0
"""Every optimizer and every option of one: a round takes the steps that Keras takes.

Under fed_avg_g two parties take the step of Keras on their rows put together; fed_avg_w is Keras in each party, and
fed_prox without its pull is fed_avg_w.
"""

import numpy as np
import pytest
from inline.keras_models import ready
from inline.keras_steps import ALICE, POOLED, joint_steps, keras_steps, without_pull

from fedray.backends.backend import Batch

pytestmark = pytest.mark.usefixtures("kernels_kept")

OPTIMIZERS = {
    "sgd": ("SGD", 0.1, {}),
    "sgd, momentum": ("SGD", 0.1, {"momentum": 0.9}),
    "sgd, nesterov": ("SGD", 0.1, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": ("RMSprop", 0.01, {}),
    "rmsprop, centered": ("RMSprop", 0.01, {"momentum": 0.5, "centered": True}),
    "adagrad": ("Adagrad", 0.1, {}),
    "adadelta": ("Adadelta", 1.0, {}),
    "adam": ("Adam", 0.01, {}),
    "adam, amsgrad": ("Adam", 0.01, {"amsgrad": True}),
    "adamw": ("AdamW", 0.01, {}),
    "adamax": ("Adamax", 0.01, {}),
    "nadam": ("Nadam", 0.01, {}),
    "ftrl": ("Ftrl", 0.1, {}),
    "ftrl, l1 and l2": ("Ftrl", 0.1, {"l1_regularization_strength": 0.01, "l2_regularization_strength": 0.01}),
    "adafactor": ("Adafactor", 0.01, {}),
    "adafactor, absolute": ("Adafactor", 0.01, {"relative_step": False, "beta_2_decay": -0.5}),
    "lion": ("Lion", 0.01, {}),
    "lamb": ("Lamb", 0.01, {}),
    "muon": ("Muon", 0.01, {}),
    "schedule-free adamw": ("ScheduleFreeAdamW", 0.01, {}),
    "schedule-free adamw, warm-up": ("ScheduleFreeAdamW", 0.01, {"warmup_steps": 3}),
}

OPTIONS = {
    "as it is": {},
    "clipnorm": {"clipnorm": 0.05},
    "clipvalue": {"clipvalue": 0.02},
    "global_clipnorm": {"global_clipnorm": 0.05},
    "weight_decay": {"weight_decay": 0.3},
    "excluded from weight decay": {"weight_decay": 0.3},
    "loss_scale_factor": {"loss_scale_factor": 1000.0},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "all of them": {
        "clipnorm": 0.05,
        "weight_decay": 0.3,
        "loss_scale_factor": 64.0,
        "gradient_accumulation_steps": 2,
    },
    "a dynamic loss scale": {},
    "one of several": {"clipnorm": 0.05},
}


def with_optimizer(made):
    """A builder of a small model that is run eagerly: for a few steps, tracing costs more than it saves."""

    def builder():
        import keras

        hidden = keras.layers.Dense(4, activation="tanh", kernel_regularizer="l2", activity_regularizer="l1")
        last = keras.layers.Dense(3, bias_constraint=keras.constraints.NonNeg())
        model = keras.Sequential([keras.Input((4,)), hidden, last])
        model.compile(loss="mse", optimizer=made(keras), run_eagerly=True)
        return model

    return builder


def made_as(optimizer, option):
    """Returns what makes an optimizer with an option; skips one that this version of Keras does not have."""
    kind, rate, arguments = OPTIMIZERS[optimizer]

    def made(keras):
        if not hasattr(keras.optimizers, kind):
            pytest.skip(f"this Keras has no {kind}")
        one = getattr(keras.optimizers, kind)(learning_rate=rate, **{**arguments, **OPTIONS[option]})
        if option == "excluded from weight decay":
            one.exclude_from_weight_decay(var_names=["bias"])
        if option == "a dynamic loss scale":
            return keras.optimizers.LossScaleOptimizer(one, initial_scale=2.0**10, dynamic_growth_steps=2)
        if option == "one of several":
            if not hasattr(keras.optimizers, "MultiOptimizer"):
                pytest.skip("this Keras has no MultiOptimizer")
            others = keras.optimizers.OptimizerMap(one, {".*bias": keras.optimizers.SGD(0.05, momentum=0.5)})
            return keras.optimizers.MultiOptimizer(others, loss_scale_factor=8.0)
        return one

    return made


def check_against_keras(builder):
    backend, data = ready(builder)
    start, first = backend.weights().copy(), backend.snapshot()
    pooled = keras_steps(backend, builder, start, POOLED)
    assert np.abs(pooled - start).max() > 1e-3
    close = {"rtol": 2e-5, "atol": 2e-6}
    np.testing.assert_allclose(joint_steps(backend, data), pooled, **close)

    backend.restore(first)
    rounds = [[Batch(rows) for rows in ALICE[:3]], [Batch(ALICE[3])]]
    flat = start
    for of_round in rounds:
        flat = backend.train(flat, data, of_round)[0].copy()
    np.testing.assert_allclose(flat, keras_steps(backend, builder, start, ALICE), **close)

    backend.forget()
    again = start
    for of_round in rounds:
        again = backend.train(again, data, of_round)[0].copy()
    np.testing.assert_array_equal(again, flat, "an optimizer that begins anew")

    backend.restore(first)
    backend.set_weights(start)
    pulled = [without_pull(backend, data, of_round) for of_round in rounds][-1]
    np.testing.assert_allclose(pulled, flat, **close)


def test_adam_with_all_options_takes_the_steps_of_keras():
    check_against_keras(with_optimizer(made_as("adam", "all of them")))


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_takes_the_steps_of_keras(optimizer, option):
    check_against_keras(with_optimizer(made_as(optimizer, option)))
