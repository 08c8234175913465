# SPDX-License-Identifier: Apache-2.0
"""The barrier of rounds, with real shields on threads: who drops out costs a round, and the others go on.

Rounds that survive dropouts are in `test_barrier_survivors.py` and the files beside it.
"""

import pytest
from pure.barrier_kit import REPORT, SOON, TIMEOUT, answers, refused, sums, verdicts

from fedray.party.records import Answer
from fedray.protocol.masking.collector import ViewCollector


def test_everybody_comes(world):
    w = world()
    w.expect(2)
    for number in (0, 1):
        found = answers(w.send_all(number))
        assert set(verdicts(found).values()) == {"opened"}
        assert sums(found) == {w.total(*w.names)}
        assert w.server.progress(number, 0).done == number + 1
    assert w.server.progress(-1, 0).missing == ()


def test_who_is_late_is_left_behind_and_its_vector_is_dropped(world):
    w = world()
    w.expect(2)
    there = w.send_all(0, but=("p03",))
    w.advance(TIMEOUT - 1)
    w.settle()
    assert not any(future.done() for future in there.values()), "a deadline is not met a second early"
    w.advance(1)
    found = answers(there)
    assert set(verdicts(found).values()) == {"abandoned"}
    assert {answer.view.members for answer in found.values()} == {("p00", "p01", "p02")}
    refused(w.send("p03", 0), "round 0 was given up: the others went on without it")
    found = answers(w.send_all(1, but=("p03",)))
    assert sums(found) == {w.total("p00", "p01", "p02")}
    (missing,) = w.server.progress(-1, 0).missing
    assert (missing.number, missing.party, missing.abandoned) == (0, "p03", True)
    assert missing.reason == "no message within 10 s"


@pytest.mark.parametrize("when", ["before anybody", "last"])
def test_a_lost_party_closes_the_round_at_once(world, when):
    w = world()
    w.expect(2)
    if when == "before anybody":
        w.server.lost("p01", "its process has ended")
    there = w.send_all(0, but=("p01",))
    if when == "last":
        w.settle()
        w.server.lost("p01", "its process has ended")
    assert set(verdicts(answers(there)).values()) == {"abandoned"}
    assert sums(answers(w.send_all(1, but=("p01",)))) == {w.total("p00", "p02", "p03")}
    assert w.now == 0


def test_a_view_shrinks_twice_where_the_quorum_allows_it(world):
    w = world(7)
    w.expect(3)
    w.server.lost("p01", "gone")
    answers(w.send_all(0, but=("p01",)))
    w.server.lost("p05", "gone")
    found = answers(w.send_all(1, but=("p01", "p05")))
    assert {answer.view.counter for answer in found.values()} == {2}
    assert sums(answers(w.send_all(2, but=("p01", "p05")))) == {w.total("p00", "p02", "p03", "p04", "p06")}


def test_where_nobody_can_go_on_nobody_is_said_to_have_gone_on(world):
    w = world(2)
    w.expect(1)
    there = w.send_all(0, but=("p01",))
    w.settle()
    assert w.server.progress(-1, 0).awaited == ("p01",)
    w.advance(TIMEOUT)
    said = str(there["p00"].exception(0))
    assert "p01 (no message within 10 s)" in said
    assert "went on" not in said


def test_too_few_to_go_on_is_told_to_everybody_and_nothing_opens(world):
    w = world(3)
    w.expect(2)
    there = w.send_all(0, but=("p02",))
    w.settle()
    w.server.lost("p02", "its process has ended")
    for future in there.values():
        refused(
            future, r"p00, p01 cannot go on without the others: a sum needs at least 3.*p02 \(its process has ended\)"
        )
    progress = w.server.progress(-1, 0)
    assert "p02 (its process has ended)" in progress.error
    refused(w.send("p00", 1), "cannot go on without the others")


def test_metrics_get_a_round_of_their_own_after_an_abandoned_last_one(world):
    w = world()
    w.expect(1, report=True)
    w.server.lost("p03", "gone")
    assert set(verdicts(answers(w.send_all(0, but=("p03",)))).values()) == {"abandoned"}
    found = answers(w.send_all(1, but=("p03",), manifest=REPORT))
    assert [list(answer.metrics) for answer in found.values()] == [[3.0]] * 3
    refused(w.send("p00", 9), "round 9 is not the one under way")


def test_a_stop_is_told_to_everybody_in_the_same_round(world):
    w = world()
    w.expect(5)
    there = w.send_all(0, but=("p00",))
    w.settle()
    w.server.stop()
    there["p00"] = w.send("p00", 0)
    assert {answer.stop for answer in answers(there).values()} == {True}


def test_an_abort_wakes_everybody_at_once(world):
    w = world()
    w.expect(5)
    there = w.send_all(0, but=("p00",))
    w.settle()
    w.server.abort("bob raised ValueError")
    for future in there.values():
        refused(future, "round 0 was given up: bob raised ValueError")
    refused(w.send("p00", 0), "bob raised ValueError")
    w.begin()
    w.expect(1)
    assert sums(answers(w.send_all(0))) == {w.total(*w.names)}


def test_what_belongs_to_an_earlier_session_is_not_taken(world):
    w = world()
    w.expect(1)
    stale = w.contributors["p00"]
    earlier = stale.session
    w.begin()
    w.expect(1)
    stale.session = earlier
    refused(w.send("p00", 0), "a new session has begun")
    assert w.server.progress(-1, 0).done == 0


def test_a_round_ahead_is_dropped_unread(world):
    w = world()
    w.expect(3)
    there = w.send_all(0, but=("p00",))
    w.settle()
    refused(w.send("p00", 1), "round 1 is not the one under way; its message was dropped unread")
    w.server.abort("over")
    for future in there.values():
        refused(future, "over")


def test_nothing_is_taken_before_rounds_are_announced(world):
    w = world()
    refused(w.send("p00", 0), "round 0 is not the one under way")


def test_a_fault_of_the_server_reaches_everybody(world, monkeypatch):
    w = world()

    def faulty(self):
        raise ZeroDivisionError("no such sum")

    monkeypatch.setattr(ViewCollector, "open", faulty)
    w.expect(1)
    for future in w.send_all(0).values():
        refused(future, "ZeroDivisionError at the server: no such sum")


def test_progress_is_told_now_and_then_and_at_the_end_of_a_segment(world):
    w = world()
    w.expect(2)
    assert w.server.progress(-1, SOON).done == 0
    answers(w.send_all(0))
    assert w.server.progress(0, 0.01).done == 1
    answers(w.send_all(1))
    assert w.server.progress(1, SOON).done == 2
    assert w.server.progress(2, 0.01) == w.server.progress(-1, SOON)
    assert Answer("opened") != Answer("missed")


def test_a_round_that_was_given_up_is_not_over(world):
    w = world(3)
    w.expect(3)
    answers(w.send_all(0))
    there = w.send_all(1, but=("p02",))
    w.settle()
    w.server.lost("p02", "its process has ended")
    for future in there.values():
        refused(future, "cannot go on")
    assert w.server.progress(-1, 0).done == 1
