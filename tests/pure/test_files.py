# SPDX-License-Identifier: Apache-2.0
"""One party's file becomes one array, and its errors say where, never what."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import numpy as np
import pytest

from fedray.backends.rows import as_arrays
from fedray.data import files
from fedray.data.files import ReadOptions, as_table, read_table
from fedray.data.rowwise import mapped
from fedray.errors import DataError, PlanError
from fedray.party.rounds.summable import flatten
from fedray.tree import Tree


def write(folder: Path, text: str, name: str = "rows.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def read(path: str, **options: object) -> np.ndarray:
    return read_table(path, "alice", ReadOptions(**options))[0]  # type: ignore[arg-type]


def names(path: str, **options: object) -> tuple[str, ...] | None:
    return read_table(path, "alice", ReadOptions(**options))[1]  # type: ignore[arg-type]


def test_npy_keeps_shape_and_dtype(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    np.save(tmp_path / "x.npy", values)
    found = read(str(tmp_path / "x.npy"))
    assert found.dtype == np.int16
    assert np.array_equal(found, values)


def test_npz_with_one_array_needs_no_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", only=np.ones(3))
    assert read(str(tmp_path / "x.npz")).tolist() == [1, 1, 1]


def test_npz_with_several_arrays_needs_a_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones(3), y=np.zeros(2))
    assert read(str(tmp_path / "x.npz"), key="y").tolist() == [0, 0]
    for key in (None, "z"):
        with pytest.raises(
            DataError, match=r"party 'alice': .*x\.npz: expected key= to be the name of one of its 2 arrays, found"
        ) as caught:
            read(str(tmp_path / "x.npz"), key=key)
        assert "'x'" not in str(caught.value), "the names are the party's own"
    np.save(tmp_path / "x.npy", np.zeros(2, [("patient 4711", float)]))
    with pytest.raises(DataError, match=r"expected numbers or booleans, found record of 1 fields"):
        read(str(tmp_path / "x.npy"))


def test_pickled_content_is_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match=r"party 'alice': .*numbers"):
            read(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="party 'alice': "):
        read(write(tmp_path, "PK not really", name))
    with pytest.raises(DataError, match="party 'alice': "):
        read(write(tmp_path, "", name))


def test_an_npy_called_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(2))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(DataError, match="savez"):
        read(str(tmp_path / "x.npz"))


def test_missing_file_names_party_and_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"party 'alice': /.*gone\.npy: no such file where alice's process runs"):
        read(str(tmp_path / "gone.npy"))


def test_unknown_format_offers_the_function(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.npy, \.npz, \.csv.*function"):
        read(write(tmp_path, "", "x.parquet"))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read(str(tmp_path / "x.npy"))


def test_home_is_resolved_where_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", np.ones(2))
    assert read("~/x.npy").tolist() == [1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4\n",
        "1,2\n3,4\n",
        "1,2\n3,4",
        "\n\na,b\n\n1,2\n\n3,4\n",
        "# a,b\n1,2\n3,4\n",
        '"a","b"\n"1","2"\n3,4\n',
        "\ufeff1,2\n3,4\n",
        "\ufeffa,b\r\n1,2\r\n3,4\r\n",
        '"a\nlong name",b\n1,2\n3,4\n',
    ],
)
def test_csv_with_and_without_header(tmp_path: Path, text: str) -> None:
    found = read(write(tmp_path, text))
    assert found.dtype == np.float64
    assert found.tolist() == [[1, 2], [3, 4]]


def test_csv_columns_by_name_and_position(tmp_path: Path) -> None:
    path = write(tmp_path, "id,age,label\nx1,30,0\nx2,41,1\n")
    assert read(path, columns=["label", "age"]).tolist() == [[0, 30], [1, 41]]
    assert read(path, columns="label", dtype="int64").tolist() == [0, 1]
    assert read(path, columns=["label"]).shape == (2, 1)
    assert read(path, columns=[1, 2]).tolist() == [[30, 0], [41, 1]]
    assert read(path, columns=1).tolist() == [30, 41]
    assert read(path, columns=-1).tolist() == [0, 1]


def test_csv_names_are_those_of_the_columns_taken(tmp_path: Path) -> None:
    path = write(tmp_path, "id,age, label\nx1,30,0\nx2,41,1\n")
    assert names(path, columns=["label", "age"]) == ("label", "age")
    assert names(path, columns=[1, -1]) == ("age", "label")
    assert names(path, columns="age") is None
    assert names(write(tmp_path, "1,2\n3,4\n")) is None
    assert names(write(tmp_path, "a,b\n3,4\n")) == ("a", "b")


def test_what_may_be_a_row_is_not_told_as_names(tmp_path: Path) -> None:
    path = write(tmp_path, "Miller,Berlin\n")
    assert len(read(path)) == 0
    assert names(path) is None


@pytest.mark.parametrize("text", ["a,b\n1,2,3\n", "a,b,c\n1,2\n"])
def test_csv_header_of_another_length(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"its header has \d names, but its rows have \d fields"):
        read(write(tmp_path, text))


def test_csv_header_of_numbers_has_to_be_announced(tmp_path: Path) -> None:
    path = write(tmp_path, "0,1\n5,6\n")
    assert read(path).tolist() == [[0, 1], [5, 6]]
    assert read(path, header=True, columns="1").tolist() == [6]


def test_csv_first_line_of_text_and_numbers_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path, "5.1,setosa\n4.9,virginica\n")
    with pytest.raises(DataError, match="mixes numbers and text; say header=True"):
        read(path)
    assert read(path, header=False, columns=[0]).tolist() == [[5.1], [4.9]]


def test_csv_delimiter_and_dtype(tmp_path: Path) -> None:
    found = read(write(tmp_path, "a;b\n1;2.5\n"), delimiter=";", dtype="float32")
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 2.5]]


TEXTS = [
    "SECRET token\nanother line\n",
    "SECRET\n",
    "SECRET\n\n",
    "SECRET,b\nx,y\n1,2\n",
    "SECRET,b\n1\n",
    "SECRET\n1,2\n",
]


def told(path: str, guess: str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, columns=[guess], **options)
    return str(caught.value)


@pytest.mark.parametrize("header", ["auto", True])
@pytest.mark.parametrize("text", TEXTS)
def test_a_guess_of_the_first_line_of_what_is_no_table_is_told_nothing(
    tmp_path: Path, text: str, header: bool | str
) -> None:
    path = write(tmp_path, text)
    answers = {told(path, guess, header=header) for guess in ("SECRET", "SECRET token", "b", "wrong")}
    assert len(answers) == 1
    assert "SECRET" not in answers.pop()


def test_a_reader_that_compares_names_first_answers_guesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken variant."""
    monkeypatch.setattr(files, "_check_table", lambda *_: None)
    path = write(tmp_path, TEXTS[0])
    assert "expected exactly one of that name" in told(path, "wrong")
    assert "expected exactly one of that name" not in told(path, "SECRET token")


