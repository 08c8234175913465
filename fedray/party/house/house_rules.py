# SPDX-License-Identifier: Apache-2.0
"""HouseRules: what a `party.toml` says, and how it is read. Pure: knows no file and no process.

What is not written there is left to the driver. Errors name the line.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedray.errors import PlanError
from fedray.party.door.egress import POLICIES
from fedray.protocol.crypto.names import check_name
from fedray.types import PartyName

_DATA_NAME = re.compile(r"[A-Za-z0-9_-]+")  # no dot and no slash: nobody can take it for a path
_MEMORY = re.compile(r"(\d+)\s*([KMGT]?)B", re.IGNORECASE)
_LEAST_MEMORY = 1 << 28  # a party that imports nothing takes half of it
_SECTIONS = ("limits", "data")


@dataclass(frozen=True, slots=True)
class HouseRules:
    """What the operator of a party's machine has laid down.

    Attributes:
        name: Whose machine it is.
        keys: The key folder, an absolute path or one below a home (~); None for keys that are made for each session.
        checkpoints: Folder of the party's parts of checkpoints, likewise; None for one in the key folder, or, where
            there are no keys, for the one that the driver names.
        egress: `"strict"`, whatever the driver asks for; `"default"` leaves it to the driver.
        paths: `"registered"`: `load` opens nothing but what `data` names; `"any"`: any file of the machine.
        printing: Whether what the party prints may be shown at the driver.
        sessions: How many sessions it serves side by side.
        threads: Most compute threads; None for as many as the driver says.
        memory: Most memory that the party's process takes beyond what it begins with, bytes; None for no limit.
        data: Name -> path of a file.
    """

    name: PartyName
    keys: str | None = None
    checkpoints: str | None = None
    egress: Literal["default", "strict"] = "default"
    paths: Literal["any", "registered"] = "any"
    printing: bool = True
    sessions: int = 1
    threads: int | None = None
    memory: int | None = None
    data: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str, where: str, folder: str) -> HouseRules:
        """Returns what a file says.

        Args:
            text: Its content.
            where: Its path, for errors.
            folder: Its folder, from which relative paths in it start.

        Raises:
            PlanError: It is no TOML, a setting is unknown or of the wrong kind, or two of them do not fit; with its
                line.
        """
        try:
            found = tomllib.loads(text + "\n")  # without a last line end it tells no line
        except tomllib.TOMLDecodeError as error:
            raise PlanError(_no_toml(text, where, str(error))) from None
        sections = {name: found.pop(name, {}) for name in _SECTIONS}
        for name, section in sections.items():
            if not isinstance(section, dict):
                raise PlanError(f"{_line(text, where, '', name)}: expected a section [{name}], found {_kind(section)}")
        _check(text, where, "", found, _TOP)
        _check(text, where, "limits", sections["limits"], _LIMITS)
        if "name" not in found:
            raise PlanError(f'{where}: no name; expected a line such as name = "alice"')
        data = {name: _path(text, where, name, path, folder) for name, path in sections["data"].items()}
        limits = dict(sections["limits"])
        if "memory" in limits:
            limits["memory"] = _bytes(limits["memory"])
        found |= {name: _joined(folder, found[name]) for name in ("keys", "checkpoints") if name in found}
        rules = cls(**found, **limits, data=data)
        if rules.keys is not None and rules.sessions > 1:
            raise PlanError(
                f"{_line(text, where, '', 'sessions')}: sessions = {rules.sessions} and keys: one identity takes part "
                "in one session at a time, since its memory of models is one file. Say sessions = 1, or leave keys out"
            )
        return rules

    def told(self) -> dict[str, Any]:
        """Returns what the driver is told is in force; names of data, and no path.

        Of checkpoints it is told whether parts of them lie where the operator says, and not where the driver does.
        """
        kept = ("egress", "paths", "printing", "sessions", "threads", "memory")
        own = {"checkpoints": self.checkpoints is not None or self.keys is not None, "data": sorted(self.data)}
        return {name: getattr(self, name) for name in kept} | own


def _line(text: str, where: str, section: str, key: str) -> str:
    """Returns the place of a setting as text; without a line where it is written in a way of its own."""
    wanted = re.compile(rf"\s*([\"']?){re.escape(key)}\1\s*(=|\.)")
    headed = re.compile(rf"\s*\[\s*([\"']?){re.escape(key)}\1\s*\]")
    here = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            here = header[1].strip("\"'")
            if not section and headed.match(line):
                return f"{where}, line {number}"
        elif here == section and wanted.match(line):
            return f"{where}, line {number}"
    return where


def _no_toml(text: str, where: str, said: str) -> str:
    """Returns what is told of a text that is no TOML; the parser's own words say nothing of what to do."""
    what, at, place = said.partition(" (at line ")
    if not at:
        return f"{where}: {said}"
    number = int(place.partition(",")[0])
    line = "".join(text.splitlines()[number - 1 : number])  # it may be past the last one
    setting = re.match(r"\s*([\w\"'.-]+?)\s*=|\s*(\[[^\[\]]+\])", line)
    if setting and (what == "Cannot overwrite a value" or what.endswith(" twice")):
        return f"{where}, line {number}: {setting[1] or setting[2]} is there a second time; take one of the two away"
    return f'{where}, line {number}: this is no TOML ({what}); expected a line such as name = "alice"'


