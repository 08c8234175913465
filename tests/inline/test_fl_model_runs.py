# SPDX-License-Identifier: Apache-2.0
"""Runs as a whole: with one seed they are bit-equal; an interrupt or a lost party leaves something usable.

What is random in a run is Keras's: initial weights and dropout. Everything else here is the NumPy backend's.
"""

import signal
import threading
import time
from pathlib import Path

import pytest
from inline.federated import as_bytes, world
from inline.keras_models import noisy

import fedray as sf
from fedray.errors import PartyLost
from fedray.runtime.session import current

pytestmark = pytest.mark.usefixtures("kernels_kept")


def run(start, session=7, fit=None):
    fed = world(start, rows=(14, 10), seed=session)
    made = fed.model(lambda: noisy(run_eagerly=True))
    history = made.fit(fed.x, fed.y, epochs=2, batch_size=7, verbose=0, random_seed=fit)
    final = as_bytes(made), history.history
    sf.shutdown()
    return final


def test_two_runs_with_one_seed_are_bit_equal(start):
    first, again, other = run(start), run(start), run(start, session=8)
    assert first == again
    assert first[0] != other[0]


def test_the_seed_of_fit_is_enough(start):
    """The session's own seed is drawn anew each time: the first fit's seed decides all that is random."""
    one, two = (run(start, session=None, fit=0) for _ in range(2))
    assert one == two


def test_a_seed_of_the_model_outranks_that_of_fit_for_its_weights(start):
    fed = world(start, backend="numpy")
    seeded, open_ = fed.model(random_seed=1), fed.model()
    seeded_first, open_first = as_bytes(fed.model(random_seed=1)), as_bytes(fed.model())
    for model in (seeded, open_):
        model.fit(fed.x, fed.y, batch_size=30, random_seed=5, verbose=0)
    again = fed.model(random_seed=5)
    again.fit(fed.x, fed.y, batch_size=30, random_seed=5, verbose=0)
    assert as_bytes(open_) == as_bytes(again)
    assert as_bytes(seeded) != as_bytes(again)
    assert seeded_first != open_first


def test_what_was_asked_for_is_not_thrown_away_for_a_seed(start):
    fed = world(start, backend="numpy")
    looked, fresh = fed.model(), fed.model(random_seed=3)
    before = as_bytes(looked)
    looked.fit(fed.x, fed.y, batch_size=30, random_seed=5, verbose=0)
    assert before == as_bytes(fresh)
    fresh.fit(fed.x, fed.y, batch_size=30, random_seed=5, verbose=0)
    assert as_bytes(looked) == as_bytes(fresh)


class Pause:
    """A moment of a run at which something happens: all parties stand amid a batch of an epoch's first round."""

    def __init__(self, folder):
        self._hold = str(folder / "hold")
        self.happened = None

    def model(self):
        """Returns what builds a softmax model that stands still in a batch as long as the pause lasts."""
        hold = self._hold

        def builder():
            import os
            import time

            from fedray.ml.nn.numpy import SoftmaxRegression

            class Pausing(SoftmaxRegression):
                def errors(self, predictions, y):
                    if os.path.exists(hold):
                        with open(f"{hold}.reached", "w"):
                            pass
                        for _ in range(6000):
                            if not os.path.exists(hold):
                                break
                            time.sleep(0.01)
                    return super().errors(predictions, y)

            return Pausing(4, 3, learning_rate=0.5)

        return builder

    def in_epoch(self, number, act, *args):
        """Returns a callback that lets something happen in an epoch's first round, from another thread."""
        import keras

        def happen():
            while not Path(f"{self._hold}.reached").exists():
                time.sleep(0.005)
            self.happened = time.monotonic()
            act(*args)
            Path(self._hold).unlink()

        def begin(epoch, _logs):
            if epoch == number:
                Path(self._hold).touch()
                threading.Thread(target=happen).start()

        return keras.callbacks.LambdaCallback(on_epoch_begin=begin)

    def is_soon(self):
        """Whether it happened a moment ago: nobody has waited out the five minutes that a round is given."""
        return time.monotonic() - self.happened < 30


@pytest.fixture
def pause(tmp_path):
    return Pause(tmp_path)


def test_an_interrupt_ends_in_seconds_and_leaves_a_usable_model(start, pause, capsys):
    fed = world(start, backend="numpy")
    model = fed.model(pause.model())
    model.fit(fed.x, fed.y, batch_size=30, verbose=0)
    before = as_bytes(model)
    happening = pause.in_epoch(1, signal.raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.fit(fed.x, fed.y, batch_size=1, epochs=50, verbose=1, callbacks=[happening])
    assert pause.is_soon()
    assert capsys.readouterr().out.endswith("\n"), "the bar's line has ended"
    after = as_bytes(model)
    assert after != before, "rounds before the interrupt count"
    overall, local = model.evaluate(fed.x, fed.y, verbose=0)
    assert overall[0].count == 60
    assert len(local) == 2
    assert len(model.fit(fed.x, fed.y, batch_size=15, verbose=0).epoch) == 1


def test_a_lost_party_of_two_ends_the_run_with_its_name_and_the_round(start, pause):
    fed = world(start, backend="numpy")
    model = fed.model(pause.model())
    happening = pause.in_epoch(1, current().transport.lose, "bob")
    with pytest.raises(PartyLost, match=r"party 'bob' has ended.*round") as caught:
        model.fit(fed.x, fed.y, batch_size=1, epochs=50, verbose=0, callbacks=[happening])
    assert caught.value.party == "bob"
    assert pause.is_soon()
    with pytest.raises(PartyLost, match="bob"):
        model.evaluate(fed.x, fed.y, verbose=0)
    sf.shutdown()
    again = world(start, backend="numpy")
    assert again.model().fit(again.x, again.y, batch_size=15, verbose=0).epoch == [0]


def test_four_parties_go_on_without_one_that_is_lost(start, pause, capsys):
    fed = world(start, rows=(15, 15, 15, 15), backend="numpy")
    model = fed.model(pause.model())
    happening = pause.in_epoch(1, current().transport.lose, "carol")
    history = model.fit(fed.x, fed.y, batch_size=2, epochs=4, verbose=2, callbacks=[happening])
    assert history.epoch == [0, 1, 2, 3]
    assert {(dropout.party, dropout.epoch) for dropout in history.dropouts} == {("carol", 1)}
    assert len(history.local_history["alice"]["loss"]) == 4
    assert "carol dropped out of round" in capsys.readouterr().out


def test_a_lost_server_ends_the_run(start, pause):
    fed = world(start, backend="numpy")
    model = fed.model(pause.model())
    happening = pause.in_epoch(1, current().transport.lose, "server")
    with pytest.raises(PartyLost) as caught:
        model.fit(fed.x, fed.y, batch_size=1, epochs=50, verbose=0, callbacks=[happening])
    assert caught.value.party == "server"


def test_an_interrupt_between_rounds_asked_for_by_a_callback(start):
    import keras

    fed = world(start, backend="numpy")
    model = fed.model()

    class Impatient(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(fed.x, fed.y, batch_size=10, callbacks=[Impatient()], verbose=0)
    model.fit(fed.x, fed.y, batch_size=10, verbose=0)
