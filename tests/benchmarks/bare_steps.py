# SPDX-License-Identifier: Apache-2.0
"""Training steps by hand, as somebody writes them who has only the framework: what federating is measured against.

A step takes a flat vector, trains the network on one batch from there, and returns the flat vector; loss and accuracy
are kept. Imports nothing of fedray.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from networks import conv_model, conv_module, share
from numpy.typing import NDArray


class Keras:
    """A hand-written `tf.function`: forward, backward, optimizer, and a flat vector in and out.

    Attributes:
        rows: How many rows there are.
        vector: float32[n], the weights as they were made.
    """

    def __init__(self, file: Path | str, part: int, parts: int, samples: int) -> None:
        os.environ["OMP_NUM_THREADS"], os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1", "2"
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        model = conv_model()
        variables, optimizer = model.trainable_variables, model.optimizer
        optimizer.build(variables)
        lossed = tf.keras.losses.CategoricalCrossentropy()
        kept = [tf.keras.metrics.Mean(), tf.keras.metrics.CategoricalAccuracy()]
        images, labels = share(file, part, parts, samples)
        x, y = tf.constant(images), tf.constant(labels)
        shapes = [tuple(variable.shape) for variable in variables]
        sizes = [int(np.prod(shape)) for shape in shapes]

        def train(picked: Any) -> None:
            batch, wanted = tf.gather(x, picked), tf.gather(y, picked)
            with tf.GradientTape() as tape:
                output = model(batch, training=True)
                loss = lossed(wanted, output)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            kept[0].update_state(loss, sample_weight=tf.shape(picked)[0])
            kept[1].update_state(wanted, output)

        def through(vector: Any, picked: Any) -> Any:
            for variable, piece, shape in zip(variables, tf.split(vector, sizes), shapes, strict=True):
                variable.assign(tf.reshape(piece, shape))
            train(picked)
            return tf.concat([tf.reshape(variable.value, [-1]) for variable in variables], 0)

        numbers = tf.TensorSpec([None], tf.int64)
        self._free = tf.function(train, autograph=False, input_signature=[numbers])
        flat = tf.TensorSpec([sum(sizes)], tf.float32)
        self._through = tf.function(through, autograph=False, input_signature=[flat, numbers])
        self.rows = len(images)
        self.vector: NDArray[np.float32] = np.concatenate([variable.numpy().ravel() for variable in variables])

    def free(self, picked: NDArray[np.int64]) -> None:
        """Trains on these rows, from where the step before has ended."""
        self._free(picked)

    def train(self, vector: NDArray[np.float32], picked: NDArray[np.int64]) -> NDArray[np.float32]:
        """Trains on these rows from a vector, and returns the new one."""
        trained: NDArray[np.float32] = self._through(vector, picked).numpy()
        return trained


class Torch:
    """The loop of PyTorch's own tutorials.

    Attributes:
        rows: How many rows there are.
        vector: float32[n], the weights as they were made.
    """

    def __init__(self, file: Path | str, part: int, parts: int, samples: int, *, compiled: bool = False) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        import torch

        torch.set_num_threads(1)
        self._torch, self._module = torch, conv_module()
        self._weights = list(self._module.parameters())
        self._forward = torch.compile(self._module) if compiled else self._module
        self._optimizer = torch.optim.Adam(self._weights)
        self._loss = torch.nn.CrossEntropyLoss()
        self._x, self._y = map(torch.from_numpy, share(file, part, parts, samples, channels=True))
        self._kept = [0.0, 0.0]
        self._module.train()
        self.rows = len(self._x)
        self.vector: NDArray[np.float32] = self._flat()

    def free(self, picked: NDArray[np.int64]) -> None:
        """Trains on these rows, from where the step before has ended."""
        rows = self._torch.from_numpy(picked)
        x, y = self._x.index_select(0, rows), self._y.index_select(0, rows)
        self._optimizer.zero_grad()
        output = self._forward(x)
        loss = self._loss(output, y)
        loss.backward()
        self._optimizer.step()
        self._kept[0] += float(loss.detach()) * len(rows)
        self._kept[1] += float((output.detach().argmax(1) == y.argmax(1)).sum())

    def train(self, vector: NDArray[np.float32], picked: NDArray[np.int64]) -> NDArray[np.float32]:
        """Trains on these rows from a vector, and returns the new one."""
        self._torch.nn.utils.vector_to_parameters(self._torch.from_numpy(vector), self._weights)
        self.free(picked)
        return self._flat()

    def _flat(self) -> NDArray[np.float32]:
        flat: NDArray[np.float32] = self._torch.nn.utils.parameters_to_vector(self._weights).detach().numpy()
        return flat
