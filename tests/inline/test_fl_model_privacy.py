# SPDX-License-Identifier: Apache-2.0
"""A plain update is never a stored object and never crosses from one party to another or to the driver.

A spy keeps what training left in each party (weights, change of weights, gradient), and every payload that travels;
then the one is looked for in the other, and in all that the objects of the server hold.
"""

import gc
import types

import numpy as np
import pytest
from inline.federated import by_hand, regression, softmax, weights_of, world
from inline.keras_models import X, Y

import fedray as sf
from fedray.backends.keras.model import KerasBackend
from fedray.backends.numpy.model import NumpyBackend
from fedray.party.door.egress import Egress, Kind
from fedray.party.rounds.server import RoundServer
from fedray.protocol.scales import first as reaches
from fedray.runtime import inline
from fedray.security.aggregation import PlainAggregator, SecureAggregator
from fedray.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("kernels_kept")


class Spy:
    """What was computed in secret, and what has travelled."""

    def __init__(self):
        self.secrets, self.travelled = [], []

    def keep(self, *vectors):
        self.secrets += [np.array(vector) for vector in vectors]

    def needles(self):
        """Bytes by which a vector would be recognised: eight numbers from its middle, in either precision."""
        for vector in self.secrets:
            middle = vector[len(vector) // 2 - 4 : len(vector) // 2 + 4]
            if np.count_nonzero(middle) == 8:
                yield from (middle.astype(kind).tobytes() for kind in (np.float32, np.float64))

    def found(self, payloads):
        """How many of the needles are in the payloads."""
        haystack = b"|".join(payloads)
        return sum(needle in haystack for needle in set(self.needles()))


@pytest.fixture
def spy(monkeypatch):
    spy = Spy()
    boxed = inline._Box.of.__func__

    def watch(backend):
        train, gradient = backend.train, backend.gradient

        def watched_train(self, start, *args, **kwargs):
            flat, *others = train(self, start, *args, **kwargs)
            spy.keep(flat, flat - start)
            return flat, *others

        def watched_gradient(self, *args):
            flat, rows = gradient(self, *args)
            spy.keep(flat)
            return flat, rows

        monkeypatch.setattr(backend, "train", watched_train)
        monkeypatch.setattr(backend, "gradient", watched_gradient)

    def watched_box(cls, value):
        box = boxed(cls, value)
        spy.travelled += [box.head, *box.buffers]
        return box

    for backend in (KerasBackend, NumpyBackend):
        watch(backend)
    monkeypatch.setattr(inline._Box, "of", classmethod(watched_box))
    return spy


def arrays_within(roots):
    """Every array and byte string that the objects hold, however deep; other parties and code are not entered."""
    stop = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType, inline._Side)
    seen, todo, found = set(), list(roots), []
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, stop):
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            found.append(item.tobytes())
        elif isinstance(item, bytes | bytearray):
            found.append(bytes(item))
        else:
            todo += gc.get_referents(item)
    return found


def combiners():
    return [item for item in gc.get_objects() if isinstance(item, RoundServer)]


@pytest.mark.parametrize(
    ("strategy", "backend"),
    [
        # What travels and when is that of fed_avg_w for all that train in the party.
        *(
            pytest.param(strategy, "numpy", marks=[pytest.mark.slow] * (strategy in ("fed_avg_u", "fed_prox")))
            for strategy in sorted(STRATEGIES)
        ),
        ("fed_avg_w", "tensorflow"),
        pytest.param("fed_avg_g", "tensorflow", marks=pytest.mark.slow),
    ],
)
def test_no_update_is_anywhere_but_in_its_party(start, spy, strategy, backend, tmp_path):
    fed = world(start, rows=(20, 20, 20), backend=backend)
    builder, suffix = (softmax("adam"), "keras") if backend == "tensorflow" else (regression(momentum=0.9), "npz")
    model = fed.model(builder, strategy=strategy)
    at_the_server = []

    import keras

    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_: at_the_server.extend(arrays_within(combiners()))
    )
    model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), batch_size=5, aggregate_freq=2, verbose=0, callbacks=[look])
    model.evaluate(fed.x, fed.y, verbose=0)
    model.predict(fed.x)
    final = np.concatenate([np.ravel(w) for w in weights_of(model)])
    saved = tmp_path / f"model.{suffix}"
    model.save(saved)
    assert len(spy.secrets) >= 6
    assert spy.found(spy.travelled) == 0
    assert spy.found([saved.read_bytes()]) == 0
    assert len(at_the_server) > 10
    assert spy.found(at_the_server + arrays_within(combiners())) == 0
    spy.secrets = [final]
    assert spy.found(spy.travelled) > 0, "the spy sees what does travel: the global weights"


