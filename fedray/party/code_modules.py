# SPDX-License-Identifier: Apache-2.0
"""Code that travels: which modules are the user's own, and what of them goes along with a function.

A party has the standard library and what is installed there. A module of the user's own it may lack, or have as it was
before an edit: so its functions and classes travel as those of a notebook do, by value, and of the module itself what
the functions name of it. Everything else stays a name, to be imported where it arrives. Knows nothing of who sends it.

Leans on four names that cloudpickle keeps to itself (`_dynamic_class_reduce`, `_make_typevar`, `_decompose_typevar`
here, `_dynamic_function_reduce` in `fedray/party/code_source.py`); its public switch would hold for the whole process.
"""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias, TypeGuard
from weakref import WeakSet

from cloudpickle import cloudpickle

Reduced: TypeAlias = Any
"""What a reducer of `pickle` returns: a tuple, or NotImplemented."""

_EVERYWHERE = frozenset({"fedray", "cloudpickle", "keras", "numpy", "ray", "tensorflow"})
"""What fedray needs is at every party, also where its developers run it from a folder of their own."""

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_STANDARD = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_NAMES = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_FROM_DICT_OR_DEREF"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_ABSENT = object()
_OF_THE_IMPORT = frozenset({"__builtins__", "__dict__", "__loader__", "__spec__"})  # a module's own, made where it is


def own_module(value: Any) -> ModuleType | None:
    """Returns the user's own module that a function, class or type variable belongs to; None if it is no such module.

    The script or notebook itself is none: what it defines travels by value anyway.
    """
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    return module if isinstance(module, ModuleType) and is_own(module) else None


def is_own(module: ModuleType) -> bool:
    """Returns whether a module is the user's own: neither standard, nor installed, nor compiled. Editable ones are."""
    if isinstance(module, Arrived):
        return True
    root = module.__name__.partition(".")[0]
    return _is_own(root, _place(module), _place(sys.modules.get(root)))


def of_a_library(kind: type) -> bool:
    """Returns whether a class is one that a module has which is not the user's; a user's may have any name."""
    module = sys.modules.get(kind.__module__)
    known = module is not None and module.__name__ != "__main__" and not is_own(module)
    return known and vars(module).get(kind.__name__) is kind


def _place(module: ModuleType | None) -> str:
    """Returns where a module was found; of a package, its folder; of one made by a program, nothing."""
    names = {} if module is None else vars(module)
    folders = names.get("__path__") or ()
    return str(next(iter(folders), None) or names.get("__file__") or "")


@functools.lru_cache(maxsize=4096)
def _is_own(root: str, place: str, root_place: str) -> bool:
    if not place or root in sys.stdlib_module_names or root in _EVERYWHERE or root == "__main__":
        return False
    path = Path(place)
    if path.suffix not in ("", ".py") or _INSTALLED & set(path.parts):
        return False
    if any(path.is_relative_to(folder) for folder in _STANDARD):
        return False
    # `pip install --target` fills any folder, and leaves its records beside the packages.
    return not root_place or next(Path(root_place).parent.glob("*.dist-info"), None) is None


class Arrived(ModuleType):
    """A module of which only parts are here: what the functions that came with it name."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"module {self.__name__!r} came here without {name!r}: of a module of your own travels what a function "
            f"names, as in {self.__name__.rpartition('.')[2]}.{name}; write it so, or install the module at the parties"
        )


def reduce_module(module: ModuleType) -> Reduced:
    """Returns how a pickle makes a module of the user's own: empty, to be filled by the functions that name parts."""
    return _arrived, (module.__name__, vars(module).get("__package__"), vars(module).get("__file__"))


def _arrived(name: str, package: str | None, file: str | None) -> Arrived:
    module = Arrived(name)
    module.__package__ = package
    if file is not None:
        module.__file__ = file
    return module


class Namespace:
    """The global names of a function, which where it arrives are those of its module, too."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __reduce__(self) -> Reduced:
        return vars, (self._module,)


def namespace(function: FunctionType) -> Namespace | None:
    """Returns the names of a function's module, if that is the user's own; None for other functions."""
    module = sys.modules.get(function.__globals__.get("__name__", ""))
    if module is None or vars(module) is not function.__globals__ or not is_own(module):
        return None
    return Namespace(module)


def with_parts(function: FunctionType, reduced: Reduced) -> Reduced:
    """Adds to what makes a function again the parts that it names of modules of the user's own."""
    parts = _parts(function) if reduced is not NotImplemented else {}
    if not parts:
        return reduced
    make, args, state, *_, put = reduced
    return make, args, (put, state, list(parts.items())), None, None, _put_parts


def with_class_names(function: FunctionType, reduced: Reduced) -> Reduced:
    """Adds to what makes a function again the global names that bodies of classes inside it use.

    cloudpickle takes those that functions use: decorators, annotations and defaults in a class body are looked up in
    another way, and would be missing where the function makes its class.
    """
    names = {} if reduced is NotImplemented else function.__globals__
    missing = [name for name in _class_names(function.__code__) if name in names]
    if missing:
        _, slots = reduced[2]
        for name in missing:
            # A copy of the name, as below.
            slots["__globals__"].setdefault("".join(list(name)), names[name])
    return reduced


