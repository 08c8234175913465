# SPDX-License-Identifier: Apache-2.0
"""What an optimizer promises of all weights together, and which strategies would break it for those that are shared."""

import pytest
from inline.keras_models import X, Y, bind, ready
from inline.keras_steps import sequential

from fedray.backends.keras.model import KerasBackend
from fedray.errors import PlanError
from fedray.strategies import make_strategy

pytestmark = pytest.mark.usefixtures("kernels_kept")


@pytest.mark.parametrize("reduction", ["sum", "none", None])
def test_a_loss_that_is_a_sum_has_no_mean_over_the_rows_of_all(reduction):
    builder = sequential(
        lambda keras: keras.layers.Dense(3), loss=lambda losses: losses.MeanSquaredError(reduction=reduction)
    )
    backend, _ = ready(builder)
    with pytest.raises(PlanError, match="adds up the rows of a batch, and strategy 'fed_avg_g' takes a mean"):
        backend.check_strategy(make_strategy("fed_avg_g"))
    for name in ("fed_avg_w", "fed_prox"):
        backend.check_strategy(make_strategy(name))


def test_one_norm_over_shared_and_local_gradients_is_refused_where_it_would_part_the_parties():
    def clipped(**inputs):
        return sequential(
            lambda keras: keras.layers.Dense(3),
            optimizer=lambda optimizers: optimizers.SGD(0.1, global_clipnorm=1.0),
            **inputs,
        )

    backend, _ = ready(clipped(), local=["*/bias"])
    with pytest.raises(PlanError, match="global_clipnorm takes one norm over shared and local tensors"):
        backend.check_strategy(make_strategy("fed_avg_g"))
    backend.check_strategy(make_strategy("fed_avg_w"))
    ready(clipped())[0].check_strategy(make_strategy("fed_avg_g"))


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method:UserWarning")  # nor needs one
def test_layers_in_float8_have_gradients_that_are_none():
    def builder():
        import keras

        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16)])
        model.quantize("float8")
        model.compile(loss="mse", optimizer="sgd")
        return model

    backend = KerasBackend(builder, seed=1)
    for name in ("fed_avg_g", "fed_prox"):
        with pytest.raises(PlanError, match="layers in float8"):
            backend.check_strategy(make_strategy(name))
    backend.check_strategy(make_strategy("fed_avg_w"))


def constrained(make):
    return sequential(lambda keras: keras.layers.Dense(3, kernel_constraint=make(keras)))


def box(keras):
    class Box(keras.constraints.Constraint):
        def __call__(self, w):
            return keras.ops.clip(w, -0.1, 0.1)

    return Box()


@pytest.mark.parametrize(
    ("make", "averages"),
    [
        (lambda keras: keras.constraints.NonNeg(), True),
        (lambda keras: keras.constraints.MaxNorm(1.0), True),
        (lambda keras: keras.constraints.MinMaxNorm(0.0, 1.0, rate=0.5), True),
        (box, True),
        (lambda keras: keras.constraints.UnitNorm(), False),
        (lambda keras: keras.constraints.MinMaxNorm(0.5, 1.0), False),
    ],
    ids=["NonNeg", "MaxNorm", "MinMaxNorm from 0", "of the user's own", "UnitNorm", "MinMaxNorm"],
)
def test_a_constraint_is_refused_where_a_mean_would_not_meet_it(make, averages):
    backend, _ = ready(constrained(make))
    message = r"the constraint \w+ of 'dense/kernel' does not hold for what strategy '\w+' makes of weights"
    backend.check_strategy(make_strategy("fed_avg_g"))
    for name in ("fed_avg_w", "fed_avg_u", "fed_prox"):
        if averages:
            backend.check_strategy(make_strategy(name))
        else:
            with pytest.raises(PlanError, match=message):
                backend.check_strategy(make_strategy(name))
    with pytest.raises(PlanError, match=message):  # the server's own step knows no constraint
        backend.check_strategy(make_strategy("fed_adam"))
    ready(constrained(make), local=["*/kernel"])[0].check_strategy(make_strategy("fed_adam"))


def test_a_model_that_waits_for_data_is_checked_when_it_is_built():
    def builder():
        import keras

        model = keras.Sequential([keras.layers.Dense(3, kernel_constraint="unit_norm")])
        model.compile(loss="mse", optimizer="sgd")
        return model

    backend = KerasBackend(builder, seed=1)
    backend.check_strategy(make_strategy("fed_avg_w"))
    with pytest.raises(PlanError, match="the constraint UnitNorm"):
        bind(backend, X, Y)
