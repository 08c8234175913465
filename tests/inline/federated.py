# SPDX-License-Identifier: Apache-2.0
"""A small federated world for the tests of `FLModel`: parties with a few rows each, and the same training by hand.

Its model is softmax regression, of the NumPy backend or of Keras: whatever is not about a framework is tested on the
former, in a tenth of the time.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from inline.keras_models import X, Y

import fedray as sf
from fedray.data.ndarray import FedNdarray, load
from fedray.device import PYU
from fedray.ml.nn import FLModel
from fedray.ml.nn.plan import plan_fit

PARTIES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
RATE = 0.5


@dataclass
class World:
    """Parties, their server, and the rows they hold.

    With the NumPy backend `y` holds class numbers; in `parts` labels are one-hot all the same.
    """

    devices: list[PYU]
    server: PYU
    parts: list[tuple[np.ndarray, np.ndarray]]
    x: FedNdarray
    y: FedNdarray
    backend: str

    def model(self, builder=None, **arguments) -> FLModel:
        builder = builder or (softmax() if self.backend == "tensorflow" else regression())
        arguments = {"backend": self.backend} | arguments
        return FLModel(server=self.server, device_list=self.devices, model=builder, **arguments)

    def spread(self, values) -> FedNdarray:
        """Returns an array dealt like the rows."""
        ends = np.cumsum([len(x) for x, _ in self.parts])[:-1]
        return load(dict(zip(self.devices, np.split(np.asarray(values), ends), strict=True)))


def world(start, rows=(30, 30), address="inline", x=X, y=Y, backend="tensorflow", server="server", **settings) -> World:
    """Starts a session in which party k holds `rows[k]` rows; the parties beside the server take rows in file order."""
    names = PARTIES[: len(rows)]
    start(address, (*names, server), **({"seed": 3} | settings))
    devices = [sf.PYU(name) for name in names]
    places = np.cumsum([0, *rows])
    index = [np.arange(a, b) % len(x) for a, b in pairwise(places)]
    parts = [(x[i], y[i]) for i in index]
    xs = load({d: part[0] for d, part in zip(devices, parts, strict=True)})
    labels = [part[1].argmax(axis=1) if backend == "numpy" and y.ndim == 2 else part[1] for part in parts]
    ys = load(dict(zip(devices, labels, strict=True)))
    return World(devices, sf.PYU(server), parts, xs, ys, backend)


def regression(rate=RATE, momentum=0.0):
    """The softmax model for the NumPy backend."""

    def builder():
        from fedray.ml.nn.numpy import SoftmaxRegression

        return SoftmaxRegression(4, 3, learning_rate=rate, momentum=momentum)

    return builder


def softmax(optimizer="sgd", metrics=("accuracy",), rate=RATE, run_eagerly=True):
    """The same for Keras: one dense layer, 4 -> 3, a model whose gradient fits on a line of NumPy.

    Eager by default: for the few batches of a test, tracing costs more than it saves.
    """

    def builder():
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        made = keras.optimizers.get({"class_name": optimizer, "config": {"learning_rate": rate}})
        model.compile(loss="categorical_crossentropy", optimizer=made, metrics=list(metrics), run_eagerly=run_eagerly)
        return model

    return builder


def gradient(weights, x, y):
    """The mean gradient of the softmax model's loss, [kernel, bias], float64."""
    kernel, bias = weights
    z = x @ kernel + bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    error = (p / p.sum(axis=1, keepdims=True) - y) / len(x)
    return [x.T @ error, error.sum(axis=0)]


def by_hand(weights, parts, *, strategy="fed_avg_w", mu=0.0, rate=RATE, seed=3, **planned):
    """Trains the softmax model with plain SGD in float64, round by round, as the papers say."""
    names = PARTIES[: len(parts)]
    plan = plan_fit({name: len(x) for name, (x, _) in zip(names, parts, strict=True)}, seed=seed, alone=True, **planned)
    center = [np.asarray(w, np.float64) for w in weights]
    for segment in plan:
        dealt = [plan.sampling.deal(n, len(x), segment.epoch) for n, (x, _) in zip(names, parts, strict=True)]
        for one in segment.rounds:
            sums, total = [np.zeros_like(w) for w in center], 0
            for (x, y), steps in zip(parts, dealt, strict=True):
                batches = [batch.rows for step in steps[one.start : one.stop] for batch in step]
                count = sum(map(len, batches))
                if not count:
                    continue
                local = [w.copy() for w in center]
                for batch in [np.concatenate(batches)] if strategy == "fed_avg_g" else batches:
                    grads = gradient(local, x[batch], y[batch])
                    pulls = [mu * (w - c) for w, c in zip(local, center, strict=True)]
                    local = [w - rate * (g + p) for w, g, p in zip(local, grads, pulls, strict=True)]
                sums, total = [s + count * w for s, w in zip(sums, local, strict=True)], total + count
            center = [s / total for s in sums]
    return center


def weights_of(model: FLModel):
    """The global weights, in the framework's order."""
    trained = model.global_model()
    return trained.get_weights() if hasattr(trained, "get_weights") else [trained.kernel, trained.bias]


def as_bytes(model: FLModel) -> bytes:
    """All global weights, bit by bit."""
    return b"".join(array.tobytes() for array in weights_of(model))