def test_the_spy_would_see_an_update_that_travels(start, spy):
    fed = world(start, rows=(20, 20, 20), backend="numpy")
    fed.model().fit(fed.x, fed.y, batch_size=10, verbose=0)
    assert spy.found(spy.travelled) == 0
    inline._Box.of({"reply": [spy.secrets[0].astype(np.float64)]})
    assert spy.found(spy.travelled) == 1


def test_masked_words_are_not_the_encoded_update_and_plain_ones_are(start, spy):
    """Under the plain aggregator the server holds each party's encoded update; masked, nobody does."""
    fed = world(start, rows=(20, 20, 20), backend="numpy")
    words = {}
    for kind in (PlainAggregator, SecureAggregator):
        spy.travelled.clear()
        model = fed.model(aggregator=kind(fed.server, fed.devices), random_seed=3)
        first = weights_of(model)
        model.fit(fed.x, fed.y, batch_size=20, shuffle=False, verbose=0)
        flats = [np.concatenate([np.ravel(w) for w in by_hand(first, [part], batch_size=20)]) for part in fed.parts]
        # The bias begins at zero, so that all words of a first round have one step, and the largest one is 2^57 here.
        (reach,) = set(reaches([np.abs(array).max() for array in first]))
        coded = [np.rint(np.ldexp(flat, 57 - reach)).astype("<i8") for flat in flats]
        payload = b"|".join(spy.travelled)
        # The hand's float64 differs from float32 in the low bits: compare the high half of each word.
        words[kind] = sum(_holds(payload, code) for code in coded)
    assert words == {PlainAggregator: 3, SecureAggregator: 0}


def initial_vectors(monkeypatch):
    """Returns the list in which every vector is kept that leaves a party as `initial`."""
    kept, send = [], Egress.send

    def watched(door, value, *, to, kind, call, commitment=None):
        if kind is Kind.INITIAL:
            kept.append(np.array(value.weights))
        return send(door, value, to=to, kind=kind, call=call, commitment=commitment)

    monkeypatch.setattr(Egress, "send", watched)
    return kept


def test_initial_weights_do_not_depend_on_data(start, monkeypatch):
    """Other rows, other labels, other sizes: the same seed's first vector is the same, bit by bit."""
    kept = initial_vectors(monkeypatch)
    noise = np.random.default_rng(1)
    for x, y in ((X, Y), (1e3 * noise.normal(size=X.shape).astype(X.dtype), np.roll(Y, 1, axis=1)), (X[:9], Y[:9])):
        fed = world(start, rows=(len(x) // 3,) * 3, x=x, y=y)
        fed.model(softmax("adam")).fit(fed.x, fed.y, batch_size=20, verbose=0)
        sf.shutdown()
    assert len(kept) == 3
    assert np.array_equal(kept[0], kept[1])
    assert np.array_equal(kept[0], kept[2])


def test_a_builder_that_looks_at_data_would_be_seen(start, monkeypatch):
    """What SECURITY.md asks you not to do: statistics of rows inside the builder leave with the first weights."""

    def adapted(rows):
        def builder():
            model = softmax()()
            model.set_weights([model.get_weights()[0], rows.mean(axis=0)[:3]])
            return model

        return builder

    kept = initial_vectors(monkeypatch)
    for x in (X, X + 1):
        fed = world(start, x=x)
        fed.model(adapted(x)).fit(fed.x, fed.y, batch_size=30, verbose=0)
        sf.shutdown()
    assert not np.array_equal(*kept)


def test_only_what_the_builder_made_leaves_as_initial(start, monkeypatch, tmp_path):
    kept = initial_vectors(monkeypatch)
    fed = world(start)
    model = fed.model()
    first = np.concatenate([np.ravel(weight) for weight in weights_of(model)])
    for _ in range(3):
        model.fit(fed.x, fed.y, batch_size=15, verbose=0)
        model.save(tmp_path / "model.keras")
        model.load(tmp_path / "model.keras")
    model.evaluate(fed.x, fed.y, verbose=0)
    assert [np.array_equal(vector, first) for vector in kept] == [True]
    republished = [row.entry for row in sf.ledger().rows if row.entry.call == "publish the model"]
    assert [entry.kind for entry in republished] == ["initial", *["aggregate"] * 3]


def _holds(payload, code):
    """Whether consecutive 8-byte words close to the code's are in the payload, at any offset."""
    for offset in range(8):
        usable = (len(payload) - offset) // 8 * 8
        words = np.frombuffer(payload, "<i8", usable // 8, offset)
        for place in np.flatnonzero(np.abs(words - code[0]) < 2**27):
            if np.all(np.abs(words[place : place + len(code)] - code) < 2**27):
                return True
    return False
