# SPDX-License-Identifier: Apache-2.0
"""Exceptions as records and back."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedray import errors
from fedray.data.inside import combine
from fedray.data.rows import row_axes
from fedray.errors import DataError, FedRayError, PartyError, PartyLost, type_of
from fedray.party import failures
from fedray.party.answers import spread
from fedray.party.failures import Failed, to_error, to_failure
from fedray.party.parcel import dtype_of, pack
from fedray.party.rounds.summable import flatten
from fedray.party.table import ObjectTable
from fedray.party.training.local_model import LocalModel
from fedray.protocol.policy import Policy
from fedray.tree import Tree, common_rows
from fedray.types import Failure


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def raised_by_fedray():
    try:
        ObjectTable("alice").get("nothing")
    except FedRayError as caught:
        return caught


def every_error():
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FedRayError)]


@pytest.mark.parametrize("kind", every_error())
def test_each_of_our_errors_comes_back_as_itself(kind):
    back = to_error(to_failure(raised(kind("because")), "alice", "work", text=True))
    assert type(back) is kind
    assert "because" in str(back)
    assert "alice" in str(back)


def test_any_other_error_comes_back_as_party_error_with_all_it_knows():
    back = to_error(to_failure(raised(KeyError("k")), "alice", "work", text=True))
    assert type(back) is PartyError
    assert (back.party, back.function, back.remote_type) == ("alice", "work", "KeyError")
    assert str(back).startswith("party 'alice': KeyError in work: 'k'\n\n--- traceback in party 'alice' ---\n  File")
    assert back.sentence == "party 'alice': KeyError in work: 'k'"
    assert "raise error" in back.remote_frames
    assert back.remote_traceback.startswith("Traceback")


def test_the_first_failure_is_passed_on():
    first = Failure("PartyError", "first", "bob", "origin")
    assert to_failure(raised(Failed(first)), "alice", "work", text=False) is first


def test_what_was_told_by_another_party_keeps_its_origin():
    from fedray.runtime.gather import opened

    told = Failure("PartyError", "party 'bob': ValueError in f", "bob", "f", "ValueError", "trace")
    lost = Failure("PartyLost", "party 'bob' has ended", "bob")
    for text in (True, False):
        for failure in (told, lost):
            with pytest.raises(FedRayError) as caught:
                opened(failure)
            again = to_failure(caught.value, "alice", "work", text=text)
            assert again.party == "bob"
            assert to_error(again).party == "bob"


def test_strict_records_hold_type_and_place_only():
    record = to_failure(raised(ValueError("4711")), "alice", "work", text=False)
    assert "4711" not in repr(record)
    assert record.remote_type == "ValueError"
    assert "test_failures.py" in record.traceback
    assert record.traceback.count("\n") == 1
    for error in (DataError("4711"), PartyError("4711", party="4711"), PartyLost("4711", party="4711")):
        record = to_failure(raised(error), "alice", "work", text=False)
        assert "4711" not in repr(record)
        assert record.party == "alice"


def test_what_fedray_itself_says_is_told_under_strict_too():
    record = to_failure(raised_by_fedray(), "alice", "work", text=False)
    assert "holds no object 'nothing'" in record.message


class Table:
    def __reduce__(self):
        raise ValueError("row 4711\nrow 4712")


def builder():
    """Of a user's: it borrows our class, and its own code raises it."""
    raise DataError("row 4711 does not fit")


def build():
    with LocalModel.named(SimpleNamespace(party="alice")):
        builder()


def patient(**members):
    return type("patient_4711", (), members)()


QUOTING = {
    "a builder's own": build,
    "rows of what cannot be pickled": lambda: pack([Table()]),
    "a key": lambda: flatten({"4711": "text"}),
    "a key with quotes": lambda: flatten({"4711's": "text"}),
    "a key with brackets": lambda: flatten({"a'] 4711": "text"}),
    "a key with both quotes and brackets": lambda: flatten({"a']\"] 4711": "text"}),
    "a key within": lambda: flatten([{"a": {"4711": None}}]),
    "keys of rows": lambda: common_rows([Tree({"4711": np.ones(2), "b": np.ones(3)}, "x")]),
    "a key below which are others": lambda: Tree({"4711": {3: 4711}}),
    "a class's name": lambda: flatten([patient()]),
    "the name of a class that cannot be pickled": lambda: pack(patient(__reduce__=lambda _: 1 / 0)),
    "the name of a class without rows": lambda: common_rows([Tree([patient()], "x")]),
    "the name of a class where several values were expected": lambda: spread(patient(), 2),
    "how many values": lambda: spread([0] * 4711, 2),
    "how long a text is": lambda: flatten("x" * 4711),
    "names of fields that are added": lambda: combine(
        "alice", np.add, np.zeros(2, [("patient 4711", float)]), 1.0, rowwise=False, swapped=False
    ),
    "names of fields": lambda: flatten(np.zeros(2, [("patient 4711", float)])),
}


