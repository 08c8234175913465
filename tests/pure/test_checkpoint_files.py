# SPDX-License-Identifier: Apache-2.0
"""What is kept on a disk: plain values come back bit by bit, and whatever is damaged is refused and not read."""

import errno
import json
import math
import os

import numpy as np
import pytest

from fedray.errors import DataError, ProtocolError
from fedray.party.kept import kept_file
from fedray.party.kept.nest import put_together, taken_apart
from fedray.party.kept.pass_log import PassLog

VALUES = [
    None,
    True,
    -(2**70),
    0.1,
    math.inf,
    -0.0,
    "ä \n\0",
    b"\x00\xff",
    [1, (2, [None])],
    {"a": 1, 7: {"b": ()}, (1, "x"): b""},
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(5, np.uint32),
    np.empty((0, 3), np.float64),
    np.array([True, False]),
    np.float32(0.1),
    np.arange(4, dtype=">i2"),
    np.arange(6).reshape(2, 3).T,
]


def same(a, b):
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=") and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def written(folder, value=VALUES, name="x"):
    kept_file.write(folder, name, "thing", {"number": 1}, taken_apart(value))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_plain_value_comes_back(folder, value):
    written(folder, value)
    record, found = kept_file.read(folder, "x", "thing")
    assert record == {"number": 1}
    assert same(found, value)


def test_not_a_number_comes_back(folder):
    written(folder, [math.nan, np.array([math.nan, 1.0])])
    _, (number, array) = kept_file.read(folder, "x", "thing")
    assert math.isnan(number)
    assert math.isnan(array[0])


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["text"]), np.array([1j]), np.array([None]), print])
def test_what_is_not_plain_is_not_written(value):
    with pytest.raises(DataError, match="cannot be kept: expected numbers"):
        taken_apart([value])


@pytest.mark.parametrize(
    "plain", [{}, {"array": "9", "shape": [1]}, {"code": "x"}, {"pairs": [[1]]}, {"bytes": "zz"}, {"float": "x"}]
)
def test_what_is_no_plain_value_is_refused(plain):
    with pytest.raises(DataError, match="something else"):
        put_together(plain, {})


def test_nothing_is_pickled(folder):
    written(folder)
    assert sorted(os.listdir(folder)) == ["x.json", "x.safetensors"]
    assert all(os.stat(folder / name).st_mode & 0o777 == 0o600 for name in os.listdir(folder))
    json.loads((folder / "x.json").read_text())


@pytest.mark.parametrize("ending", ["json", "safetensors"])
def test_whatever_is_damaged_is_refused(folder, ending):
    """Cut off anywhere, and with any one of some bits turned."""
    written(folder, [VALUES[-1], "text", 0.5])
    path = folder / f"x.{ending}"
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="is damaged"):
            kept_file.read(folder, "x", "thing")
    for place in range(0, len(whole), 11):
        turned = bytearray(whole)
        turned[place] ^= 4
        path.write_bytes(turned)
        if ending == "json" and _says(turned) == _says(whole):
            continue  # white space between two words
        with pytest.raises(DataError, match=r"is damaged|expected a thing"):
            kept_file.read(folder, "x", "thing")
    path.write_bytes(whole)
    kept_file.read(folder, "x", "thing")


def _says(content):
    try:
        return json.loads(bytes(content))
    except ValueError:
        return None


def test_arrays_of_another_thing_are_refused(folder):
    written(folder, [1, np.arange(3)])
    written(folder, [1, np.arange(4)], name="y")
    (folder / "y.safetensors").replace(folder / "x.safetensors")
    with pytest.raises(DataError, match=r"x\.safetensors is damaged"):
        kept_file.read(folder, "x", "thing")


def test_another_kind_of_thing_and_another_version_are_named(folder, monkeypatch):
    written(folder)
    with pytest.raises(DataError, match="expected a run of version 1, found 'thing' of version 1"):
        kept_file.read(folder, "x", "run")
    monkeypatch.setattr(kept_file, "VERSION", 2)
    with pytest.raises(DataError, match="expected a thing of version 2, found 'thing' of version 1; read it with the"):
        kept_file.read(folder, "x", "thing")


def test_what_cannot_be_written_leaves_what_was_there(folder, monkeypatch):
    written(folder, "before")
    monkeypatch.setattr(kept_file, "replace_file", full)
    with pytest.raises(OSError, match="No space"):
        written(folder, "after")
    assert kept_file.read(folder, "x", "thing")[1] == "before"


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_passes_are_kept_and_a_torn_line_is_dropped(folder):
    path, everybody = folder / "passes.log", ("alice", "bob", "carol")
    log = PassLog(path, "alice")
    log.make()
    log.add(b"one", everybody)
    log.add(b"one", everybody)
    log.add(b"two", everybody[:2])
    path.write_bytes(path.read_bytes() + b'["6f6e65", "ali')
    log = PassLog(path, "alice")
    assert log.lines == [(b"one", everybody), (b"two", everybody[:2])]
    log.add(b"three", everybody)
    assert PassLog(path, "alice").lines[-1] == (b"three", everybody)
    path.write_bytes(b"[1]\n" + path.read_bytes())
    with pytest.raises(DataError, match=r"line 1 of .*passes\.log is damaged"):
        PassLog(path, "alice")


def test_rows_do_not_leave_for_another_set_that_cannot_be_written_down(folder, monkeypatch):
    log = PassLog(folder / "passes.log", "alice")
    log.add(b"one", ("alice", "bob", "carol"))
    monkeypatch.setattr("fedray.party.kept.pass_log.os.open", full)
    log.add(b"two", ("alice", "bob", "carol"))
    with pytest.raises(
        ProtocolError, match=r"party 'alice': cannot write to .*\(No space left on device\), so nothing"
    ):
        log.add(b"three", ("alice", "bob"))
