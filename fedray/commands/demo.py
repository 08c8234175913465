# SPDX-License-Identifier: Apache-2.0
"""The demo: MNIST trained by several parties, against one party alone, on the same test set.

A program as a user would write one, on public names only. It returns figures and prints nothing of its own but through
the function it is handed. `build_model`, `new_model`, `one_epoch`, `head` and `mnist_test` run inside the parties.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import fedray as sf
from fedray.commands import demo_torch
from fedray.data.ndarray import FedNdarray
from fedray.errors import PlanError
from fedray.ml.nn import FLModel
from fedray.party.door.ledger_view import Ledger
from fedray.runtime.session import current
from fedray.security.aggregation import Aggregator, PlainAggregator, SecureAggregator
from fedray.utils.simulation.datasets import dataset, load_mnist

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
"""The data parties, in the order in which more are added."""

SERVER = "charlie"
BATCH_SIZE = 128  # the tutorial's
TRAIN_IMAGES = 60_000
TEST_IMAGES = 10_000

Curves = dict[str, list[float]]
"""Metric name -> one value per epoch: loss, accuracy, val_loss, val_accuracy."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run.

    Attributes:
        epochs: Passes over the training images.
        parties: Number of data parties, 2 to 10.
        aggregator: `"secure"` or `"plain"`.
        train_samples: Training images over all parties.
        seed: Seed of the run.
        bar: Whether progress is a live bar; otherwise it is a line per epoch.
        backend: Framework of the model, `"tensorflow"` or `"torch"`.

    Raises:
        PlanError: A number is out of range.
    """

    epochs: int = 3
    parties: int = 2
    aggregator: Literal["plain", "secure"] = "secure"
    train_samples: int = TRAIN_IMAGES
    seed: int = 0
    bar: bool = True
    backend: Literal["tensorflow", "torch"] = "tensorflow"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise PlanError(f"epochs: expected 1 or more, found {self.epochs}")
        if not 2 <= self.parties <= len(NAMES):
            raise PlanError(f"parties: expected 2 to {len(NAMES)}, found {self.parties}")
        if not self.parties <= self.train_samples <= TRAIN_IMAGES:
            raise PlanError(
                f"train-samples: expected {self.parties} (one image per party) to {TRAIN_IMAGES:,}, "
                f"found {self.train_samples:,}"
            )
        if self.seed < 0:
            raise PlanError(f"seed: expected 0 or more, found {self.seed}")

    @property
    def names(self) -> tuple[str, ...]:
        """The data parties."""
        return NAMES[: self.parties]

    @property
    def rows(self) -> dict[str, int]:
        """Training images of each party."""
        each, more = divmod(self.train_samples, self.parties)
        return {name: each + (number < more) for number, name in enumerate(self.names)}


@dataclass(frozen=True, slots=True)
class Result:
    """What came out.

    Attributes:
        settings: What was run.
        federated: Curves of the model that all parties trained.
        alone: Curves of the model that the first party trained on its own images only.
        seconds: How long the federated training took, with the parties' first steps.
        ledger: What left each party.
    """

    settings: Settings
    federated: Curves
    alone: Curves
    seconds: float
    ledger: Ledger


def run(settings: Settings, say: Say) -> Result:
    """Starts the parties, trains, compares, and ends every process it started.

    Args:
        settings: What to run.
        say: Is told, line by line, what is going on.
    """
    say("starting one process per party ...")
    sf.shutdown()
    sf.init([*settings.names, SERVER], address="local", seed=settings.seed)
    try:
        devices = [sf.PYU(name) for name in settings.names]
        recipe, is_torch = recipes()[settings.backend], settings.backend == "torch"
        (x_train, y_train), (x_test, y_test) = load_mnist(parts=devices, categorical_y=True, is_torch=is_torch)
        x_train, y_train = (_shortened(array, settings) for array in (x_train, y_train))
        model = FLModel(
            server=sf.PYU(SERVER),
            device_list=devices,
            model=recipe.build,
            aggregator=_aggregator(settings, devices),
            strategy="fed_avg_w",
            backend=settings.backend,
        )
        # After the parties have started, and with their first steps: what a user waits for in `fit`.
        started = time.monotonic()
        history = model.fit(
            x_train,
            y_train,
            validation_data=(x_test, y_test),
            epochs=settings.epochs,
            batch_size=BATCH_SIZE,
            aggregate_freq=1,
            verbose=1 if settings.bar else 2,
        )
        seconds = time.monotonic() - started
        first = devices[0]
        say(f"\nfor comparison, {first.name} alone, on {first.name}'s own {settings.rows[first.name]:,} images:")
        # With the same seed, model, batch size and test images, so that only the number of images differs.
        alone = _train_alone(recipe, first, x_train, y_train, settings, say)
        curves = {name: [float(value) for value in values] for name, values in history.global_history.items()}
        return Result(settings, curves, alone, seconds, current().ledger(close=True))
    finally:
        sf.shutdown()


@dataclass(frozen=True, slots=True)
class Recipe:
    """The demo's model in one framework; all of it runs inside the parties.

    Attributes:
        build: Returns the model.
        new: Seed -> a model with fresh weights.
        one_epoch: Trains one party's model for an epoch, and returns its figures.
    """

    build: Callable[[], Any]
    new: Callable[[int], Any]
    one_epoch: Callable[..., dict[str, float]]


def recipes() -> dict[str, Recipe]:
    """Returns the model by name of its framework."""
    return {
        "tensorflow": Recipe(build_model, new_model, one_epoch),
        "torch": Recipe(demo_torch.build_model, demo_torch.new_model, demo_torch.one_epoch),
    }


def build_model() -> Any:
    """Returns the tutorial's CNN, compiled: 34,826 parameters. Runs inside a party."""
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


