# SPDX-License-Identifier: Apache-2.0
"""Reading one party's file, or taking its data frame, as one array: `.npy`, `.npz`, CSV, and whatever NumPy takes.

Runs inside the party that owns the file. Its errors name the party, the file, and rows and columns by number, and never
quote a cell: they leave the party, also under strict egress. Knows no device and no other party. Pickled content is
never opened.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fedray.data.casting import Casting, cast, checked_casting
from fedray.data.columns import Names, listed
from fedray.data.rows import is_integer
from fedray.data.tables import columns_of, one_type, rounds_integers
from fedray.errors import DataError, PlanError
from fedray.party.house.in_force import rules_of
from fedray.party.parcel import dtype_of

Column: TypeAlias = str | int
Table: TypeAlias = tuple[NDArray[Any], Names | None]
"""An array, and the names of its columns where they have names."""

Header: TypeAlias = bool | Literal["auto"]

# NumPy's own messages, from which row and column are taken. They quote the cell, so they never leave as they are.
_BAD_CELL = re.compile(r" at row (\d+), column (\d+)\.$")
_DELIMITERS = (",", ";", "\t", "|")
_BAD_ROW = re.compile(r" at row (\d+)(?: with \d+ columns|; use `usecols`.*)$")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How files are read, the same at every party.

    Attributes:
        key: Name of the array in an `.npz` file; `None` where the file holds one array only.
        columns: Columns of a table, by name or by position from 0, in the order wanted. One alone gives a
            one-dimensional array, a list a two-dimensional one, `None` all of them.
        header: Whether a CSV file begins with column names; `"auto"` takes a first line without numbers for one.
        delimiter: What separates the fields of a CSV file.
        dtype: Type of the result, e.g. `"float32"`; by default that of the file, and float64 for CSV.
        casting: What the conversion to `dtype` may do; see `fedray.data.casting`.
    """

    key: str | None = None
    columns: Column | Sequence[Column] | None = None
    header: Header = "auto"
    delimiter: str = ","
    dtype: str | None = None
    casting: Casting = "same_value"

    def __post_init__(self) -> None:
        """Checks the options before any file is opened.

        Raises:
            PlanError: An option is not one of those above.
        """
        if self.header not in (True, False, "auto"):
            raise PlanError(f"header={self.header!r}: expected True, False or 'auto'")
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1:
            raise PlanError(f"delimiter={self.delimiter!r}: expected one character")
        if self.dtype is not None and not _is_numeric(self.dtype):
            raise PlanError(f"dtype={self.dtype!r}: expected a boolean, integer or floating type, e.g. 'float32'")
        checked_casting(self.casting)
        wanted = [self.columns] if self.columns is None or isinstance(self.columns, str) else self.columns
        for column in wanted if isinstance(wanted, Sequence) else [wanted]:
            if column is not None and not isinstance(column, str) and not is_integer(column):
                raise PlanError(f"columns={self.columns!r}: expected names or positions from 0, or a list of them")
        if isinstance(wanted, Sequence) and not wanted:
            raise PlanError("columns=[]: expected at least one column; None takes all")


def _is_numeric(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False


def read_table(source: str, party: str, options: ReadOptions) -> Table:
    """Returns the array in a file of this party, and the names of its columns.

    Args:
        source: Path as this party's process sees it; `~` and relative paths are resolved here. Or a name under which
            the party's `party.toml` lists a file.
        party: The party's name, for errors.
        options: How to read.

    Returns:
        An array of numbers or booleans, of `options.dtype` where that is given; names of a CSV file's columns.

    Raises:
        DataError: The file is missing, cannot be read, or holds something else, or the party's `party.toml` does not
            let it be read.
    """
    source = _registered(source, party)
    # Here, inside the party: `~` and the current folder are those of its process.
    path = Path(source).expanduser().absolute()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"party {party!r}: {path}: expected a file that ends in {', '.join(_READERS)}; other formats "
            f"can be read with a function in place of the path, which runs inside {party}"
        )
    try:
        where = f"party {party!r}: {path}"
        array, names = reader(path, where, options)
        return _numbers(array, names, where, options), names
    except FileNotFoundError:
        raise DataError(
            f"party {party!r}: {path}: no such file where {party}'s process runs; give the path as it is there"
        ) from None
    except UnicodeDecodeError:
        raise DataError(
            f"party {party!r}: {path}: it is no text in UTF-8; save it as such ('CSV UTF-8' in a spreadsheet), or give "
            "load a function in place of the path: lambda: pandas.read_csv(path, encoding='latin-1')"
        ) from None
    except (OSError, EOFError, BadZipFile) as error:
        raise DataError(f"party {party!r}: {path}: cannot be read: {type(error).__name__}") from None


