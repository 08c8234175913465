# SPDX-License-Identifier: Apache-2.0
"""The barrier and keys for rounds to come: prepared by all, refused to all, and never waited for in vain."""

from pure.barrier_kit import TIMEOUT, answers, refused, sums, verdicts

from fedray.party.party import lane_widths


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
    assert answers({"p03": w.send("p03", 4)})["p03"] == found["p00"], "who asks later is told so at once"


def test_no_keys_are_awaited_from_one_that_is_gone(world):
    w = world(4, "recovery", batch=2)
    w.expect(6)
    w.server.lost("p03", "its process has ended")
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


def test_an_abort_frees_whoever_waits_for_keys(world):
    w = world(4, "recovery")
    w.expect(1)
    there = w.send_all(0, but=("p03",))
    w.settle()
    w.server.abort("p03 raised ValueError")
    for future in there.values():
        refused(future, "round 0 was given up: p03 raised ValueError")
    refused(w.send("p03", 0), "p03 raised ValueError")
    assert w.now == 0
    w.begin()
    w.expect(1)
    assert sums(answers(w.send_all(0))) == {w.total(*w.names)}


def test_round_numbers_may_skip_whole_batches(world):
    w = world(4, "recovery", batch=2)
    w.expect(1)
    answers(w.send_all(0))
    w.expect(2, first=7)
    for number in (7, 8):
        assert sums(answers(w.send_all(number))) == {w.total(*w.names)}


def test_many_rounds_with_keys_prepared_beside_them_need_no_more_threads_than_there_are(world):
    w = world(4, "recovery", batch=2)
    w.expect(12)
    for number in range(12):
        assert sums(answers(w.send_all(number))) == {w.total(*w.names)}
    assert w.most_inside <= lane_widths(5)["message"] - 1
    assert w.now == 0
