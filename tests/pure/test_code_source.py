# SPDX-License-Identifier: Apache-2.0
"""Where code came from, opened in another process: which lines travel, and under which name they are found."""

import inspect
import itertools
import linecache
import pickle
import traceback
from pathlib import Path

import pytest

from fedray.party import code_source
from fedray.party.parcel import pack

NUMBERS = itertools.count()


def compiled(text, name=None, known=True):
    """Returns the names that a cell of a notebook defines; its lines are known in this process alone."""
    name = name or f"/nowhere/cell_{next(NUMBERS)}.py"
    if known:
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    names = {"__name__": "__main__", "__file__": name}
    exec(compile(text, name, "exec"), names)
    return names


FAIL = """
try:
    value()
except ZeroDivisionError:
    traceback.print_exc(file=sys.stdout)
"""

FUNCTIONS = """
def plain():
    return 1 / 0

def outer(k):
    secret = "of outer"
    def inner(x):
        return x + k
    return inner

class Counter:
    note = "of the class"
    def count(self):
        return 1

note = "beside"
pair = [
    lambda x: x + 1,
    lambda x: (
        x + 2
    ),
]

async def later():
    return 1
"""


def test_a_traceback_elsewhere_shows_the_line(elsewhere):
    names = compiled(FUNCTIONS)
    shown = elsewhere(names["plain"], FAIL)
    assert f'File "{names["__file__"]}", line 3, in plain' in shown
    assert "return 1 / 0" in shown


def test_source_elsewhere_is_the_source_here(elsewhere):
    names = compiled(FUNCTIONS)
    functions = [names["plain"], names["outer"](1), names["Counter"].count, *names["pair"], names["later"]]
    expected = [inspect.getsource(function) for function in functions]
    for group in (functions, functions[::-1], [names["outer"], *functions]):
        found = elsewhere(group, "print([inspect.getsource(f) for f in value])")
        assert eval(found) == [inspect.getsource(function) for function in group]
    for function, source in zip(functions, expected, strict=True):
        assert elsewhere(function, "print(inspect.getsource(value), end='')") == source


def test_lines_that_came_apart_are_put_together(elsewhere):
    names = compiled(FUNCTIONS)
    parcels = [pickle.dumps(pack(names[name])) for name in ("later", "plain")]
    found = elsewhere(parcels, "print([inspect.getsource(pickle.loads(p).open()) for p in value])")
    assert eval(found) == [inspect.getsource(names[name]) for name in ("later", "plain")]


def test_only_the_lines_of_the_function_travel():
    names = compiled(FUNCTIONS)
    assert b"return 1 / 0" in pack(names["plain"]).head
    for function in (names["plain"], names["outer"](1), names["Counter"].count, names["later"], names["pair"][0]):
        head = pack(function).head
        assert b"of outer" not in head
        assert b"of the class" not in head
        assert b"beside" not in head


def test_a_lambda_in_front_of_a_body_travels_without_it(elsewhere):
    text = "import contextlib\nwith contextlib.nullcontext(lambda: 1 / 0) as found:\n    secret = 'in the body'\n"
    function = compiled(text)["found"]
    assert b"in the body" not in pack(function).head
    assert "lambda: 1 / 0" in elsewhere(function, "print(inspect.getsource(value))")


def test_the_same_function_makes_the_same_bytes():
    names = compiled(FUNCTIONS)
    for name in ("plain", "outer", "pair"):
        assert pack(names[name]).head == pack(names[name]).head
    again = compiled(FUNCTIONS, names["__file__"])
    assert pack(again["outer"]).head == pack(names["outer"]).head


def test_a_long_file_does_not_travel_with_a_short_function(elsewhere):
    text = "".join(f"def f{n}():\n    return {n}\n\n" for n in range(4_000))
    function = compiled(text)["f3000"]
    assert len(pack(function).head) < 1500
    assert elsewhere(function, "print(inspect.getsource(value), end='')") == "def f3000():\n    return 3000\n"


def test_a_function_as_long_as_a_data_set_travels_without_its_lines():
    text = f"def f():\n    return '{'a' * 300_000}'\n"
    assert len(pack(compiled(text)["f"]).head) < 310_000