def _registered(source: str, party: str) -> str:
    """Returns the path of a source that a party's operator has registered by a name; any other as it is."""
    # Read each time: the operator may register another file while a session runs.
    rules = rules_of(party)
    if rules is None:
        return source
    if source in rules.data:
        return rules.data[source]
    names = f"it has {', '.join(sorted(rules.data))}" if rules.data else "it has none"
    if rules.paths == "registered":
        raise DataError(
            f"party {party!r}: {source!r} is no data registered in its party.toml ({names}), and nothing else may be "
            'loaded there (paths = "registered")'
        )
    # Neither a name nor a path that anything could be read from.
    if not Path(source).suffix:
        raise DataError(
            f"party {party!r}: {source!r} is no data registered in its party.toml ({names}), and no file that ends in "
            f"{', '.join(_READERS)}"
        )
    return source


def as_table(value: Any, where: str, options: ReadOptions) -> Table:
    """Returns `value` as an array of numbers or booleans, of `options.dtype` where that is given, and its names.

    Args:
        value: Anything that NumPy turns into an array; a data frame has names, and its columns are chosen.
        where: What to call it in errors, beginning with the party's name.
        options: How to read.

    Raises:
        DataError: It holds text or objects, a column is missing, or the conversion would change a number.
    """
    names = None
    # By what it looks like, so that pandas is not imported here; other libraries' frames are alike.
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        value, names = _chosen(value, where, options.columns)
        return _numbers(value, names, where, options), names
    return columns_of(_numbers(value, None, where, options), options.columns, where), None


def _chosen(frame: Any, where: str, columns: Column | Sequence[Column] | None) -> tuple[Any, Names | None]:
    """Returns the wanted columns of a data frame, and their names."""
    labels = list(frame.columns)
    # pandas numbers columns that have no names. Numbers in another order, or with gaps, are names: of some columns that
    # were chosen, and somebody else may have chosen others.
    named = not all(is_integer(label) for label in labels) or labels != list(range(len(labels)))
    names = [str(label) for label in labels] if named else []
    chosen = _positions(columns, names, where)
    if chosen is None:
        return frame, tuple(names) if named else None
    try:
        wanted = [labels[position] for position in chosen]
    except IndexError:
        raise DataError(f"{where}: columns={columns!r}: expected positions below {len(labels)}") from None
    if max(map(labels.count, wanted), default=0) > 1:
        raise DataError(f"{where}: columns={columns!r}: a column of that name is there more than once; rename it")
    if isinstance(columns, str | int):
        return frame[wanted[0]], None
    return frame[wanted], tuple(str(label) for label in wanted) if named else None


def _numbers(value: object, names: Names | None, where: str, options: ReadOptions) -> NDArray[Any]:
    array = one_type(value, names, where, options.dtype, options.casting)
    # Text and objects cannot be summed, and an array of objects may hide anything.
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: expected numbers or booleans, found {dtype_of(array)}{_texts(value, names)}; where it is read, "
            "text becomes numbers by frame['sex'] == 'm' or pandas.get_dummies(frame, dtype=float), and a date by "
            "(frame['day'] - pandas.Timestamp('2020-01-01')).dt.days"
        )
    return array if options.dtype is None else cast(array, options.dtype, where, names, options.casting)


