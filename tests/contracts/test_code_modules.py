# SPDX-License-Identifier: Apache-2.0
"""Modules of the user's own that only the driver finds, edited while a session runs, on every transport."""

import importlib
import sys

import pytest

import fedray as sf
from fedray.errors import PartyError

MODULE = """
import enum
from dataclasses import dataclass

from fedray.ml.nn.numpy import SoftmaxRegression

calls = []

class Colour(enum.Enum):
    RED = 1

@dataclass
class Point:
    x: int
    colour: Colour = Colour.RED

    def moved(self, by=1):
        return Point(self.x + by)

def builder():
    return SoftmaxRegression(VERSION, 4)

def version():
    calls.append(1)
    return VERSION, len(calls)

def is_point(value):
    return isinstance(value, Point), value.colour is Colour.RED

def imported():
    import of_the_driver
"""


@pytest.fixture
def alice(shared):
    return sf.PYU("alice")


@pytest.fixture
def edit(shared, tmp_path, monkeypatch):
    """Returns a function that writes a version of the module and loads it; the parties run already."""
    name = "of_the_driver"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within a second have one time stamp

    def load(version):
        (tmp_path / f"{name}.py").write_text(MODULE.replace("VERSION", str(version)))
        importlib.invalidate_caches()
        return importlib.reload(sys.modules[name]) if name in sys.modules else importlib.import_module(name)

    yield load
    del sys.modules[name]


def fingerprint(builder):
    from fedray.backends import make_backend

    return make_backend("numpy", builder, 1, 1, 1).fingerprint()


def test_a_party_runs_what_the_driver_has_now(alice, edit):
    module = edit(2)
    first = sf.reveal([alice(module.version)(), alice(fingerprint)(module.builder)])
    assert first[0] == (2, 1)
    module = edit(3)
    second = sf.reveal([alice(module.version)(), alice(fingerprint)(module.builder)])
    assert second == [(3, 1), fingerprint(module.builder)]
    assert second[1] != first[1]


def test_the_variables_of_a_module_are_a_copy_for_each_call(alice, edit):
    module = edit(2)
    assert sf.reveal([alice(module.version)(), alice(module.version)()]) == [(2, 1), (2, 1)]
    assert module.calls == []


def test_a_class_is_one_class_from_call_to_call_and_back(alice, edit):
    module = edit(2)
    point = alice(module.Point)(1)
    assert sf.reveal(alice(module.is_point)(point)) == (True, True)
    assert sf.reveal(alice(module.Point.moved)(point, by=2)) == module.Point(3)
    held = sf.proxy(module.Point)(5, device=alice)
    assert sf.reveal(held.moved()) == module.Point(6)
    assert sf.reveal(alice(lambda p: p.colour)(point)) is module.Colour.RED


@pytest.mark.parametrize("address", ["ray"], indirect=True, scope="module")
def test_what_a_function_imports_inside_is_missed_with_a_word_on_what_to_do(alice, edit):
    with pytest.raises(
        PartyError, match=r"No module named 'of_the_driver'; inside a function.*at the head of its file"
    ):
        sf.reveal(alice(edit(2).imported)())
