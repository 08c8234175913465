# SPDX-License-Identifier: Apache-2.0
"""The barrier of rounds that survive dropouts: who is late misses a round, and is waited for when it is back."""

import pytest
from pure.barrier_kit import SOON, TIMEOUT, answers, hold, refused, sums, verdicts

from fedray.errors import FedRayError
from fedray.party.records import RoundMessage
from fedray.party.rounds import server_rounds


def in_round_one(world, rounds=3, **settings):
    """Returns a world that has keys: its first round is over."""
    w = world(4, "recovery")
    w.expect(rounds, **settings)
    answers(w.send_all(0))
    return w


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
    assert answer.past == [(1, {w.total("p00", "p01", "p02")})], "what it takes to be up to date"
    assert sums(answers(w.send_all(2))) == {w.total(*w.names)}


def test_nobody_waits_again_for_one_that_is_still_late(world):
    w = in_round_one(world, rounds=6)
    without_p03(w, 1)
    assert w.server.progress(-1, 0).away == {"p03"}
    for number in (2, 3):
        assert sums(answers(w.send_all(number, but=("p03",)))) == {w.total("p00", "p01", "p02")}
    assert w.now == TIMEOUT
    answer = w.send("p03", 1).result(SOON)
    assert (answer.verdict, answer.number) == ("missed", 4)
    assert answer.past == [(number, {w.total("p00", "p01", "p02")}) for number in (1, 2, 3)]
    assert [one.number for one in w.server.progress(-1, 0).missing] == [1, 2, 3]


def test_who_comes_back_is_waited_for(world):
    """In the same segment: its absence is forgotten as soon as it is heard."""
    w = in_round_one(world, rounds=4)
    without_p03(w, 1)
    answers(w.send_all(2, but=("p03",)))
    assert w.send("p03", 1).result(SOON).number == 3
    assert w.server.progress(-1, 0).away == frozenset()
    there = w.send_all(3, but=("p03",))
    w.settle()
    assert not any(future.done() for future in there.values())
    there["p03"] = w.send("p03", 3)
    assert sums(answers(there)) == {w.total(*w.names)}
    assert w.now == TIMEOUT


def test_who_did_not_come_back_is_waited_for_anew_in_the_next_segment(world):
    w = in_round_one(world, rounds=2)
    without_p03(w, 1)
    w.expect(1, first=2)
    there = w.send_all(2, but=("p03",))
    w.settle()
    assert not any(future.done() for future in there.values())
    there["p03"] = w.send("p03", 2)
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


def test_who_misses_the_last_round_is_told_its_sum(world):
    w = in_round_one(world, rounds=2, report=True)
    without_p03(w, 1)
    answer = w.send("p03", 1).result(SOON)
    assert (answer.verdict, answer.number) == ("missed", 2)
    assert answer.past == [(1, {w.total("p00", "p01", "p02")})]


def test_who_was_away_for_longer_than_sums_are_kept_is_left_behind(world, monkeypatch):
    """It comes back with a new session, and is handed the model; the last sum is kept whatever its size."""
    monkeypatch.setattr(server_rounds, "KEPT_BYTES", 0)
    w = in_round_one(world, rounds=6)
    without_p03(w, 1)
    assert w.send("p03", 1).result(SOON).past == [(1, {w.total("p00", "p01", "p02")})]
    w.expect(3, first=2)
    without_p03(w, 2)
    answers(w.send_all(3, but=("p03",)))
    refused(w.send("p03", 2), "round 2 was given up: it missed more rounds than are kept, from round 2 on")


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


@pytest.mark.parametrize("next_begun", [False, True], ids=["in time", "when the next round has begun"])
def test_who_did_not_see_the_quorum_knows_that_it_has_not_verified(world, next_begun):
    """It is shown the quorum as long as the round is the last one; after that it puts back what the round changed."""
    w = world(4, "recovery")
    w.expect(2)
    slow = hold(w, "p03", 0, before=1)
    there = w.send_all(0)
    w.advance(TIMEOUT)
    rest = ("p00", "p01", "p02")
    found = answers({name: there[name] for name in rest})
    assert sums(found) == {w.total(*w.names)}, "its input came"
    if next_begun:
        answers(w.send_all(1, but=("p03",)))
    slow.set()
    answer = there["p03"].result(SOON)
    assert answer.verdict == ("missed" if next_begun else "opened")
    assert all(w.contributors[name].verified for name in rest)
    assert w.contributors["p03"].verified is not next_begun


def test_a_wrong_message_for_the_next_round_takes_no_answer_of_this_one_away(world):
    w = world(4, "recovery")
    w.expect(2)
    slow = hold(w, "p03", 0, before=1)
    there = w.send_all(0)
    w.advance(TIMEOUT)
    w.settle()
    with pytest.raises(FedRayError):
        w.server.rounds.take(w.server.ticket(), "p00", RoundMessage(1, 1, b"x" * 100), w.now)
    slow.set()
    assert there["p03"].result(SOON).verdict == "opened"


def test_one_gone_and_one_late_wait_for_the_late_one(world):
    w = in_round_one(world)
    without_p03(w, 1)
    there = w.send_all(2, but=("p02", "p03"))
    w.settle()
    w.server.lost("p02", "its process has ended")
    w.settle()
    assert not any(future.done() for future in there.values())
    assert w.send("p03", 1).result(SOON).number == 2
    there["p03"] = w.send("p03", 2)
    assert sums(answers(there)) == {w.total("p00", "p01", "p03")}
