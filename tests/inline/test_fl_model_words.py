# SPDX-License-Identifier: Apache-2.0
"""What users of Keras and PyTorch type on a model: it does what they mean, or says by name what does."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline.federated import as_bytes, world

import fedray as sf
from fedray.errors import PlanError
from fedray.ml.nn.callbacks import USED_HOOKS
from fedray.ml.nn.progress import EpochBar
from fedray.ml.nn.words import REFUSED_ARGUMENTS, REFUSED_WORDS
from fedray.rounds import sum_session


@pytest.fixture
def fed(start):
    return world(start, backend="numpy")


def callback(**hooks: Any) -> Any:
    """A callback of the user's own: hooks that do nothing but for these."""

    def nothing(self: Any, *args: Any) -> None:
        del self, args

    nothing._is_default = True
    return type("Own", (), dict.fromkeys(USED_HOOKS, nothing) | hooks)()


def test_evaluate_returns_numbers_by_name(fed):
    model = fed.model()
    model.fit(fed.x, fed.y, verbose=0)
    overall, own = model.evaluate(fed.x, fed.y, verbose=0)
    by_name, own_by_name = model.evaluate(fed.x, fed.y, verbose=0, return_dict=True)
    assert by_name == {metric.name: metric.result() for metric in overall}
    assert own_by_name == {party: {one.name: one.result() for one in own[party]} for party in own}
    assert set(own_by_name) == {"alice", "bob"}
    with pytest.raises(PlanError, match="return_dict: expected True or False, found 'no'"):
        model.evaluate(fed.x, fed.y, verbose=0, return_dict="no")


def test_weights_are_read_set_counted_and_saved(fed, tmp_path):
    model, other = fed.model(), fed.model(random_seed=9)
    model.fit(fed.x, fed.y, verbose=0)
    kernel, bias = model.get_weights()
    assert (kernel.shape, bias.shape, model.count_params()) == ((4, 3), (3,), 15)
    other.set_weights([kernel, bias])
    assert as_bytes(other) == as_bytes(model)
    model.save_weights(tmp_path / "w.npz")
    fresh = fed.model(random_seed=10)
    fresh.load(tmp_path / "w.npz")
    assert as_bytes(fresh) == as_bytes(model)


def test_a_summary_is_printed_and_nothing_leaves_a_party_for_it(fed, capsys):
    model = fed.model()
    capsys.readouterr()
    before = len(sf.ledger().pages["alice"].entries)
    state = np.random.get_state()[1].tolist()
    model.summary()
    assert np.random.get_state()[1].tolist() == state
    assert len(sf.ledger().pages["alice"].entries) == before + 1, "the record of having read the record, and no more"
    text = capsys.readouterr().out
    assert "SoftmaxRegression(features=4" in text
    assert "parameters: 15" in text
    lines = []
    model.summary(print_fn=lines.append)
    assert "\n".join(lines) == text.strip()


def test_the_history_is_that_of_the_last_fit_also_where_it_was_interrupted(fed):
    model = fed.model()
    assert model.history is None
    returned = model.fit(fed.x, fed.y, epochs=2, verbose=0)
    assert model.history is returned

    def stop(self, epoch, logs):
        del self, logs
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(fed.x, fed.y, epochs=5, verbose=0, callbacks=callback(on_epoch_begin=stop))
    assert model.history.epoch == [0, 1]
    assert len(model.history.history["loss"]) == 2
    assert model.fit(fed.x, fed.y, verbose=0) is model.history


def test_validation_split_holds_back_the_last_rows_of_each_party(fed):
    split, given = fed.model(), fed.model()
    history = split.fit(fed.x, fed.y, validation_split=0.2, epochs=2, verbose=0)
    places = np.r_[0:24, 30:54]
    kept, held = places, np.setdiff1d(np.arange(60), places)
    rows = {
        name: fed.__class__(
            fed.devices,
            fed.server,
            [(x[:24], y[:24]) if name == "kept" else (x[24:], y[24:]) for x, y in fed.parts],
            fed.x,
            fed.y,
            fed.backend,
        )
        for name in ("kept", "held")
    }
    x, y = np.concatenate([x for x, _ in fed.parts]), np.concatenate([y.argmax(axis=1) for _, y in fed.parts])
    train = rows["kept"].spread(x[kept]), rows["kept"].spread(y[kept])
    validation = rows["held"].spread(x[held]), rows["held"].spread(y[held])
    expected = given.fit(*train, validation_data=validation, epochs=2, verbose=0)
    assert history.history == expected.history
    assert as_bytes(split) == as_bytes(given)


@pytest.mark.parametrize("share", [1, 1.5, -0.2, True, "a"])
def test_a_share_that_is_none(fed, share):
    with pytest.raises(PlanError, match="validation_split: expected a number between 0 and 1"):
        fed.model().fit(fed.x, fed.y, validation_split=share, verbose=0)


def test_a_share_beside_validation_data(fed):
    with pytest.raises(PlanError, match="validation_split: validation_data is given as well"):
        fed.model().fit(fed.x, fed.y, validation_split=0.2, validation_data=(fed.x, fed.y), verbose=0)