@pytest.mark.parametrize("known", ["nothing", "no Python"])
def test_code_without_statements_to_look_at_keeps_its_name(elsewhere, known):
    function = compiled(FUNCTIONS, known=False)["plain"]
    name = function.__code__.co_filename
    if known == "no Python":
        text = FUNCTIONS + "%magic of a notebook\n"
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    shown = elsewhere(function, FAIL)
    assert f'File "{name}", line 3, in plain' in shown
    assert ("return 1 / 0" in shown) is (known == "no Python")


def test_another_file_of_that_name_is_neither_shown_nor_hidden(elsewhere, tmp_path: Path):
    path = tmp_path / "work.py"
    function = compiled("def plain():\n    return 1 / 0\n", str(path))["plain"]
    path.write_text("first = 1\nsecond = 2\n")
    shown = elsewhere(function, FAIL + f"import linecache\nprint(linecache.getline({str(path)!r}, 2))")
    assert "return 1 / 0" in shown
    assert f'"{path} (' in shown
    assert "second = 2" in shown


def test_the_same_file_is_left_alone(tmp_path: Path):
    path = tmp_path / "work.py"
    path.write_text(FUNCTIONS)
    names = compiled(FUNCTIONS, str(path), known=False)
    for function in (names["plain"], names["outer"], *names["pair"]):
        opened = pack(function).open()
        assert opened.__code__.co_filename == str(path)
        assert inspect.getsource(opened) == inspect.getsource(function)
    assert linecache.cache[str(path)][1] == path.stat().st_mtime


def test_a_function_and_what_it_was_before_show_their_own_lines(elsewhere):
    name = "/nowhere/edited.py"
    first = pack(compiled("def plain():\n    return 1 / 0  # before\n", name)["plain"])
    second = pack(compiled("def plain():\n    return 1 / 0  # after\n", name)["plain"])
    program = "print([inspect.getsource(parcel.open()) for parcel in value + value])"
    found = eval(elsewhere([first, second], program))
    assert [source.split("# ")[1] for source in found] == ["before\n", "after\n"] * 2


def test_what_was_learnt_outlasts_a_check_of_the_cache(elsewhere):
    function = compiled(FUNCTIONS)["plain"]
    program = "import linecache\nlinecache.checkcache()\nprint(inspect.getsource(value), end='')"
    assert elsewhere(function, program) == inspect.getsource(function)


def test_code_that_came_from_elsewhere_can_be_sent_on(elsewhere):
    function = compiled(FUNCTIONS)["pair"][1]
    sent_on = elsewhere(function, "from fedray.party.parcel import pack\nprint(pickle.dumps(pack(value)))")
    program = f"print(inspect.getsource(pickle.loads({sent_on}).open()), end='')"
    assert elsewhere(None, program) == inspect.getsource(function)


def test_a_traceback_here_is_as_it_was():
    names = compiled(FUNCTIONS)
    with pytest.raises(ZeroDivisionError) as caught:
        pack(names["plain"]).open()()
    assert "return 1 / 0" in "".join(traceback.format_exception(caught.value))


def test_a_parse_that_another_thread_disturbs_is_begun_again(monkeypatch):
    """Python 3.11 takes two parses at once for a fault, now and then."""
    real, failures = code_source.ast.parse, iter([SystemError("AST constructor recursion depth mismatch")] * 3)

    def disturbed(text):
        for failure in failures:
            raise failure
        return real(text)

    monkeypatch.setattr(code_source.ast, "parse", disturbed)
    names = compiled(f"def function():\n    return {next(NUMBERS)}\n")
    assert b"return" in pack(names["function"]).head
    assert next(failures, None) is None


CLASSES = """
import functools
from collections.abc import Callable

def marked(function):
    return function

SIZE = 3

def build():
    class Inside:
        size = SIZE

        @marked
        def apply(self, function: Callable[[int], int], default=functools.partial(int, "7")):
            return function(self.size) + default()

    return Inside().apply(lambda n: 10 * n)
"""


def test_a_class_inside_a_function_finds_the_names_of_its_body(elsewhere):
    """cloudpickle alone leaves out what only the body of a class names."""
    build = compiled(CLASSES)["build"]
    assert elsewhere(build, "print(value())") == "37\n"