LENT = {
    "a function of ours that quotes": lambda: row_axes((4711,), 2),
    "a public one": lambda: Policy.of({"patient 4711": 1}),
    "code in names of ours": lambda: exec("raise DataError('4711')", vars(errors)),
    "a file's name": lambda: exec(compile("raise ValueError", "4711", "exec")),
    "a line's number": lambda: exec(compile("\n" * 4710 + "raise ValueError", __file__ + "x", "exec")),
    "a function's name": lambda: exec("def patient_4711(): raise ValueError\npatient_4711()"),
    "a class": lambda: raised_again(type("patient_4711", (Exception,), {})),
    "a class that says it is Python's": lambda: raised_again(type("p4711", (Exception,), {"__module__": "builtins"})),
}


def raised_again(kind):
    raise kind


def called(function):
    """Returns what a party makes of an exception, with the frames of a call there."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 (whichever)
        Tree([1]).map(lambda _: function())
    return to_failure(caught.value, "alice", "work", text=False)


@pytest.mark.parametrize("what", LENT)
def test_user_code_puts_nothing_into_an_error_by_way_of_ours(what):
    assert "4711" not in str(called(LENT[what]))


def test_a_party_that_looks_at_the_last_frame_only_lends_its_words(monkeypatch):
    """The broken variant."""
    monkeypatch.setattr(failures, "_owner", lambda _: "fedray")
    assert "4711" in str(called(LENT["a function of ours that quotes"]))


@pytest.mark.parametrize("what", QUOTING)
def test_what_fedray_quotes_of_others_is_withheld_under_strict(what):
    with pytest.raises(FedRayError) as caught:
        QUOTING[what]()
    record = to_failure(caught.value, "alice", "work", text=False)
    assert "4711" not in repr(record)
    assert "4712" not in repr(record)
    told = to_failure(caught.value, "alice", "work", text=True)
    assert "4711" in told.message or what.startswith("names of fields")
    assert record.message.startswith("party 'alice': ")
    assert len(record.message) > len("party 'alice': ") + 20, "the kind of error at least is told"


@pytest.mark.parametrize("what", [what for what in QUOTING if not what.startswith("names of fields")])
def test_a_record_that_believes_our_own_text_is_found(what, monkeypatch):
    """The broken variant."""
    monkeypatch.setattr(failures, "_discreet", str)
    monkeypatch.setattr(failures, "_raised_by_us", lambda _trace: True)
    with pytest.raises(FedRayError) as caught:
        QUOTING[what]()
    assert "4711" in to_failure(caught.value, "alice", "work", text=False).message


def test_what_is_quoted_in_a_quoted_name_is_withheld_too():
    name = Tree({"it's \"4711\"']": 1}, "value").names()[0]
    for text in (f"tensor {name!r} holds NaN", f"tensor {name} holds NaN", f"{name!r}", repr(repr(name))):
        record = to_failure(raised_here(text), "alice", "work", text=False)
        assert "4711" not in record.message


def raised_here(text):
    """Returns an error of fedray's own code with a text."""
    try:
        ObjectTable(text).get("nothing")
    except FedRayError as caught:
        caught.args = (text,)
        return caught


def test_a_type_is_named_where_it_is_python_s_or_numpy_s_and_no_name_passes_for_one():
    for value, name in (
        (1, "int"),
        ([], "list"),
        (None, "NoneType"),
        (np.float32(1), "float32"),
        (np.ones(1), "ndarray"),
    ):
        assert type_of(value) == name
    assert type_of(type("int", (), {"__module__": "builtins"})()) == "type 'int'"
    for name in ("patient 4711", "it's \"4711", "ä4711", "4711"):
        assert type_of(type(name, (), {})()) == "a type of the user's own"
    record = to_failure(
        raised_here("found <U4711, |S4711, datetime64[4711s], record of 4711 fields"), "a", "f", text=False
    )
    assert "4711" not in record.message


def test_lists_of_names_are_no_keys():
    text = "already summed over ['alice'] or ['alice', 'bob'], columns[2] and x[3] of y['k'] and z['l']"
    record = to_failure(raised_here(text), "alice", "work", text=False)
    assert record.message == f"party 'alice': {text}".replace("'k'", "(withheld)").replace("'l'", "(withheld)")


def test_names_of_fields_are_in_no_dtype():
    assert dtype_of(np.zeros(1, [("patient 4711", float), ("b", int)])) == "record of 2 fields"
    assert dtype_of(np.zeros(1, np.float32)) == "float32"


def test_a_record_of_an_unknown_class_is_a_party_error():
    for name in ("NoSuchError", "annotations", "__name__", ""):
        assert type(to_error(Failure(name, "text", "alice"))) is PartyError


def test_notes_carry_the_traceback_of_user_code_only():
    theirs = to_error(to_failure(raised(DataError("because")), "alice", "work", text=True))
    assert "raise error" in theirs.__notes__[0]
    ours = to_error(to_failure(raised_by_fedray(), "alice", "work", text=True))
    assert not hasattr(ours, "__notes__")


def test_a_party_is_named_once():
    """Protocol code says whose end it is before the transport does."""
    record = to_failure(
        raised(errors.ProtocolError("alice: the keys of round 3 are gone")), "alice", "train", text=True
    )
    assert record.message == "party 'alice': the keys of round 3 are gone"
    record = to_failure(raised(errors.ProtocolError("bob: no round is under way")), "alice", "train", text=True)
    assert record.message == "party 'alice': bob: no round is under way"
