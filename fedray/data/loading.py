# SPDX-License-Identifier: Apache-2.0
"""What `load` does before there is an array: each party's source becomes an array there, with its columns in order.

The driver's side: it sees shapes, dtypes and names of columns. How a file is read is decided in
`fedray.data.files`, inside the party.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.data import inside
from fedray.data.columns import Heading, Names, common_order
from fedray.data.files import ReadOptions, as_table, read_table
from fedray.data.parts import ArrayPart, array_part, joint_dtype, joint_shape, require_rows
from fedray.device import PYU, PYUObject
from fedray.errors import DeviceMismatch, PlanError
from fedray.runtime.session import current
from fedray.types import PartyName

_log = logging.getLogger("fedray")

ArraySource: TypeAlias = str | os.PathLike[str] | PYUObject | Callable[[], Any] | NDArray[Any] | Sequence[Any]

Loaded: TypeAlias = tuple[dict[PYU, PYUObject], dict[PartyName, ArrayPart], Names | None]
"""Each party's array, what they are like, and the names of their columns where all have the same."""


def place(sources: Mapping[PYU, ArraySource], options: ReadOptions) -> Loaded:
    """Returns the arrays that the parties' sources hold, whose columns are in the order of the first party's.

    Args:
        sources: What each party contributes.
        options: How files are read, and which columns are taken.

    Raises:
        DataError: A source cannot be read, or the parties' arrays do not fit together.
        DeviceMismatch: An object is held by another party.
        PlanError: An option is given that says nothing about any of the sources.
    """
    _refuse_unused(sources.values(), options)
    placed = {party: _placed(party, source, options) for party, source in sources.items()}
    headings = _headings(placed)
    parts = {party: array_part(party, shape, dtype) for party, (shape, dtype, _) in headings.items()}
    names = _counted({party: names for party, (*_, names) in headings.items() if names is not None}, parts)
    # Now and not at the first use: a wrong path at one party should fail in the line that names it.
    require_rows(parts)
    # With columns= it is said which ones are meant, and in which order.
    orders = common_order(names) if names and options.columns is None else {}
    joint_shape(parts)
    joint_dtype(parts)
    arrays = {party: array for party, (array, _) in placed.items()}
    if orders:
        first = next(iter(names))
        _log.warning("load: columns of %s are put in the order of %s's", ", ".join(orders), first)
        arrays |= {PYU(p): PYU(p)(inside.take_columns)(arrays[PYU(p)], order) for p, order in orders.items()}
        names |= dict.fromkeys(orders, names[first])
    unnamed = [party for party in parts if party not in names]
    if names and unnamed and options.columns is None:
        _log.warning("load: columns of %s have no names and are joined by position", ", ".join(unnamed))
    agreed = not unnamed and len(set(names.values())) == 1
    return arrays, parts, next(iter(names.values())) if agreed else None


def _refuse_unused(sources: Iterable[ArraySource], options: ReadOptions) -> None:
    """Refuses options of files where no source is such a file: they would be ignored."""
    paths = [source for source in sources if isinstance(source, str | os.PathLike)]
    # A name without an ending is one that a party's operator has given to some file.
    endings = {Path(path).suffix.lower() for path in paths}
    for name, given, ending in (
        ("key", options.key is not None, ".npz"),
        ("header", options.header != "auto", ".csv"),
        ("delimiter", options.delimiter != ",", ".csv"),
    ):
        if given and not endings & {ending, ""}:
            raise PlanError(f"load: {name}: says how {ending} files are read, and no source is one; leave it out")


def _counted(names: dict[PartyName, Names], parts: Mapping[PartyName, ArrayPart]) -> dict[PartyName, Names]:
    """Returns the names of columns, with numbers from 0 for those without any where all names are numbers.

    Such names are pandas's for columns that have none, and columns of an array have the same. By position they would
    be joined with others, where a party has chosen some or has them in another order.
    """
    if not names or not all(name.isdecimal() for some in names.values() for name in some):
        return names
    counted = {party: tuple(map(str, range(part.shape[1]))) for party, part in parts.items() if len(part.shape) == 2}
    return counted | names  # in the order of the parties, since the first one's columns are what others' are put into


def _placed(party: PYU, source: ArraySource, options: ReadOptions) -> tuple[PYUObject, Any]:
    """Returns the array of one source and the names of its columns, both held by its party."""
    pair: tuple[PYUObject, PYUObject]
    if isinstance(source, str | os.PathLike):
        pair = party(read_table, num_returns=2)(os.fspath(source), party.name, options)
        return pair
    if isinstance(source, PYUObject) and source.device != party:
        raise DeviceMismatch(
            f"load: {party.name}'s source is held by {source.device.name}; move it with x.to({party.name})"
        )
    # What a party makes is checked in the party: the driver never sees it.
    if isinstance(source, PYUObject) or callable(source):
        value = party(source)() if callable(source) else source
        pair = party(as_table, num_returns=2)(value, f"party {party.name!r}", options)
        return pair
    # Checked before it is sent: its owner is the driver, whose error it is.
    array, names = as_table(source, f"party {party.name!r}", options)
    return party(np.asarray)(array), names


def _headings(
    placed: Mapping[PYU, tuple[PYUObject, Any]],
) -> dict[PartyName, tuple[tuple[int, ...], str, Names | None]]:
    """Asks each party for shape, dtype and column names of its array, in one question."""
    session = current()
    services = {party: session.serve(party.name, Heading) for party in placed}
    calls = [
        session.ask(
            party.name,
            services[party],
            "tell",
            array.slot(),
            names.slot() if isinstance(names, PYUObject) else names,
            label=session.statement("describe"),
        )
        for party, (array, names) in placed.items()
    ]
    try:
        return dict(zip((party.name for party in placed), session.get(calls), strict=True))
    finally:
        for party, key in services.items():
            session.release(party.name, key)
