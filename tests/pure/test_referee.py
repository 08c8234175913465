# SPDX-License-Identifier: Apache-2.0
"""The referee of rounds, with real shields on threads: whoever drops out, a sum is the survivors' or there is none."""

import threading

import pytest
from pure.referee_kit import MANIFEST, REPORT, SOON, TIMEOUT, Died, World, answers, sums

from fedray.errors import ProtocolError
from fedray.party.orders import Answer, Expect
from fedray.party.party import lane_widths


@pytest.fixture
def world():
    made = []

    def make(parties=4, part="masking", **settings):
        made.append(World(parties, part, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def verdicts(found):
    return {name: answer.verdict for name, answer in found.items()}


def refused(future, text):
    with pytest.raises(ProtocolError, match=text):
        future.result(SOON)


# Part A


def test_everybody_comes(world):
    w = world()
    w.expect(2)
    for number in (0, 1):
        found = answers(w.send_all(number))
        assert set(verdicts(found).values()) == {"opened"}
        assert sums(found) == {w.total(*w.names)}
        assert w.referee.progress(number, 0).done == number + 1
    assert w.referee.progress(-1, 0).missing == ()


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
    (missing,) = w.referee.progress(-1, 0).missing
    assert (missing.number, missing.party, missing.abandoned) == (0, "p03", True)
    assert missing.reason == "no message within 10 s"


@pytest.mark.parametrize("when", ["before anybody", "last"])
def test_a_lost_party_closes_the_round_at_once(world, when):
    w = world()
    w.expect(2)
    if when == "before anybody":
        w.referee.lost("p01", "its process has ended")
    there = w.send_all(0, but=("p01",))
    if when == "last":
        w.settle()
        w.referee.lost("p01", "its process has ended")
    assert set(verdicts(answers(there)).values()) == {"abandoned"}
    assert sums(answers(w.send_all(1, but=("p01",)))) == {w.total("p00", "p02", "p03")}
    assert w.now == 0


def test_a_view_shrinks_twice_where_the_quorum_allows_it(world):
    w = world(7)
    w.expect(3)
    w.referee.lost("p01", "gone")
    answers(w.send_all(0, but=("p01",)))
    w.referee.lost("p05", "gone")
    found = answers(w.send_all(1, but=("p01", "p05")))
    assert {answer.view.counter for answer in found.values()} == {2}
    assert sums(answers(w.send_all(2, but=("p01", "p05")))) == {w.total("p00", "p02", "p03", "p04", "p06")}


def test_too_few_to_go_on_is_told_to_everybody_and_nothing_opens(world):
    w = world(3)
    w.expect(2)
    there = w.send_all(0, but=("p02",))
    w.settle()
    w.referee.lost("p02", "its process has ended")
    for future in there.values():
        refused(
            future, r"p00, p01 cannot go on without the others: a sum needs at least 3.*p02 \(its process has ended\)"
        )
    progress = w.referee.progress(-1, 0)
    assert "p02 (its process has ended)" in progress.error
    refused(w.send("p00", 1), "cannot go on without the others")


def test_metrics_get_a_round_of_their_own_after_an_abandoned_last_one(world):
    w = world()
    w.expect(1, report=True)
    w.referee.lost("p03", "gone")
    assert set(verdicts(answers(w.send_all(0, but=("p03",)))).values()) == {"abandoned"}
    found = answers(w.send_all(1, but=("p03",), manifest=REPORT))
    assert [list(answer.metrics) for answer in found.values()] == [[3.0]] * 3
    refused(w.send("p00", 9), "round 9 is not the one under way")


def test_a_stop_is_told_to_everybody_in_the_same_round(world):
    w = world()
    w.expect(5)
    there = w.send_all(0, but=("p00",))
    w.settle()
    w.referee.stop()
    there["p00"] = w.send("p00", 0)
    assert {answer.stop for answer in answers(there).values()} == {True}


def test_an_abort_wakes_everybody_at_once(world):
    w = world()
    w.expect(5)
    there = w.send_all(0, but=("p00",))
    w.settle()
    w.referee.abort("bob raised ValueError")
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
    earlier = stale._session
    w.begin()
    w.expect(1)
    stale._session = earlier
    refused(w.send("p00", 0), "a new session has begun")
    assert w.referee.progress(-1, 0).done == 0


def test_a_round_ahead_is_dropped_unread(world):
    w = world()
    w.expect(3)
    there = w.send_all(0, but=("p00",))
    w.settle()
    refused(w.send("p00", 1), "round 1 is not the one under way; its message was dropped unread")
    w.referee.abort("over")
    for future in there.values():
        refused(future, "over")


def test_nothing_is_taken_before_rounds_are_announced(world):
    w = world()
    refused(w.send("p00", 0), "round 0 is not the one under way")


def test_a_fault_of_the_server_reaches_everybody(world):
    w = world()

    def faulty(opened):
        raise ZeroDivisionError("no such strategy")

    w.referee.expect(Expect(0, 1, MANIFEST, "sum"), faulty)
    for future in w.send_all(0).values():
        refused(future, "ZeroDivisionError at the server: no such strategy")


# Part B


STEPS = {0: "before its input", 1: "before signing", 2: "before unmasking"}


@pytest.mark.parametrize("before", STEPS, ids=STEPS.values())
@pytest.mark.parametrize("number", [0, 1])
def test_a_party_that_dies_at_any_step_counts_if_its_input_came(world, before, number):
    w = world(4, "recovery")
    w.expect(3)
    for earlier in range(number):
        answers(w.send_all(earlier))
    w.dies("p02", number, before)
    there = w.send_all(number)
    assert isinstance(there["p02"].exception(SOON), Died)
    found = answers(there)
    rest = ("p00", "p01", "p03")
    assert set(verdicts(found).values()) == {"opened"}
    assert sums(found) == {w.total(*(w.names if before else rest))}
    assert all(w.contributors[name].verified for name in rest)
    assert [one.party for one in w.referee.progress(-1, 0).missing] == ([] if before else ["p02"])
    found = answers(w.send_all(number + 1, but=("p02",)))
    assert sums(found) == {w.total(*rest)}, "and the next round does without it"
    assert w.now == 0, "nobody waited for a deadline"


def in_round_one(world, rounds=3, **settings):
    """Returns a world that has keys: its first round is over."""
    w = world(4, "recovery")
    w.expect(rounds, **settings)
    answers(w.send_all(0))
    return w


def hold(w, name, number, before):
    """Keeps a party's message of a round back until the event is set."""
    gate = threading.Event()
    w.gates[name, number, before] = lambda: gate.wait(SOON)
    return gate


def without_p03(w, number):
    """Runs a round that p03 is too late for; returns the survivors' answers."""
    there = w.send_all(number, but=("p03",))
    w.advance(TIMEOUT)
    return answers(there)


def test_who_is_late_misses_the_round_and_takes_part_in_the_next(world):
    w = in_round_one(world)
    assert sums(without_p03(w, 1)) == {w.total("p00", "p01", "p02")}
    answer = w.send("p03", 1).result(SOON)
    assert (answer.verdict, answer.number) == ("missed", 2)
    assert set(answer.values) == {w.total("p00", "p01", "p02")}, "what it takes to be up to date"
    assert sums(answers(w.send_all(2))) == {w.total(*w.names)}


def test_nobody_waits_again_for_one_that_is_still_late(world):
    w = in_round_one(world, rounds=6)
    without_p03(w, 1)
    assert w.referee.progress(-1, 0).away == {"p03"}
    for number in (2, 3):
        assert sums(answers(w.send_all(number, but=("p03",)))) == {w.total("p00", "p01", "p02")}
    assert w.now == TIMEOUT
    answer = w.send("p03", 1).result(SOON)
    assert (answer.verdict, answer.number) == ("missed", 4)
    assert answer.values is None, "several rounds behind"
    assert [one.number for one in w.referee.progress(-1, 0).missing] == [1, 2, 3]


def test_who_comes_back_is_waited_for(world):
    w = in_round_one(world)
    without_p03(w, 1)
    there = w.send_all(2, but=("p03",))
    answers(there)
    assert w.send("p03", 1).result(SOON).number == 3
    w.expect(1, first=3)
    there = w.send_all(3, but=("p03",))
    w.settle()
    assert not any(future.done() for future in there.values())
    there["p03"] = w.send("p03", 3)
    assert sums(answers(there)) == {w.total(*w.names)}


def test_who_comes_back_while_a_round_begins_takes_part_in_that_one(world):
    w = in_round_one(world)
    without_p03(w, 1)
    held = hold(w, "p02", 2, before=0)
    there = w.send_all(2, but=("p03",))
    w.settle()
    assert w.send("p03", 1).result(SOON).number == 2
    there["p03"] = w.send("p03", 2)
    held.set()
    assert sums(answers(there)) == {w.total(*w.names)}


def test_who_comes_back_amid_a_round_waits_until_it_is_over(world):
    w = in_round_one(world)
    without_p03(w, 1)
    held = hold(w, "p00", 2, before=2)
    there = w.send_all(2, but=("p03",))
    w.settle()
    late = w.send("p03", 1)
    w.settle()
    assert not late.done()
    held.set()
    assert sums(answers(there)) == {w.total("p00", "p01", "p02")}
    assert late.result(SOON).number == 3


def test_who_misses_the_last_round_is_told_its_metrics(world):
    w = in_round_one(world, rounds=2, report=True)
    without_p03(w, 1)
    answer = w.send("p03", 1).result(SOON)
    assert (answer.verdict, answer.number, list(answer.metrics)) == ("missed", 2, [3.0])


def test_a_late_signature_still_gets_the_quorum(world):
    w = world(4, "recovery")
    w.expect(2)
    slow, last = hold(w, "p03", 0, before=1), hold(w, "p00", 0, before=2)
    there = w.send_all(0)
    w.advance(TIMEOUT)  # closes the signatures without p03
    slow.set()
    w.settle()
    last.set()
    found = answers(there)
    assert set(verdicts(found).values()) == {"opened"}
    assert sums(found) == {w.total(*w.names)}
    assert w.contributors["p03"].verified


def test_who_did_not_see_the_quorum_knows_that_it_has_not_verified(world):
    w = world(4, "recovery")
    w.expect(2)
    slow = hold(w, "p03", 0, before=1)
    there = w.send_all(0)
    w.advance(TIMEOUT)
    answers({name: future for name, future in there.items() if name != "p03"})
    slow.set()
    found = answers(there)
    assert sums(found) == {w.total(*w.names)}
    assert {name: w.contributors[name].verified for name in w.names}["p00"]


def test_two_gone_of_four_void_the_round_for_everybody(world):
    w = in_round_one(world)
    there = w.send_all(1, but=("p02", "p03"))
    w.settle()
    w.referee.lost("p02", "its process has ended")
    w.referee.lost("p03", "its process has ended")
    for future in there.values():
        refused(future, r"2 survivors, expected at least 3; missing: p02 \(its process has ended\), p03")


def test_one_gone_and_one_late_wait_for_the_late_one(world):
    w = in_round_one(world)
    without_p03(w, 1)
    there = w.send_all(2, but=("p02", "p03"))
    w.settle()
    w.referee.lost("p02", "its process has ended")
    w.settle()
    assert not any(future.done() for future in there.values())
    assert w.send("p03", 1).result(SOON).number == 2
    there["p03"] = w.send("p03", 2)
    assert sums(answers(there)) == {w.total("p00", "p01", "p03")}


def test_keys_that_one_party_does_not_prepare_are_refused_to_all_alike(world):
    w = world(4, "recovery", batch=2)
    w.expect(6)
    for number in (0, 1):
        answers(w.send_all(number))
    there = w.send_all(2, but=("p03",))
    w.settle()
    w.advance(TIMEOUT)
    found = answers(there)
    if set(verdicts(found).values()) == {"opened"}:  # p03 had prepared in its last round
        there = w.send_all(4, but=("p03",))
        w.advance(TIMEOUT)
        found = answers(there)
    assert set(verdicts(found).values()) == {"renew"}
    assert all("keys for further rounds need everybody; missing: p03" in answer.reason for answer in found.values())


def test_no_keys_are_awaited_from_one_that_is_gone(world):
    w = world(4, "recovery", batch=2)
    w.expect(6)
    w.referee.lost("p03", "its process has ended")
    found = answers(w.send_all(0, but=("p03",)))
    assert set(verdicts(found).values()) == {"renew"}
    assert w.now == 0


def test_a_new_session_frees_whoever_waits_for_keys(world):
    w = world(4, "recovery")
    w.expect(1)
    there = w.send_all(0, but=("p03",))
    w.settle()
    w.begin()
    for future in there.values():
        refused(future, "a new session has begun")


def test_who_does_not_take_part_is_not_waited_for(world):
    w = world(4, "recovery")
    w.expect(1)
    answers(w.send_all(0))
    w.expect(1, first=1, absent=("p01",))
    assert sums(answers(w.send_all(1, but=("p01",)))) == {w.total("p00", "p02", "p03")}
    assert w.referee.progress(-1, 0).missing[0].reason == "it does not take part"


def test_many_rounds_with_keys_prepared_beside_them_need_no_more_threads_than_there_are(world):
    w = world(4, "recovery", batch=2)
    w.expect(12)
    for number in range(12):
        assert sums(answers(w.send_all(number))) == {w.total(*w.names)}
    assert w.most_inside <= lane_widths(5)["message"] - 1
    assert w.now == 0


def test_progress_is_told_now_and_then_and_at_the_end_of_a_segment(world):
    w = world()
    w.expect(2)
    assert w.referee.progress(-1, SOON).done == 0
    answers(w.send_all(0))
    assert w.referee.progress(0, 0.01).done == 1
    answers(w.send_all(1))
    assert w.referee.progress(1, SOON).done == 2
    assert w.referee.progress(2, 0.01) == w.referee.progress(-1, SOON)
    assert Answer("opened") != Answer("missed")