def _texts(value: object, names: Names | None) -> str:
    """Returns which columns of a data frame are no numbers, for an error; their names are the driver's to know."""
    kinds = [getattr(dtype, "kind", "") for dtype in getattr(value, "dtypes", ())] if names else []
    found = [name for name, kind in zip(names or (), kinds, strict=False) if kind and kind not in "biuf"]
    return f" in {listed(found)}" if found else ""


def _read_npy(path: Path, where: str, options: ReadOptions) -> Table:
    try:
        # A pickle in a file runs code when it is read.
        array = np.asarray(np.load(path, allow_pickle=False))
    except ValueError:
        raise DataError(f"{where}: expected one array of numbers, saved with np.save, found no such array") from None
    return columns_of(array, options.columns, where), None


def _read_npz(path: Path, where: str, options: ReadOptions) -> Table:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            key = names[0] if options.key is None and len(names) == 1 else options.key
            if key not in names:
                # Not by their names, which are the party's own.
                raise DataError(
                    f"{where}: expected key= to be the name of one of its {len(names)} arrays, found {options.key!r}"
                )
            return columns_of(np.asarray(archive[key]), options.columns, where), None
    except DataError:
        raise
    except (ValueError, AttributeError, TypeError):  # TypeError: a bare .npy under this name is no archive
        raise DataError(f"{where}: expected arrays of numbers, saved with np.savez, found something else") from None


