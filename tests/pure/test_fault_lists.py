# SPDX-License-Identifier: Apache-2.0
"""Whose wrong messages the server and the compute parties remember: once, bounded, and nobody else's."""

import numpy as np
import pytest
from pure.barrier_kit import TIMEOUT, answers, sums
from pure.masking_kit import context_of, plain_values
from pure.test_compute_rounds import MANIFEST, World

from fedray.errors import FedRayError, ProtocolError
from fedray.party.records import RoundMessage
from fedray.party.rounds.attendance import MOST_FAULTS, Attendance
from fedray.protocol.scheme import Fault


def send_wrong(w, name, number=0, body=b"x" * 100):
    with pytest.raises(FedRayError):
        w.server.rounds.take(w.server.ticket(), name, RoundMessage(1, number, body), w.now)


@pytest.mark.parametrize("scheme", ["masking", "recovery"])
def test_a_wrong_message_is_kept_once_and_the_round_goes_on(world, scheme):
    w = world(4, scheme)
    w.expect(2)
    if scheme == "recovery":
        answers(w.send_all(0))
    number = int(scheme == "recovery")
    for _ in range(3):
        send_wrong(w, "p02", number)
    assert sums(answers(w.send_all(number))) == {w.total(*w.names)}
    (fault,) = w.server.progress(-1, 0).faults
    assert (fault.number, fault.party, fault.evidence) == (number, "p02", b"")
    w.begin()
    assert w.server.progress(-1, 0).faults == (fault,), "a new session does not forget it"


def test_a_wrong_message_alone_begins_no_round_and_no_deadline(world):
    w = world()
    w.expect(1)
    send_wrong(w, "p02")
    w.advance(10 * TIMEOUT)
    assert w.server.progress(-1, 0).error == ""
    assert sums(answers(w.send_all(0))) == {w.total(*w.names)}


def test_who_is_early_or_late_is_not_at_fault(world):
    w = world(4, "recovery")
    w.expect(3)
    answers(w.send_all(0))
    send_wrong(w, "p02", 2 + 7)
    there = w.send_all(1, but=("p03",))
    w.advance(TIMEOUT)
    answers(there)
    assert w.send("p03", 1).result(0).verdict == "missed"
    assert w.server.progress(-1, 0).faults == ()


def test_wrong_keys_are_their_sender_s_fault(world):
    w = world(4, "recovery")
    w.expect(1)
    rounds = w.server.rounds
    rounds.set_up(w.server.ticket(), "p01", 1, 0, b"one", w.now)
    with pytest.raises(ProtocolError, match="a second, different message"):
        rounds.set_up(w.server.ticket(), "p01", 1, 0, b"another", w.now)
    (fault,) = rounds.progress().faults
    assert (fault.party, fault.what) == ("p01", "keys of batch 0: a second, different message in the set-up of batch 0")


def test_the_one_whose_message_completes_a_step_is_not_blamed_for_another_s(world):
    w = world(4, "recovery")
    w.expect(1)
    rounds = w.server.rounds
    for name in w.names[:-1]:
        rounds.set_up(w.server.ticket(), name, 1, 0, b"no keys", w.now)
    with pytest.raises(FedRayError):
        rounds.set_up(w.server.ticket(), w.names[-1], 1, 0, b"no keys either", w.now)
    assert rounds.progress().faults == ()


def test_no_more_than_so_many_are_kept():
    attendance = Attendance(TIMEOUT)
    for number in range(MOST_FAULTS + 10):
        attendance.accuse([Fault(number, "bob", "it lies"), Fault(number, "bob", "it lies")])
    assert [fault.number for fault in attendance.faults] == list(range(MOST_FAULTS))


def test_a_compute_party_names_who_sent_a_wrong_share_and_not_who_is_late():
    w = World()
    leader, (first, second, third, late) = w.rounds[w.leader], w.owners
    with pytest.raises(FedRayError):
        leader.take(first, 0, b"x" * 100, w.now)
    for owner in (first, second, third):
        w.send(owner, home=w.leader)
    w.advance(TIMEOUT)
    with pytest.raises(ProtocolError, match="over or not announced"):
        w.send(late)
    early = w.kit.shields[first].protect(context_of(9, MANIFEST), plain_values(np.zeros(MANIFEST.size)))
    with pytest.raises(ProtocolError, match="over or not announced"):
        leader.take(first, 9, early[w.leader], w.now)
    (fault,) = leader.faults
    assert (fault.number, fault.party) == (0, first)
    assert w.rounds[w.other].faults == ()