def _class_names(code: CodeType) -> Iterator[str]:
    """Yields the names that bodies of classes inside a function look up, each once or more."""
    for inner in _inner(code):
        yield from (step.argval for step in dis.get_instructions(inner) if step.opname == "LOAD_NAME")
        yield from _class_names(inner)


def _put_parts(function: FunctionType, content: tuple[Any, Any, list[tuple[ModuleType, dict[str, Any]]]]) -> None:
    put, state, parts = content
    for module, names in parts:
        vars(module).update(names)
    put(function, state)


def variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Returns names and values of what travels with a function, modules aside."""
    names = dict.fromkeys(first for first, *_ in _named(function.__code__))
    yield from ((name, function.__globals__[name]) for name in names if name in function.__globals__)
    yield from _cells(function)
    for parts in _parts(function).values():
        yield from parts.items()


def _parts(function: FunctionType) -> dict[ModuleType, dict[str, Any]]:
    parts: dict[ModuleType, dict[str, Any]] = {}
    cells = dict(_cells(function))
    for first, *names in _named(function.__code__):
        value = cells.get(first, function.__globals__.get(first))
        for name in names:
            if not _is_own_module(value):
                break
            value = _take(parts, value, name)
        if _is_own_module(value):  # as a value: to be called by another name, or handed on
            for name in _all_names(function.__code__):
                _take(parts, value, name)
    return parts


def _is_own_module(value: Any) -> TypeGuard[ModuleType]:
    return isinstance(value, ModuleType) and is_own(value)


def _take(parts: dict[ModuleType, dict[str, Any]], module: ModuleType, name: str) -> Any:
    value = getattr(module, name, _ABSENT)
    if value is not _ABSENT and name not in _OF_THE_IMPORT:
        # A copy of the name: which strings are one object must not change the bytes of a pickle.
        parts.setdefault(module, {})["".join(list(name))] = value
    return value


def _cells(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # still empty
            continue


@functools.lru_cache(maxsize=4096)
def _named(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """Returns what code names from outside, with the attributes that follow: `a.b.c` is ("a", "b", "c")."""
    found: dict[tuple[str, ...], None] = {}
    chain: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if step.opname in _ATTRIBUTES and chain:
            chain = *chain, step.argval
        elif step.opname != "EXTENDED_ARG":
            found[chain] = None
            chain = (step.argval,) if step.opname in _NAMES else ()
    for inner in _inner(code):
        found.update(dict.fromkeys(_named(inner)))
    found.pop((), None)
    return tuple(found)


def _all_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in _inner(code):
        yield from _all_names(inner)


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (part for part in code.co_consts if isinstance(part, CodeType))


_ours: WeakSet[type] = WeakSet()  # classes that this process has sent
_theirs: WeakSet[type] = WeakSet()  # classes that have arrived


def reduce_class(kind: type) -> Reduced:
    """Returns how a pickle makes a class of the user's own module."""
    return cloudpickle._dynamic_class_reduce(kind)


def with_origin(kind: type, reduced: Reduced) -> Reduced:
    """Lets a class that comes back to where it is from stay as it is there.

    It is recognized by a number that travels with it, and cloudpickle then overwrites its methods by copies, which see
    copies of their module's variables.
    """
    if reduced is NotImplemented or len(reduced) < 6:
        return reduced
    make, args, state, *_, put = reduced
    if kind not in _theirs:
        _ours.add(kind)
    return make, args, (put, state), None, None, _put_class


def _put_class(kind: type, content: tuple[Callable[[type, Any], object], Any]) -> None:
    put, state = content
    if kind not in _ours:
        _theirs.add(kind)
        put(kind, state)


def reduce_other(value: Any) -> Reduced:
    """Returns how a pickle makes what else is a name to `pickle`; NotImplemented for what can be imported by it."""
    reducer = _OTHERS.get(type(value))
    if reducer is None:
        return NotImplemented
    arrived = value.__module__ not in sys.modules
    return reducer(value) if arrived or value.__module__ == "__main__" or own_module(value) else NotImplemented


def _cached(function: Any, parameters: Mapping[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _reduce_cached(value: Any) -> Reduced:
    return _cached, (value.__wrapped__, value.cache_parameters())


def _reduce_typevar(value: Any) -> Reduced:
    return cloudpickle._make_typevar, cloudpickle._decompose_typevar(value)


def _reduce_name(value: Any) -> Reduced:
    return type(value), (value.__name__,)


def _reduce_new_type(value: Any) -> Reduced:
    return typing.NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}


_OTHERS: dict[type, Callable[[Any], Reduced]] = {
    type(functools.lru_cache(len)): _reduce_cached,
    typing.TypeVar: _reduce_typevar,
    typing.ParamSpec: _reduce_name,
    typing.TypeVarTuple: _reduce_name,
    typing.NewType: _reduce_new_type,
}
