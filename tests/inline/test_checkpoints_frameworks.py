# SPDX-License-Identifier: Apache-2.0
"""What Keras and PyTorch keep beside the weights comes back from a checkpoint: a killed run ends with the same bits."""

import pytest
from inline.kept_runs import Steps, counted, fit, killed, same
from inline.torch_models import NEEDS_TORCH, correct

import fedray as sf


def adam_with_noise(run_eagerly=False):
    import keras

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    metrics = ["accuracy", keras.metrics.AUC(num_thresholds=20)]
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=metrics, run_eagerly=run_eagerly)
    return model


def adam_with_noise_eagerly():
    """A graph costs ten of the steps of a test."""
    return adam_with_noise(run_eagerly=True)


def with_schedule():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    rate = keras.optimizers.schedules.ExponentialDecay(0.5, decay_steps=2, decay_rate=0.7)
    model.compile(
        loss="categorical_crossentropy", optimizer=keras.optimizers.SGD(rate, momentum=0.9), metrics=["accuracy"]
    )
    return model


def reducing():
    import keras

    return [
        keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=10.0),
        keras.callbacks.EarlyStopping(monitor="loss", patience=5, min_delta=10.0, restore_best_weights=True),
    ]


def torch_model():
    import torch

    from fedray.ml.nn.torch import Compiled

    module = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3)
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.8**step)
    return Compiled(module, torch.nn.CrossEntropyLoss(), optimizer, {"accuracy": correct}, scheduler)


CASES = {
    "Adam, moving statistics, noise": {"builder": adam_with_noise_eagerly},
    "the same in a graph": {"builder": adam_with_noise},
    "local tensors": {"builder": adam_with_noise, "local": ["*batch_normalization*"]},
    "a schedule": {"builder": with_schedule},
    "gradients": {"builder": with_schedule, "strategy": "fed_avg_g"},
    "callbacks that remember": {"builder": adam_with_noise, "callbacks": reducing, "epochs": 5},
    "PyTorch": {"builder": torch_model, "backend": "torch"},
}


def marks(name):
    """All take half a minute: `test_checkpoints.py` shows the same with NumPy's models."""
    return [pytest.mark.slow, *(NEEDS_TORCH if name == "PyTorch" else [])]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in CASES])
def test_all_that_stays_in_a_party_comes_back(monkeypatch, start, tmp_path, name):
    arguments = {"backend": "tensorflow"} | CASES[name]
    steps = Steps()
    with monkeypatch.context() as patch:
        counted(patch, steps)
        expected = fit(start, sf.Checkpoint(tmp_path / "whole", every=2), **arguments)
    sf.shutdown()
    for step in (steps.count // 2, steps.count // 4):  # the second one counts from where the run goes on
        kept = sf.Checkpoint(tmp_path / "run", every=2)
        assert killed(monkeypatch, start, kept, {step: "driver"}, **arguments) is None
    same(fit(start, sf.Checkpoint(tmp_path / "run", every=2), **arguments), expected)