def test_csv_with_one_column_and_large_integers(tmp_path: Path) -> None:
    assert read(write(tmp_path, "n\n9007199254740993\n"), dtype="int64").tolist() == [[9007199254740993]]


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("a,b\n1,2\n3,SECRET\n", {}, "row 2 of the data, column 2: expected a number"),
        ("1,2\n3,\n", {}, "row 2 of the data, column 2: expected a number"),
        ("a,b,c\n1,2,3\n4,5,SECRET\n", {"columns": ["c"]}, "row 2 of the data, column 3"),
        ("a\n1\n2.5\n", {"dtype": "int32"}, "row 2 of the data, column 1: expected an integer"),
        ("a,b\n1,2\nSECRET\n", {}, "row 2 of the data has another number"),
        ("a,b\n1,2\n", {"columns": [7]}, "row 1 of the data has another number"),
        ("SECRET,b\n1,2\n", {"columns": ["c"]}, "column 'c': expected exactly one of that name, found 0 among 2"),
        ("a,a\n1,2\n", {"columns": ["a"]}, "column 'a': expected exactly one of that name, found 2"),
        ("1,2\n", {"columns": ["a"]}, "without a header"),
        ("1,' at row 3, column 4.\n", {"header": False}, "row 1 of the data, column 2"),
    ],
)
def test_csv_errors_say_where_and_never_what(tmp_path: Path, text: str, options: dict[str, object], match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read(write(tmp_path, text), **options)
    assert str(caught.value).startswith("party 'alice': ")
    assert "SECRET" not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in "\n".join(line for line in shown.splitlines() if not line.startswith("    "))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_csv_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"a,b\n1,\xff\xfe\n")
    with pytest.raises(DataError, match=r"no text in UTF-8; .*encoding='latin-1'"):
        read(str(tmp_path / "x.csv"))


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("columns", [None, ["age"]], ids=str)
def test_csv_with_another_delimiter_says_which(tmp_path: Path, mark: str, columns: list[str] | None) -> None:
    path = write(tmp_path, f"age{mark}SECRET\n1,5{mark}2\n3{mark}4\n")
    with pytest.raises(DataError, match=re.escape(f"separated by {mark!r}, so say delimiter={mark!r}")) as caught:
        read(path, columns=columns)
    assert "SECRET" not in str(caught.value)
    with pytest.raises(DataError, match="row 1 of the data, column 1: expected a number"):
        read(path, delimiter=mark)  # a decimal comma: the delimiter is the right one
    assert read(write(tmp_path, f"age{mark}b\n1{mark}2\n"), delimiter=mark).tolist() == [[1.0, 2.0]]


