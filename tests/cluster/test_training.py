# SPDX-License-Identifier: Apache-2.0
"""Training on Ray: bit-equal to training inline, and a party whose process is killed is named within seconds."""

import os
import signal
import sys
import threading
import time

import pytest
from inline.federated import as_bytes, world
from inline.keras_models import CLASS

import fedray as sf
from fedray.errors import PartyLost
from fedray.ml.nn.numpy import SoftmaxRegression


def bumpy(eager):
    """BatchNorm and dropout; the builder is nested so that it travels with its code."""

    def builder():
        import keras
        from keras import layers

        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
        )
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, optimizer="adam", metrics=["accuracy"], run_eagerly=eager)
        return model

    return builder


@pytest.fixture
def lasting_start(lasting):
    """Returns what stands for `init` where a test is content with the session that lasts."""
    yield lambda *_, **__: lasting.resume()
    lasting.pause()


def trained(start, address, tmp_path, eager):
    fed = world(start, rows=(21, 15), address=address, server="charlie")
    model = fed.model(bumpy(eager))
    history = model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), epochs=2, batch_size=8, verbose=0)
    overall, local = model.evaluate(fed.x, fed.y, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    before = as_bytes(model)
    model.load(path)
    assert as_bytes(model) == before
    predictions = {device.name: value.tobytes() for device, value in sf.reveal(model.predict(fed.x)).items()}
    return before, history.history, history.local_history, overall, local, predictions


@pytest.mark.slow
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
def test_a_run_on_ray_is_bit_equal_to_one_inline(start, lasting_start, tmp_path, eager):
    """With Keras. Without it, the test below; that it trains at all: `tests/contracts/test_code_source.py`."""
    inline = trained(start, "inline", tmp_path, eager)
    assert trained(lasting_start, "auto", tmp_path, eager) == inline


def numbers(fed, model):
    """Trains, and returns all that came out to the last bit."""
    history = model.fit(fed.x, fed.y, epochs=2, batch_size=8, verbose=0)
    predictions = [value.tobytes() for value in sf.reveal(model.predict(fed.x)).values()]
    return history.history, predictions, model.global_model().kernel.tobytes()


def test_the_numpy_backend_imports_no_framework_equals_inline_and_loses_a_party_killed_in_the_middle(start, cluster):
    import keras

    def begin(address):
        fed = world(start, rows=(200, 200), y=CLASS, address=address)
        return fed, fed.model(lambda: SoftmaxRegression(4, 3, learning_rate=0.1, momentum=0.9), backend="numpy")

    inline = numbers(*begin("inline"))
    sf.shutdown()
    fed, model = begin(cluster)
    assert numbers(fed, model) == inline
    assert sf.reveal([device(lambda: "tensorflow" in sys.modules)() for device in fed.devices]) == [False, False]

    bob = sf.reveal(fed.devices[1](os.getpid)())
    killed = []

    def kill():
        killed.append(time.monotonic())
        os.kill(bob, signal.SIGKILL)

    def begin_epoch(epoch, _logs):
        if epoch == 1:
            threading.Timer(0.1, kill).start()

    happening = keras.callbacks.LambdaCallback(on_epoch_begin=begin_epoch)
    with pytest.raises(PartyLost, match=r"'bob'.*round") as caught:
        model.fit(fed.x, fed.y, batch_size=1, epochs=100, verbose=0, callbacks=[happening])
    assert time.monotonic() - killed[0] < 60, "a round is given five minutes"
    assert caught.value.party == "bob"
    with pytest.raises(PartyLost, match="bob"):
        model.evaluate(fed.x, fed.y, verbose=0)


def test_an_interrupt_on_ray(lasting_start):
    """Whatever became of the session before, this one trains on the same cluster."""
    import keras

    fed = world(lasting_start, rows=(1000, 1000), server="charlie", backend="numpy")
    model = fed.model()
    sent, ended = [], threading.Event()

    def interrupt():
        """Presses again where Python lost the first press in a finalizer, which no exception leaves."""
        while not ended.wait(10 if sent else 0):  # time enough to end for a press that was heard
            sent.append(time.monotonic())
            signal.raise_signal(signal.SIGINT)

    def begin(epoch, _logs):
        if epoch == 0:
            threading.Timer(0.2, interrupt).start()

    happening = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
    with pytest.raises(KeyboardInterrupt):
        model.fit(fed.x, fed.y, batch_size=1, epochs=100, verbose=0, callbacks=[happening])
    ended.set()
    assert time.monotonic() - sent[0] < 60
    assert len(model.fit(fed.x, fed.y, batch_size=500, verbose=0).epoch) == 1
