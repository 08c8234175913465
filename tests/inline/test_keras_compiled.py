# SPDX-License-Identifier: Apache-2.0
"""What a model's compile() says of how it runs, by XLA or eagerly, is what its backend does."""

import numpy as np
import pytest
from inline.keras_models import batches, dense, ready

pytestmark = pytest.mark.usefixtures("kernels_kept")


def test_xla_is_used_where_the_user_asks_for_it_and_only_there():
    backend, data = ready(dense(metrics=()))
    compiled, same = ready(dense(metrics=(), jit_compile=True))
    start = backend.weights()
    plain, *_ = backend.train(start, data, batches(30, 30))
    xla, *_ = compiled.train(start, same, batches(30, 30))
    np.testing.assert_allclose(xla, plain, rtol=1e-4, atol=1e-6)
    for one, wanted in ((backend, False), (compiled, True)):
        graphs = [function.graph.as_graph_def() for function in one._traces._traced.values()]
        library = [node for graph in graphs for node in graph.library.function]
        assert any(node.attr["_XlaMustCompile"].b for node in library) is wanted


def test_a_model_compiled_to_run_eagerly_does():
    eager = []

    def builder():
        import keras
        import tensorflow as tf

        class Watching(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(3)

            def call(self, x):
                eager.append(tf.executing_eagerly())
                return self.dense(x)

        model = Watching()
        model.compile(loss="mse", optimizer="sgd", run_eagerly=True)
        return model

    backend, data = ready(builder)
    backend.train(backend.weights(), data, batches(10, 10))
    assert eager[-2:] == [True, True]
