# SPDX-License-Identifier: Apache-2.0
"""Code that travels: its bytes by cloudpickle, and with them the name of its file and the lines it came from.

A traceback and `inspect.getsource` read the lines of code from the file that the code names. Where code is sent there
may be no such file (a notebook's cell, another machine), or another file under that name; and cloudpickle names no file
at all from 3.1.3 on. So a pickle says here where code came from, and whoever opens it shows the lines to `linecache`,
which both read. Knows nothing of who sends what.

What travels is what the sender sends anyway: the lines of the functions in the pickle, not those around them. A lambda
brings the rest of its statement, because `inspect` reads to the end of it.

`inspect.getsource` of a class, unlike of its methods, finds nothing where the class arrives: Python looks for it in the
file of `sys.modules[cls.__module__]`, which is another module there (`__main__`) or none, and must not be ours to put.
"""

from __future__ import annotations

import ast
import hashlib
import io
import linecache
import os
import pickle
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

import cloudpickle

from fedray.party import code_modules

LineSpan: TypeAlias = tuple[int, int]
"""First and last line of a piece of a file, counted from 1."""

_MOST_CHARACTERS = 1 << 18  # of one function; more than this is data that looks like code
_NOT_SENT = "...\n"  # for a line between others; not an empty one, after which `inspect` would take a function to go on


class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle is untyped
    """The pickler of all that may hold code of a user.

    Args:
        stream: What to write to.
        buffers: Where large buffers are put, outside the pickle.
    """

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        # In a table, not a method of this class: the table would hold the pickler, and it all that it has seen.
        self.dispatch_table = ChainMap({CodeType: _Sent().reduce}, cloudpickle.Pickler.dispatch_table)
        super().__init__(stream, protocol=5, buffer_callback=buffers.append)
        self._by_value: list[FunctionType] = []

    def reducer_override(self, value: Any) -> Any:
        """Returns how a pickle makes a function, class or module again: by value where it is the user's own."""
        if isinstance(value, FunctionType):
            reduced = code_modules.with_parts(value, self._function(value))
            if reduced is not NotImplemented:
                self._by_value.append(value)
            return reduced
        if isinstance(value, type):
            by_value = code_modules.own_module(value) is not None
            reduced = code_modules.reduce_class(value) if by_value else super().reducer_override(value)
            return code_modules.with_origin(value, reduced)
        if isinstance(value, ModuleType):
            return code_modules.reduce_module(value) if code_modules.is_own(value) else NotImplemented
        return code_modules.reduce_other(value)

    def culprit(self) -> str:
        """Returns, after a failure, which function uses what cannot be pickled; empty where none does."""
        for function in reversed(self._by_value):  # one that another uses comes after it
            for name, value in code_modules.variables(function):
                try:
                    type(self)(io.BytesIO(), []).dump(value)
                except Exception:  # a user's object may raise anything where it is pickled: that is the answer
                    where = f"{function.__qualname__} of {function.__module__}"
                    return f"{where} uses {name!r}, which cannot travel; make it inside the function"
        return ""

    def _function(self, function: FunctionType) -> Any:
        names = code_modules.namespace(function)
        if names is not None:
            self.globals_ref.setdefault(id(function.__globals__), names)
        if code_modules.own_module(function) is None:
            reduced = super().reducer_override(function)
        else:
            reduced = self._dynamic_function_reduce(function)
        return code_modules.with_class_names(function, reduced)


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    """Where code came from. Becomes, where the pickle is opened, the name under which its lines are found there.

    Attributes:
        name: Name of the file.
        lines: Which of its lines the text is.
        text: The lines; empty where they cannot be had.
    """

    name: str
    lines: LineSpan
    text: str

    def __reduce__(self) -> tuple[Callable[..., str], tuple[str, int, str]]:
        return _learn, (self.name, self.lines[0], self.text)


class _Sent:
    """The origins in one pickle. A function brings its lines once, also for the functions inside it."""

    def __init__(self) -> None:
        self._origins: dict[str, list[_Origin]] = {}

    def reduce(self, code: CodeType) -> tuple[Callable[..., CodeType], tuple[_Origin, Any, Any]]:
        """Returns how a pickle makes code again: as cloudpickle does, and under its own file's name."""
        nameless = code.replace(co_filename="")  # whatever cloudpickle does with the name
        make, args = cloudpickle.Pickler.dispatch_table[CodeType](nameless)[:2]
        return _with_name, (self._origin(code), make, args)  # the origin first: code inside this code refers to it

    def _origin(self, code: CodeType) -> _Origin:
        origins = self._origins.setdefault(code.co_filename, [])
        first, last = code.co_firstlineno, _last_line(code)
        for origin in origins:
            if origin.lines[0] <= first and last <= origin.lines[1]:
                return origin
        text, last = _text(code.co_filename, first, last)
        # A copy of the name, one for all: which strings are one object must not change the bytes of a pickle.
        name = origins[0].name if origins else "".join(list(code.co_filename))
        origins.append(_Origin(name, (first, last), text))
        return origins[-1]