def _read_csv(path: Path, where: str, options: ReadOptions) -> Table:
    # "utf-8-sig" drops the mark that spreadsheets put in front, which would otherwise be part of the first name.
    with path.open(encoding="utf-8-sig", newline="") as file:
        names, skip = _header(file, where, options)
        _check_table(file, names, where, options)
        chosen = _positions(options.columns, names, where)
        # The reader of the header has read ahead; NumPy counts its lines from the beginning.
        file.seek(0)
        integers = options.dtype is not None and np.dtype(options.dtype).kind in "iu"
        read = partial(
            np.loadtxt,
            delimiter=options.delimiter,
            quotechar='"',
            comments=None,  # a '#' in a cell is data
            skiprows=skip,
            ndmin=2,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "no data", which the caller reports
                warnings.simplefilter("error", DeprecationWarning)  # NumPy 2.0 else reads 2.5 as the whole number 2
                # Whole numbers above 2^53 do not survive a float; all others are read as float64 and converted once.
                table = read(file, dtype=options.dtype if integers else np.float64, usecols=chosen)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            raise DataError(f"{where}: {_separated(file, options) or _explain(str(error), integers)}") from None
        large = np.abs(table) >= 2.0**53 if not integers and options.casting != "unsafe" else np.zeros_like(table, bool)
        for place in np.flatnonzero(large.any(axis=0)):
            file.seek(0)
            column = int(place if chosen is None else chosen[place])
            if rounds_integers(read(file, dtype=str, usecols=[column])[:, 0].tolist(), table[:, place].tolist()):
                raise DataError(
                    f"{where}: column {column + 1}: whole numbers of more than 53 bits would be rounded; say "
                    "dtype='int64', leave the column out by columns=[...], or say casting='unsafe'"
                )
    if isinstance(options.columns, str | int):
        return table[:, 0], None
    # Without rows to prove it, what was taken for names may be a row of data, and names leave the party.
    if not names or not len(table):
        return table, None
    if chosen is None and len(names) != table.shape[1]:
        raise DataError(
            f"{where}: its header has {len(names)} names, but its rows have {table.shape[1]} fields; mend the header, "
            "or say header=False with the numeric columns in columns="
        )
    return table, tuple(names if chosen is None else [names[position] for position in chosen])


def _separated(file: Any, options: ReadOptions) -> str:
    """Returns what to say where the lines of a table seem to be separated by something else than was said."""
    file.seek(0)
    lines = list(islice((line for line in file if line.strip()), 2))
    counts = {mark: {line.count(mark) for line in lines} for mark in (options.delimiter, *_DELIMITERS)}
    # As many in the first line as in the second, and of what was said none or now this many and now that.
    even = [mark for mark, found in counts.items() if len(found) == 1 and found != {0}]
    if len(lines) < 2 or not even or even[0] == options.delimiter:
        return ""
    return f"its fields seem to be separated by {even[0]!r}, so say delimiter={even[0]!r}"


def _header(file: Any, where: str, options: ReadOptions) -> tuple[list[str], int]:
    """Returns (column names, physical lines to skip); no names and 0 lines where there is no header."""
    if options.header is False:
        return [], 0
    lines = csv.reader(file, delimiter=options.delimiter)
    first = next((fields for fields in lines if any(field.strip() for field in fields)), [])
    numbers = sum(_is_number(field) for field in first)
    filled = sum(bool(field.strip()) for field in first)
    # Names such as "2020" beside text, or a text column: a guess could drop a row of data or take one for names.
    if options.header == "auto" and 0 < numbers < filled:
        raise DataError(
            f"{where}: its first line mixes numbers and text; say header=True if it holds column names, else "
            "header=False with the numeric columns in columns="
        )
    if options.header == "auto" and numbers:
        return [], 0
    return [field.strip().removeprefix("# ") for field in first], lines.line_num


def _check_table(file: Any, names: list[str], where: str, options: ReadOptions) -> None:
    """Checks that names are those of a table, before any of them is compared with what was asked for.

    Else whoever may name files and columns could test a guess of the first line of any text at the party.

    Args:
        file: Read up to the end of its header.
        names: What is in its first line; empty where it has no header.
        where: What to call it in errors.
        options: How it is read.
    """
    columns = [options.columns] if isinstance(options.columns, str | int) else options.columns or []
    if not names or not any(isinstance(column, str) for column in columns):
        return
    rows = (fields for fields in csv.reader(file, delimiter=options.delimiter) if any(map(str.strip, fields)))
    row = next(rows, [])
    if len(row) != len(names) or not any(map(_is_number, row)):
        raise DataError(
            f"{where}: columns= by name takes a table: a line of names, and under it rows of as many fields, with "
            f"numbers among them; found something else. {_separated(file, options)}".rstrip(". ")
        )


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _positions(columns: Column | Sequence[Column] | None, names: list[str], where: str) -> list[int] | None:
    """Returns the positions of the wanted columns; `None` for all."""
    if columns is None:
        return None
    wanted = [columns] if isinstance(columns, str | int) else list(columns)
    for column in wanted:
        if isinstance(column, str) and names.count(column) != 1:
            # The names found are not listed: without a header, the first row of data would pass for them.
            found = f"{names.count(column)} among {len(names)} names" if names else "a file without a header"
            raise DataError(f"{where}: column {column!r}: expected exactly one of that name, found {found}")
    return [names.index(column) if isinstance(column, str) else column for column in wanted]


def _explain(message: str, integers: bool) -> str:
    """Says what NumPy found wrong, by row and column, without the cell's text."""
    if cell := _BAD_CELL.search(message):
        # NumPy counts rows from 0 here and from 1 in its other message.
        row, column = int(cell[1]) + 1, cell[2]
        kind = "an integer of the type asked for" if integers else "a number"
        return (
            f"row {row} of the data, column {column}: expected {kind}, found something else or nothing; "
            "columns=[...] takes the columns of numbers alone, and for gaps, text and dates give load a function in "
            "place of the path, such as lambda: pandas.read_csv(path).fillna(0)"
        )
    if row_found := _BAD_ROW.search(message):
        return f"row {row_found[1]} of the data has another number of fields than asked for or than row 1"
    return "not a table of numbers; check the delimiter and the quotes"


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