def test_columns_of_a_frame_that_are_no_numbers_are_named() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [1, 2], "sex": ["m", "f"], "day": pandas.to_datetime(["2024-01-02"] * 2)})
    with pytest.raises(DataError, match=r"found object in 'sex', 'day'; .*get_dummies"):
        as_table(frame, "party 'alice'", ReadOptions())
    assert as_table(frame, "party 'alice'", ReadOptions(columns=["age"]))[0].tolist() == [[1], [2]]


def test_columns_of_several_types_become_one_that_holds_the_numbers_of_all() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"ill": [True, False], "age": [1.5, 2.0], "id": [2**53, 7]})
    array, names = as_table(frame, "party 'alice'", ReadOptions())
    assert (array.tolist(), names) == ([[1.0, 1.5, 2.0**53], [0.0, 2.0, 7.0]], ("ill", "age", "id"))
    long = frame.assign(id=[2**53 + 1, 7])
    with pytest.raises(
        DataError, match="party 'alice': column 'id': a cast from int64 to float64 would change numbers"
    ):
        as_table(long, "party 'alice'", ReadOptions())
    assert as_table(long, "party 'alice'", ReadOptions(casting="unsafe"))[0][0].tolist() == [1.0, 1.5, 2.0**53]
    assert as_table(long[["ill", "id"]], "party 'alice'", ReadOptions())[0].tolist() == [[1, 2**53 + 1], [0, 7]]