def _last_line(code: CodeType) -> int:
    ends = [_last_line(inner) for inner in code.co_consts if isinstance(inner, CodeType)]
    return max([code.co_firstlineno, *ends, *(line for _, _, line in code.co_lines() if line)])


def _text(name: str, first: int, last: int) -> tuple[str, int]:
    """Returns the lines of code as a sender has them, to the end of their statement, and the number of the last."""
    linecache.checkcache(name)
    lines = linecache.getlines(name)
    pieces = *_statements("".join(lines)), *_learnt.get(name, _Known()).pieces
    around = [piece for piece in pieces if piece[0] <= first and last <= piece[1]]
    ends = [end for _, end in sorted(around, key=lambda piece: piece[1] - piece[0])]
    for end in [*ends[:1], last]:
        text = "".join(_plain(lines[first - 1 : end]))
        if len(text) <= _MOST_CHARACTERS:
            return text, end
    return "", last


@lru_cache(maxsize=32)
def _statements(text: str) -> tuple[LineSpan, ...]:
    """Returns the lines of every statement; of one with a body, other than a function, those before the body."""
    try:
        return tuple(_lines(node) for node in ast.walk(parsed(text)) if isinstance(node, ast.stmt))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()  # edited since, or not Python as it stands


def parsed(text: str) -> ast.Module:
    """Returns Python source as its syntax tree, whatever other threads parse meanwhile.

    Raises:
        SyntaxError: It is none.
    """
    # Python 3.11 counts how deep a parse is in one place for all threads, and takes another thread's parse for a fault
    # of its own (gh-106905). Ours wait for each other; those of libraries do not, and are over in a moment.
    with _parsing:
        for _ in range(_MOST_PARSES - 1):
            with suppress(SystemError):
                return ast.parse(text)
        return ast.parse(text)


def _lines(node: ast.stmt) -> LineSpan:
    parts: list[ast.stmt | ast.expr] = [node, *getattr(node, "decorator_list", ())]
    first, last = min(part.lineno for part in parts), node.end_lineno or node.lineno
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inner = [part.lineno for part in _statements_in(node)]
        last = max(node.lineno, min(inner) - 1) if inner else last
    return first, last


def _statements_in(node: ast.stmt) -> Iterator[ast.stmt]:
    return (part for part in ast.walk(node) if isinstance(part, ast.stmt) and part is not node)


def _plain(lines: Sequence[str]) -> list[str]:
    return [line.rstrip("\r\n") + "\n" for line in lines]


@dataclass(frozen=True, slots=True)
class _Known:
    """A file of which only what came in pickles is known here: number -> line, and the pieces as they came."""

    lines: dict[int, str] = field(default_factory=dict)
    pieces: frozenset[LineSpan] = frozenset()


_parsing = threading.Lock()
_MOST_PARSES = 10

_learning = threading.Lock()
_learnt: dict[str, _Known] = {}


def has_lines(name: str) -> bool:
    """Returns whether code of this file's name came in a pickle, or is in a file."""
    return name in _learnt or os.path.isfile(name)


def _learn(name: str, first: int, text: str) -> str:
    """Makes lines known here and returns under which name: the file's own, unless other lines are known under it.

    A file that is here with the same lines is left alone, so that in one process nothing changes.
    """
    if not text:
        return name
    lines = dict(enumerate(io.StringIO(text), first))
    mark = hashlib.sha256(f"{first}:{text}".encode()).hexdigest()[:8]
    with _learning:
        return next((known for known in (name, f"{name} ({mark})") if _fits(known, lines)), name)


def _fits(name: str, lines: dict[int, str]) -> bool:
    """Returns whether lines are those known under a name, or can be added to them, and adds them."""
    if name not in _learnt:
        linecache.checkcache(name)
        if here := linecache.getlines(name):
            return _plain(here[min(lines) - 1 : max(lines)]) == list(lines.values())
    known = _learnt.get(name, _Known())
    if any(known.lines.get(number, line) != line for number, line in lines.items()):
        return False
    known = _learnt[name] = _Known(known.lines | lines, known.pieces | {(min(lines), max(lines))})
    whole = [known.lines.get(number, _NOT_SENT) for number in range(1, max(known.lines) + 1)]
    linecache.cache[name] = (sum(map(len, whole)), None, whole, name)  # without a time: checkcache keeps such entries
    return True


def _with_name(name: str, make: Callable[..., CodeType], args: tuple[Any, ...]) -> CodeType:
    return make(*args).replace(co_filename=name)