def new_model(seed: int) -> Any:
    """Returns the CNN with fresh weights. Runs inside a party."""
    from tensorflow import keras

    keras.utils.set_random_seed(seed)
    return build_model()


def one_epoch(
    model: Any, x: NDArray[np.float32], y: NDArray[np.float32], test: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> dict[str, float]:
    """Trains the model for an epoch, in place, and returns its figures. Runs inside a party.

    Args:
        model: The party's own model.
        x: Images, float32[n, 28, 28].
        y: One-hot labels, float32[n, 10].
        test: The same of the test set.
    """
    history = model.fit(x, y, batch_size=BATCH_SIZE, epochs=1, verbose=0, validation_data=test).history
    return {name: float(values[0]) for name, values in history.items()}


def head(rows: NDArray[Any], count: int) -> NDArray[Any]:
    """Returns the first rows. Runs inside a party."""
    return rows[:count]


def mnist_test() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the whole public test set: images and one-hot labels. Runs inside a party."""
    with np.load(dataset("mnist"), allow_pickle=False) as archive:
        images = archive["x_test"].astype(np.float32) / np.float32(255)
        return images, np.eye(10, dtype=np.float32)[archive["y_test"]]


def _shortened(array: FedNdarray, settings: Settings) -> FedNdarray:
    # All images are wanted, so there is nothing to cut off.
    if settings.train_samples == TRAIN_IMAGES:
        return array
    return FedNdarray({party: party(head)(part, settings.rows[party.name]) for party, part in array.partitions.items()})


def _aggregator(settings: Settings, devices: list[sf.PYU]) -> Aggregator:
    kind = SecureAggregator if settings.aggregator == "secure" else PlainAggregator
    return kind(sf.PYU(SERVER), devices)


def _train_alone(recipe: Recipe, party: sf.PYU, x: FedNdarray, y: FedNdarray, settings: Settings, say: Say) -> Curves:
    model, test = party(recipe.new)(settings.seed), party(mnist_test)()
    curves: Curves = {}
    for epoch in range(1, settings.epochs + 1):
        figures = sf.reveal(party(recipe.one_epoch)(model, x.partitions[party], y.partitions[party], test))
        for name, value in figures.items():
            curves.setdefault(name, []).append(value)
        text = " ".join(f"{name}:{figures[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
        say(f"epoch: {epoch}/{settings.epochs} - {text}")
    return curves
