# SPDX-License-Identifier: Apache-2.0
"""Functions of which only the driver has the source, on every transport: tracebacks, `inspect`, lambdas in a model."""

import inspect
import linecache
import warnings

import numpy as np
import pytest
from inline.federated import world

import fedray as sf
from fedray.errors import PartyError

CELL = """
import keras

def divide(a, b):
    return a / b  # in the cell

def outer(k):
    def inner(x):
        return x + k
    return inner

chosen = dict(
    first=lambda x: x + 1,
    second=lambda x: (
        x + 2
    ),
)

class Counter:
    def __init__(self, start):
        self.count = start

    def fail(self):
        raise ValueError(self.count)  # in the class

def builder():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x), keras.layers.Dense(3, activation=lambda x: x)]
    )
    model.compile(
        loss=lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1),
        optimizer=keras.optimizers.SGD(0.01),
        metrics=[lambda y, p: keras.ops.mean(y * p, axis=-1)],
    )
    return model
"""


@pytest.fixture(scope="module")
def fed(shared_start):
    return world(shared_start, server="charlie")


@pytest.fixture
def alice(fed):
    return fed.devices[0]


@pytest.fixture(scope="module")
def cell():
    """Returns the names of a notebook's cell: it has no file, and its lines are known in this process alone."""
    name = "/nowhere/ipykernel_1/2.py"
    linecache.cache[name] = len(CELL), None, CELL.splitlines(keepends=True), name
    names = {"__name__": "__main__"}
    exec(compile(CELL, name, "exec"), names)
    return names


def test_a_traceback_shows_the_line_of_a_cell(alice, cell):
    with pytest.raises(PartyError) as caught:
        sf.reveal(alice(cell["divide"])(1, 0))
    assert 'File "/nowhere/ipykernel_1/2.py", line 5, in divide' in caught.value.remote_traceback
    assert "return a / b  # in the cell" in caught.value.remote_traceback


def test_a_traceback_shows_the_line_of_a_method(alice, cell):
    counter = sf.proxy(cell["Counter"])(3, device=alice)
    with pytest.raises(PartyError) as caught:
        sf.reveal(counter.fail())
    assert "raise ValueError(self.count)  # in the class" in caught.value.remote_traceback


@pytest.mark.parametrize("where", ["cell", "here"])
def test_code_in_a_party_has_its_source(alice, cell, where):
    def divide(a, b):
        return a / b

    def outer(k):
        def inner(x):
            return x + k

        return inner

    class Counter:
        def fail(self):
            raise ValueError

    chosen = {
        "first": lambda x: x + 1,
        "second": lambda x: (
            x + 2
        ),
    }  # fmt: skip
    names = cell if where == "cell" else locals()
    shown = [names["divide"], names["outer"], names["outer"](1), *names["chosen"].values(), names["Counter"].fail]

    def sources(functions):
        import inspect

        return [inspect.getsource(function) for function in functions]

    found = sf.reveal(alice(sources)(shown))
    assert found == [inspect.getsource(function) for function in shown]
    assert "return x + k" in found[2]
    assert "x + 2" in found[4]


def test_a_function_that_travels_alone_shows_its_lines_as_well(alice, cell):
    def source(function):
        import inspect

        return inspect.getsource(function)

    assert sf.reveal(alice(source)(cell["outer"](1))) == "    def inner(x):\n        return x + k\n"
    assert "second=lambda x" in sf.reveal(alice(source)(cell["chosen"]["second"]))


def warn_loudly():
    import warnings

    warnings.filterwarnings("error", "The object being serialized")


def warn_no_more():
    import warnings

    del warnings.filters[0]


def test_a_model_with_lambdas_is_built_and_trained_without_a_warning(fed, cell):
    with warnings.catch_warnings():  # for parties in this process
        sf.wait([device(warn_loudly)() for device in fed.devices])
        trained(fed, cell)
        sf.wait([device(warn_no_more)() for device in fed.devices])


def trained(fed, cell):
    model = fed.model(cell["builder"])
    history = model.fit(fed.x, fed.y, epochs=1, batch_size=30, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(part.shape == (30, 3) for part in sf.reveal(model.predict(fed.x)).values())