def test_a_trial_run_takes_the_first_rows_of_each_party_and_says_so(fed, capsys):
    trial, given = fed.model(), fed.model()
    weight = fed.spread(np.linspace(1, 2, 60))
    history = trial.fit(
        fed.x, fed.y, batch_size=4, sample_weight=weight, validation_data=(fed.x, fed.y), first=8, verbose=2
    )
    assert "first=8: a trial run on the first 8 rows of each party" in capsys.readouterr().out
    assert any("first=8" in notice for notice in history.notices)
    few = fed.x.head(8), fed.y.head(8)
    expected = given.fit(*few, batch_size=4, sample_weight=weight.head(8), validation_data=few, verbose=0)
    assert history.params["steps"] == 2
    assert history.history == expected.history
    with pytest.raises(PlanError, match="first"):
        trial.fit(fed.x, fed.y, first=0, verbose=0)


def test_arguments_have_keras_s_places(fed):
    by_place, by_name = fed.model(), fed.model()
    by_place.fit(fed.x, fed.y, 10, 2, 0)
    by_name.fit(fed.x, fed.y, batch_size=10, epochs=2, verbose=0)
    assert as_bytes(by_place) == as_bytes(by_name)
    assert by_place.evaluate(fed.x, fed.y, 10, 0) == by_name.evaluate(fed.x, fed.y, batch_size=10, verbose=0)
    assert sf.reveal(by_place.predict(fed.x, 10, 0)).keys() == set(fed.devices)


def test_what_keras_has_and_fedray_has_not_is_refused_by_name(fed):
    model = fed.model()
    for name, instead in REFUSED_ARGUMENTS.items():
        with pytest.raises(PlanError, match=f"fit: {name} is not supported") as told:
            model.fit(fed.x, fed.y, **{name: 1})
        assert str(told.value).endswith(instead)
    for method in (model.evaluate, model.predict):
        with pytest.raises(PlanError, match="steps is not supported: all rows are taken"):
            method(fed.x, steps=3)
        with pytest.raises(PlanError, match="callbacks is not supported: callbacks run in fit"):
            method(fed.x, callbacks=[])
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        model.fit(fed.x, fed.y, epoch=3)


def test_words_of_keras_and_pytorch_are_refused_by_name(fed):
    model = fed.model()
    for name, instead in REFUSED_WORDS.items():
        with pytest.raises(AttributeError, match=f"an FLModel has no '{name}'") as told:
            getattr(model, name)
        assert instead in str(told.value)
        assert not hasattr(model, name)
    with pytest.raises(AttributeError, match=r"no 'evalute'; is 'evaluate' meant\?"):
        model.evalute  # noqa: B018
    with pytest.raises(PlanError, match="state_dict is PyTorch's, and this model has backend='numpy'"):
        model.state_dict()


class TensorSliceDataset:
    """Looks like one of tf.data's."""


TensorSliceDataset.__mro__[0].__name__ = "DatasetV2"


def test_rows_in_another_form_are_refused_with_the_way_to_load_them(fed):
    model = fed.model()
    feeders = "hands out the batches of one process"
    for value, says in {
        TensorSliceDataset(): feeders,
        (batch for batch in ()): feeders,
        "rows": "make one with",
    }.items():
        with pytest.raises(PlanError, match=f"x: expected a FedNdarray.*{says}"):
            model.fit(value)
    with pytest.raises(PlanError, match=r"x: expected a FedNdarray, found ndarray; these rows are at the driver"):
        model.predict(np.zeros((3, 4)))
    with pytest.raises(PlanError, match=r"y: expected a FedNdarray, found ndarray; these rows are at the driver"):
        model.fit(fed.x, np.zeros(60))
    with pytest.raises(PlanError, match=r"x: expected a FedNdarray, found PYUObject; it is one party's"):
        model.predict(fed.x.partitions[fed.devices[0]])
    with pytest.raises(PlanError, match="y: expected labels, a FedNdarray, found None"):
        model.fit(fed.x)


def test_a_model_that_takes_long_to_build_says_who_is_waited_for(fed, tmp_path, monkeypatch):
    """The builder ends when it was said, so that the test waits for nothing else."""
    said = str(tmp_path / "said")

    def builder():
        import time
        from pathlib import Path

        from fedray.ml.nn.numpy import SoftmaxRegression

        until = time.monotonic() + 60
        while not Path(said).exists() and time.monotonic() < until:
            time.sleep(0.01)
        return SoftmaxRegression(4, 3, learning_rate=0.1)

    texts = []

    class Heard(logging.Handler):
        def emit(self, record):
            texts.append(record.getMessage())
            Path(said).touch()

    handler = Heard()
    monkeypatch.setattr(sum_session, "PATIENCE_SECONDS", 0.0)
    logging.getLogger("fedray").addHandler(handler)
    try:
        fed.model(builder)
    finally:
        logging.getLogger("fedray").removeHandler(handler)
    assert texts[0].startswith("waiting for alice, bob to build the model")


def test_a_callback_for_every_round_lets_the_bar_show_the_loss_so_far(fed, monkeypatch):
    shown = []

    def running(self, logs):
        del self
        shown.append(logs["loss"])

    def look(self, batch, logs):
        del self, batch, logs

    # What it is told, and not what it draws: it draws ten times a second at most.
    monkeypatch.setattr(EpochBar, "running", running)
    fed.model().fit(fed.x, fed.y, batch_size=10, callbacks=callback(on_train_batch_end=look))
    assert [np.isfinite(loss) for loss in shown] == [True, True], "the whole epoch's is in the line of figures"
    fed.model().fit(fed.x, fed.y, batch_size=10)
    assert len(shown) == 2