def test_columns_of_arrays_are_chosen_by_position(tmp_path: Path) -> None:
    """Not asked for in vain: whoever names two columns and gets all trains on others than meant."""
    rows = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "x.npy", rows)
    np.savez(tmp_path / "x.npz", rows)
    for columns in ([2, 0], 1, (1,), [np.int64(-1)]):
        expected = rows[:, columns if isinstance(columns, int) else list(columns)].tolist()
        assert as_table(rows, "party 'alice'", ReadOptions(columns=columns))[0].tolist() == expected
        assert [read(str(tmp_path / name), columns=columns).tolist() for name in ("x.npy", "x.npz")] == [expected] * 2
    for columns, said in (["age"], "an array has no names of columns"), ([3], r"expected positions .*shape \(2, 3\)"):
        with pytest.raises(DataError, match=said):
            as_table(rows, "party 'alice'", ReadOptions(columns=columns))
        with pytest.raises(DataError, match=said):
            read(str(tmp_path / "x.npy"), columns=columns)
    with pytest.raises(DataError, match=r"expected positions of columns, found shape \(2,\)"):
        as_table(rows[:, 0], "party 'alice'", ReadOptions(columns=0))
    for wrong in ([True], 1.5, [1.0], [], np.arange(2)):
        with pytest.raises(PlanError, match="columns="):
            ReadOptions(columns=wrong)


def test_csv_with_long_whole_numbers_is_not_rounded_in_silence(tmp_path: Path) -> None:
    path = write(tmp_path, "id,age\n9007199254740993,1.5\n7,2\n")
    with pytest.raises(DataError, match="column 1: whole numbers of more than 53 bits would be rounded; say dtype="):
        read(path)
    assert read(path, columns=["age"]).tolist() == [[1.5], [2.0]]
    assert read(path, columns=["id"], dtype="int64").tolist() == [[9007199254740993], [7]]
    assert read(path, casting="unsafe")[0].tolist() == [2.0**53, 1.5]
    exact = write(tmp_path, "a,b,c\n9007199254740992,1e300,-18014398509481984.0\n1e17,inf,nan\n")
    assert read(exact)[0].tolist() == [2.0**53, 1e300, -(2.0**54)]


def test_masked_values_are_no_numbers() -> None:
    masked = np.ma.masked_array([1.0, 999.0], mask=[False, True])
    with pytest.raises(DataError, match=r"party 'alice': expected numbers, found a masked array, .*filled"):
        as_table(masked, "party 'alice'", ReadOptions())
    with pytest.raises(DataError, match=r"party 'alice': map\(f\): expected an array, found a masked one"):
        mapped("alice", "map(f)", lambda _: masked, np.zeros(2))
    with pytest.raises(DataError, match=r"value\['a'\]: found a masked array, .*filled"):
        flatten({"a": masked})
    with pytest.raises(DataError, match="x: found a masked array"):
        as_arrays(Tree(masked, "x"), "float32")
    assert as_table(np.ma.masked_array([1.0, 2.0]), "party 'alice'", ReadOptions())[0].tolist() == [1.0, 2.0]


def test_numbers_beyond_the_models_type_do_not_become_infinite() -> None:
    with pytest.raises(DataError, match="x: some numbers are beyond what float32 holds"):
        as_arrays(Tree(np.array([1.0, -1e39]), "x"), "float32")
    kept = as_arrays(Tree(np.array([np.inf, np.nan, 3e38]), "x"), "float32").leaves()[0]
    assert kept.dtype == np.float32
    assert np.isinf(kept).tolist() == [True, False, False]


def test_csv_without_rows_is_empty_not_an_accident(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert len(read(write(tmp_path, "a,b\n"))) == 0
    assert len(read(write(tmp_path, ""))) == 0
    assert not recwarn.list


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([None]), np.array([1j]), "text", [object()]])
def test_text_and_objects_are_no_numbers(value: object) -> None:
    with pytest.raises(DataError, match="party 'alice': expected numbers or booleans"):
        as_table(value, "party 'alice'", ReadOptions())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"header": "yes"}, "header"),
        ({"delimiter": ",,"}, "delimiter"),
        ({"dtype": "wrong"}, "dtype"),
        ({"dtype": "U5"}, "dtype"),
        ({"casting": "safe"}, "casting='safe': expected 'same_value'"),
    ],
)
def test_wrong_options_are_refused_before_reading(options: dict[str, object], match: str) -> None:
    with pytest.raises(PlanError, match=match):
        ReadOptions(**options)  # type: ignore[arg-type]