def _check(text: str, where: str, section: str, found: Mapping[str, Any], table: _Table) -> None:
    for key, value in found.items():
        place = _line(text, where, section, key)
        if key not in table:
            inside = f"[{section}]" if section else "party.toml"
            known = [*table, *(f"[{name}]" for name in _SECTIONS)] if not section else list(table)
            raise PlanError(f"{place}: {inside} has no setting {key!r}; it has {', '.join(known)}")
        expected, fits = table[key]
        try:
            good = fits(value)
        except PlanError as error:
            raise PlanError(f"{place}: {error}") from None
        if not good:
            raise PlanError(f"{place}: {key}: expected {expected}, found {value!r}")


def _path(text: str, where: str, name: str, path: object, folder: str) -> str:
    place = _line(text, where, "data", name)
    if not _DATA_NAME.fullmatch(name):
        raise PlanError(f"{place}: a name of data is made of letters, digits, - and _, found {name!r}")
    if not isinstance(path, str) or not path:
        raise PlanError(f"{place}: {name}: expected the path of a file in quotes, found {_kind(path)}")
    return _joined(folder, path)


def _joined(folder: str, path: str) -> str:
    return path if path.startswith(("/", "~")) else os.path.join(folder, path)


def _named(value: object) -> bool:
    check_name(value)
    return True


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _bytes(text: str) -> int:
    match = _MEMORY.fullmatch(text)
    return 0 if match is None else int(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")


def _kind(value: object) -> str:
    # By its kind: this text reaches the driver, whose business the operator's paths are not.
    return "a section" if isinstance(value, dict) else type(value).__name__


_Table = Mapping[str, tuple[str, Callable[[Any], bool]]]

_TOP: _Table = {
    "name": ("the party's name", _named),
    "keys": ("the path of the key folder in quotes", lambda value: isinstance(value, str) and value != ""),
    "checkpoints": ("the path of a folder in quotes", lambda value: isinstance(value, str) and value != ""),
    "egress": (f"one of {', '.join(map(repr, POLICIES))}", lambda value: value in tuple(POLICIES)),
    "paths": ("'any' or 'registered'", lambda value: value in ("any", "registered")),
    "printing": ("true or false", lambda value: isinstance(value, bool)),
    "sessions": ("a whole number from 1 on", _count),
}

_LIMITS: _Table = {
    "threads": ("a whole number from 1 on", _count),
    "memory": (
        f'an amount from "{_LEAST_MEMORY >> 20} MB" on, such as "8 GB"',
        lambda value: isinstance(value, str) and _bytes(value) >= _LEAST_MEMORY,
    ),
}
