# SPDX-License-Identifier: Apache-2.0
"""The barrier of rounds that survive dropouts: whoever dies at whatever step, the sum is the survivors' or none."""

import pytest
from pure.barrier_kit import SOON, TIMEOUT, Died, answers, hold, refused, sums, verdicts

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
    assert [one.party for one in w.server.progress(-1, 0).missing] == ([] if before else ["p02"])
    found = answers(w.send_all(number + 1, but=("p02",)))
    assert sums(found) == {w.total(*rest)}, "and the next round does without it"
    assert w.now == 0, "nobody waited for a deadline"


def test_two_gone_of_four_void_the_round_for_everybody(world):
    w = world(4, "recovery")
    w.expect(2)
    answers(w.send_all(0))
    there = w.send_all(1, but=("p02", "p03"))
    w.settle()
    w.server.lost("p02", "its process has ended")
    w.server.lost("p03", "its process has ended")
    for future in there.values():
        refused(future, r"2 survivors, expected at least 3; missing: p02 \(its process has ended\), p03")


def test_who_does_not_take_part_is_not_waited_for(world):
    w = world(4, "recovery")
    w.expect(1)
    answers(w.send_all(0))
    w.expect(1, first=1, absent=("p01",))
    assert sums(answers(w.send_all(1, but=("p01",)))) == {w.total("p00", "p02", "p03")}
    assert w.server.progress(-1, 0).missing[0].reason == "it does not take part"


@pytest.mark.parametrize("before", [1, 2], ids=["before signing", "before unmasking"])
def test_one_dies_while_another_is_late(world, before):
    """Whom the server has missed once it does not wait for again, if it can do without; nor for the dead."""
    w = world(7, "recovery")
    w.expect(2)
    answers(w.send_all(0))
    late = hold(w, "p05", 1, before=1)
    w.dies("p01", 1, before)
    there = w.send_all(1)
    w.advance(TIMEOUT)
    found = answers({name: future for name, future in there.items() if name not in ("p01", "p05")})
    assert set(verdicts(found).values()) == {"opened"}
    assert sums(found) == {w.total(*w.names)}, "all inputs had come"
    assert w.now == TIMEOUT, "nobody waited for a second deadline"
    late.set()
    assert there["p05"].result(SOON).verdict == "opened"


def test_an_abort_ends_a_round_at_every_exchange(world):
    w = world(4, "recovery")
    w.expect(1)
    gates = [hold(w, "p03", 0, before) for before in (0, 1, 2)]
    there = w.send_all(0)
    for gate in gates[:2]:
        gate.set()
    w.settle()
    w.server.abort("bob raised ValueError")
    for name in ("p00", "p01", "p02"):
        refused(there[name], "round 0 was given up: bob raised ValueError")
    gates[2].set()
    refused(there["p03"], "bob raised ValueError")
