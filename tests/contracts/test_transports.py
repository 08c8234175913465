# SPDX-License-Identifier: Apache-2.0
"""What every transport must do, below the notation of devices: lanes, copies, failures, waiting."""

import time

import numpy as np
import pytest

from fedray.errors import PartyError, PartyTimeout, PlanError
from fedray.party.context import Reply
from fedray.party.door.egress import Kind
from fedray.party.parcel import pack
from fedray.party.table import Slot

PARTIES = ("alice", "bob", "charlie")


@pytest.fixture
def session(shared):
    return shared


def test_commands_of_one_party_run_in_order(session, make, value):
    journal = make("alice", list)
    for i in range(50):
        make("alice", lambda log, n: log.append(n), Slot(journal), i)
    assert value("alice", journal) == list(range(50))


def test_arguments_are_copied_at_the_call(session, make, value):
    sent = np.zeros(200_000)
    key = make("alice", lambda a: a, sent)
    sent += 1
    assert value("alice", key).sum() == 0


def test_results_are_fresh_and_writable(session, make, value):
    key = make("alice", lambda: np.zeros(200_000))
    first = value("alice", key)
    first += 1
    assert value("alice", key).sum() == 0


def test_arguments_inside_a_party_can_be_written_to(session, make, value):
    def fill(array):
        array += 1
        return array

    assert value("alice", make("alice", fill, np.zeros(3))).tolist() == [1, 1, 1]


def test_moved_values_can_be_written_to(session, make, value):
    key, moved = make("alice", lambda: np.zeros(200_000)), session.new_key()
    session.call("bob", "adopt", moved, [session.call("alice", "export", key, "bob")])

    def fill(array):
        array += 1
        return float(array.sum())

    assert value("bob", make("bob", fill, Slot(moved))) == 200_000


@pytest.mark.parametrize("size", [10, 60_000, 2_000_000, 20_000_000])
def test_messages_of_any_size_arrive(session, size, gate_class):
    gate = session.serve("charlie", gate_class)
    sender = session.serve("alice", gate_class)
    assert session.get([session.ask("alice", sender, "send", "charlie", gate, np.ones(size, np.uint8))], 30) == [size]


def test_messages_are_answered_while_a_command_runs(session, gate_class):
    gate, sender = session.serve("charlie", gate_class), session.serve("alice", gate_class)
    busy = session.ask("charlie", gate, "hold", 1)
    session.get([session.ask("alice", sender, "send", "charlie", gate, np.ones(1))], 30)
    assert session.get([busy], 30) == [["alice"]]


def test_a_party_may_send_to_itself(session, gate_class):
    gate = session.serve("alice", gate_class)
    assert session.get([session.ask("alice", gate, "send", "alice", gate, np.ones(3))], 30) == [3.0]


def test_a_message_waits_for_the_service_it_is_for(session, gate_class):
    sender, gate = session.serve("alice", gate_class), session.new_key()
    sending = session.ask("alice", sender, "send", "charlie", gate, np.ones(4))
    assert session.wait([sending], timeout=0.3) == []
    session.call("charlie", "serve", gate, pack((gate_class, ())))
    assert session.get([sending], 30) == [4.0]


def test_messages_arrive_read_only(session, gate_class):
    class Reader(gate_class):
        def deliver(self, sender, message):
            return Reply(Kind.METRICS, message.flags.writeable)

    reader, sender = session.serve("charlie", Reader), session.serve("alice", gate_class)
    assert session.get([session.ask("alice", sender, "send", "charlie", reader, np.ones(60_000))], 30) == [False]


def test_wait_tells_what_is_done_and_get_gives_up_in_time(session, gate_class):
    gate = session.serve("charlie", gate_class)
    slow, quick = session.ask("charlie", gate, "hold", 1), session.call("alice", "introduce")
    assert session.wait([slow, quick], timeout=20, first=True) == [quick]
    assert session.wait([slow, quick], timeout=0.2) == [quick]
    with pytest.raises(PartyTimeout, match="charlie"):
        session.get([slow, quick], timeout=0.3)
    with pytest.raises(PartyTimeout, match="charlie"):
        session.get([slow], timeout=0.2)
    assert session.wait([slow], timeout=0) == [], "both gave up before it was done"
    session.get([session.tell("charlie", gate, "open"), slow], 20)


