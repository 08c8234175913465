# SPDX-License-Identifier: Apache-2.0
"""Modules of the user's own, opened in a process that cannot import them."""

import functools
import importlib
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest

from fedray.errors import PlanError
from fedray.party.code_modules import is_own
from fedray.party.parcel import pack

NUMBERS = itertools.count()

HELPERS = """
import enum
import functools
import logging
import typing
from dataclasses import dataclass

import numpy as np

T = typing.TypeVar("T")
P = typing.ParamSpec("P")
Name = typing.NewType("Name", str)
LOG = logging.getLogger(__name__)
scale = 3
count = 0
secret = "of the module"

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

class Base(typing.Generic[T]):
    def twice(self, value: T) -> T:
        return value * 2 * scale

@dataclass(frozen=True)
class Point(Base[int]):
    x: int
    colour: Colour = Colour.RED

    @property
    def far(self):
        return self.x > scale

class Pair(typing.NamedTuple):
    first: int
    second: Name = Name("b")

@functools.lru_cache(maxsize=4)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

def logged(function: typing.Callable[P, T]) -> typing.Callable[P, T]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        LOG.debug("called")
        return function(*args, **kwargs)
    return run

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

@logged
def scaled(x: T) -> T:
    return np.asarray(x) * scale

def counted():
    global count
    count += 1
    return count

def everything(x):
    return scaled(x).tolist(), even(x), fibonacci(10), Point(x).far, Point(x).twice(1), Pair(x).second, Colour(2).name

def inside():
    from . import nothing
    return nothing

def locked():
    return lock

import threading
lock = threading.Lock()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Returns a function that writes a module which only this process finds, and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within a second have one time stamp
    number = next(NUMBERS)

    def write(text, name="helpers"):
        name = f"{name}_{number}"
        path = tmp_path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("NUMBER", str(number)))
        importlib.invalidate_caches()
        return importlib.reload(sys.modules[name]) if name in sys.modules else importlib.import_module(name)

    yield write
    for name in [name for name in sys.modules if name.endswith(f"_{number}")]:
        del sys.modules[name]


def test_functions_and_classes_work_where_their_module_is_not(elsewhere, module):
    helpers = module(HELPERS)
    expected = repr(helpers.everything(5))
    assert elsewhere(helpers.everything, "print(value(5))").strip() == expected
    assert repr(pack(helpers.everything).open()(5)) == expected
    assert elsewhere(helpers.scaled, f"print(value(2), {helpers.__name__!r} in sys.modules)").strip() == "6 False"


def test_edited_code_travels_after_a_reload(elsewhere, module):
    before = module("def f():\n    return 'before'\n")
    assert elsewhere(before.f, "print(value())") == "before\n"
    after = module("def f():\n    return 'after'\n")
    assert elsewhere(after.f, "print(value())") == "after\n"


def test_of_a_module_travels_what_a_function_names(elsewhere, module):
    helpers = module(HELPERS)
    user = module("import helpers_NUMBER as h\n\ndef f(x):\n    h.scale += 1\n    return h.scaled(x)\n", "user")
    assert elsewhere(user.f, "print(value(2), value(2))") == "8 10\n"
    assert helpers.scale == 3
    head = pack(user.f).head
    assert b"of the module" not in head
    assert b"fibonacci" not in head


def test_a_module_of_a_module_travels_by_its_parts(elsewhere, module):
    inner = module("import numpy as np\nfactor = 2\n\ndef double(x):\n    return np.multiply(x, factor)\n", "inner")
    outer = module("import inner_NUMBER\nsecret = 'kept'\n", "outer")
    user = module(
        "import outer_NUMBER as o\n\ndef f(x):\n    return [o.inner_NUMBER.double(y) for y in [x]][0]\n", "user"
    )
    assert inner
    assert outer
    assert elsewhere(user.f, "print(value(4))") == "8\n"
    assert b"kept" not in pack(user.f).head


def test_a_module_under_another_name_brings_what_the_function_may_mean(elsewhere, module):
    module(HELPERS)
    user = module("import helpers_NUMBER\n\ndef f(x):\n    h = helpers_NUMBER\n    return h.scaled(x)\n", "user")
    assert elsewhere(user.f, "print(value(2))") == "6\n"


def test_a_part_that_did_not_travel_is_named(elsewhere, module):
    module(HELPERS)
    user = module("import helpers_NUMBER as h\n\ndef f(n):\n    return getattr(h, n)\n", "user")
    error = elsewhere(user.f, "value('scale')", fails=True)
    assert "came here without 'scale'" in error
    assert "install the module at the parties" in error


def test_functions_of_one_module_share_its_variables(elsewhere, module):
    helpers = module(HELPERS)
    user = module(
        "import helpers_NUMBER as h\n\ndef f():\n    h.count = 10\n    return h.counted(), h.counted(), h.count\n",
        "user",
    )
    assert elsewhere(user.f, "print(value(), value())") == "(11, 12, 12) (11, 12, 12)\n"
    assert helpers.count == 0
    opened = pack(helpers.counted).open()
    assert (opened(), opened(), helpers.count) == (1, 2, 0)


def test_a_class_that_comes_back_is_the_same_and_as_it_was(elsewhere, module):
    helpers = module(HELPERS)
    methods = dict(vars(helpers.Base))
    point = elsewhere(
        helpers.Point, "from fedray.party.parcel import pack\nprint(pickle.dumps(pack([value(5), value(5).colour])))"
    )
    back, red = pickle.loads(eval(point)).open()
    assert back == helpers.Point(5)
    assert red is helpers.Colour.RED
    assert dict(vars(helpers.Base)) == methods
    assert type(pack(helpers.Point(1)).open()) is helpers.Point


def test_a_class_that_was_changed_in_place_arrives_changed(elsewhere, module):
    helpers = module("class K:\n    def f(self):\n        return 'before'\n")
    parcels = [pickle.dumps(pack(helpers.K))]
    helpers.K.f = lambda _: "after"
    parcels.append(pickle.dumps(pack(helpers.K)))
    assert elsewhere(parcels, "print([pickle.loads(p).open()().f() for p in value])") == "['before', 'after']\n"


def test_what_arrived_can_be_sent_on(elsewhere, module):
    module(HELPERS)
    user = module("import helpers_NUMBER as h\n\ndef f(x):\n    return h.everything(x)\n", "user")
    expected = repr(user.f(2))
    program = "from fedray.party.parcel import pack\nprint(pickle.dumps(pack(value)))"
    sent_on = pickle.loads(eval(elsewhere(user.f, program)))
    assert elsewhere(sent_on, "print(value.open()(2))").strip() == expected


def test_the_same_function_makes_the_same_bytes(module):
    module(HELPERS)
    user = module("import helpers_NUMBER as h\n\ndef f(x):\n    return h.everything(x), h.Point(x), h.scale\n", "user")
    assert pack(user.f).head == pack(user.f).head


def test_standard_and_installed_modules_and_fedray_stay_names(tmp_path, module):
    assert not any(map(is_own, [functools, importlib, np, np.linalg, pytest, sys, sys.modules["fedray.errors"]]))
    assert is_own(sys.modules[__name__])
    for value in (np.linalg.solve, functools.partial, subprocess.run, pack, PlanError, np.random.Generator):
        assert len(pack(value).head) < 80
    small = module("import numpy as np\n\ndef f(x):\n    return np.linalg.norm(np.asarray(x))\n", "small")
    assert len(pack(small.f).head) < 1000


def test_a_folder_that_pip_filled_is_installed(tmp_path, module):
    (tmp_path / "something-1.0.dist-info").mkdir()
    assert not is_own(module("x = 1\n", "filled"))


def test_what_a_function_imports_inside_is_not_there(elsewhere, module):
    helpers = module(HELPERS)
    assert "ImportError" in elsewhere(helpers.inside, "value()", fails=True)


def test_a_variable_that_cannot_travel_is_refused_by_name(module):
    helpers = module(HELPERS)
    user = module("import helpers_NUMBER as h\n\ndef f():\n    return h.locked()\n", "user")
    for function in (helpers.locked, user.f):
        with pytest.raises(PlanError, match=rf"cannot pickle .*; locked of {helpers.__name__} uses 'lock'"):
            pack([function])


def test_a_package_travels_by_its_parts(elsewhere, tmp_path, monkeypatch):
    files = {
        "__init__": "from . import tools\nfrom .tools import double\nimport parcelled.inner.deep\nsecret = 'kept'\n",
        "tools": "from .inner import deep\n\ndef double(x):\n    return deep.twice(x)\n",
        "inner/__init__": "",
        "inner/deep": "def twice(x):\n    return 2 * x\n\ndef unused():\n    return 'never named'\n",
    }
    for name, text in files.items():
        path = tmp_path / "parcelled" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "uses_parcelled.py").write_text(
        "import parcelled\nimport parcelled.inner.deep\n\ndef f(x):\n"
        "    return parcelled.double(x), parcelled.tools.double(x), [parcelled.inner.deep.twice(y) for y in (x,)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    function = importlib.import_module("uses_parcelled").f
    assert elsewhere(function, "print(value(3))") == "(6, 6, [6])\n"
    assert elsewhere(sys.modules["parcelled"].double, "print(value(3))") == "6\n"
    head = pack(function).head
    assert b"kept" not in head
    assert b"never named" not in head
    for name in [name for name in sys.modules if "parcelled" in name]:
        del sys.modules[name]
