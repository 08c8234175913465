# SPDX-License-Identifier: Apache-2.0
"""Exceptions as records and back."""

import pytest

from fedray import errors
from fedray.errors import DataError, FedRayError, PartyError, PartyLost
from fedray.party.failures import Failed, to_error, to_failure
from fedray.party.table import ObjectTable
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
    assert str(back).startswith("party 'alice': KeyError in work: 'k'\n\n--- traceback in party 'alice' ---\nTraceback")
    assert "raise error" in back.remote_traceback


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