def test_the_first_failure_is_raised_while_others_are_awaited(session, gate_class):
    gate = session.serve("charlie", gate_class)
    slow = session.ask("charlie", gate, "hold", 1)
    failing = session.call("alice", "export", "no such key", "driver")
    with pytest.raises(PlanError, match="no object 'no such key'"):
        session.get([slow, failing], timeout=20)
    assert session.wait([slow], timeout=0) == []
    session.get([session.tell("charlie", gate, "open"), slow], 20)


def test_the_same_reference_may_be_asked_for_twice(session):
    ref = session.call("alice", "introduce")
    first, second = session.get([ref, ref], 20)
    assert first == second
    assert first[0] == session.roster["alice"]


def test_a_roster_without_the_partys_own_key_is_refused(session):
    false = dict(session.roster, alice=session.roster["bob"])
    with pytest.raises(PlanError, match="own key"):
        session.get([session.call("alice", "install_roster", false, {})], 20)


def test_unknown_party_and_method(session):
    with pytest.raises(PlanError, match=r"unknown party 'zoe'.*'alice', 'bob', 'charlie'"):
        session.call("zoe", "settle", [])
    with pytest.raises(PlanError, match="unknown party 'zoe'"):
        session.transport.call("zoe", "settle", "1:x", [])
    for method in ("__init__", "_make", "handle", "nothing"):
        with pytest.raises(PlanError, match="no method"):
            session.call("alice", method)


def test_an_exception_comes_back_with_party_function_and_traceback(session, value):
    def explode(n):
        raise RuntimeError(f"no {n}")

    key = session.new_key()
    session.call("bob", "run", (key,), pack((explode, (3,), {})), label="9:explode")
    with pytest.raises(PartyError, match="party 'bob': RuntimeError in explode: no 3") as caught:
        value("bob", key)
    error = caught.value
    assert (error.party, error.function, error.remote_type) == ("bob", "explode", "RuntimeError")
    assert 'raise RuntimeError(f"no {n}")' in error.remote_traceback
    assert "party.py" not in error.remote_traceback


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_code_that_tries_to_leave_does_not_end_its_party(session, raised, make, value):
    def leave(kind):
        raise kind("bye")

    with pytest.raises(PartyError, match=raised.__name__):
        value("alice", make("alice", leave, raised))
    assert value("alice", make("alice", lambda: 1)) == 1


def test_a_value_that_cannot_travel_says_so(session, make, value):
    def lock():
        import threading

        return threading.Lock()

    with pytest.raises(PlanError, match=r"party 'alice'.*cannot be pickled.*lock"):
        value("alice", make("alice", lock))


def test_a_service_that_cannot_be_built_fails_its_first_call(session):
    class Broken:
        def __init__(self, context):
            raise ValueError("cannot be built")

    key = session.serve("alice", Broken)
    for call in (session.ask("alice", key, "x"), session.tell("alice", key, "x"), session.watch("alice", key)):
        with pytest.raises(PartyError, match="cannot be built"):
            session.get([call], 20)


def test_services_answer_with_a_kind_or_not_at_all(session, gate_class):
    gate = session.serve("alice", gate_class)
    with pytest.raises(PlanError, match="Reply or None, found int"):
        session.get([session.ask("alice", gate, "plain")], 20)
    with pytest.raises(PlanError, match="private"):
        session.get([session.ask("alice", gate, "__init__")], 20)


def test_a_failure_at_the_receiver_reaches_the_sender_and_the_driver_unchanged(session, gate_class, value):
    class Refusing(gate_class):
        def deliver(self, sender, message):
            raise ValueError("not this one")

    refusing, sender = session.serve("charlie", Refusing), session.serve("alice", gate_class)
    with pytest.raises(PartyError, match="party 'charlie': ValueError in send: not this one") as caught:
        session.get([session.ask("alice", sender, "send", "charlie", refusing, np.ones(1))], 30)
    assert caught.value.party == "charlie"


def test_released_objects_are_gone(session, make, value):
    key = make("alice", lambda: 1)
    session.release("alice", key)
    deadline = time.monotonic() + 20

    def asked_until_it_is_gone():
        while time.monotonic() < deadline:
            session.get([session.call("alice", "settle", [key])], 20)
            time.sleep(0.02)

    with pytest.raises(PlanError, match="no object"):
        asked_until_it_is_gone()
