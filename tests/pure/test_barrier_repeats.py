# SPDX-License-Identifier: Apache-2.0
"""The server's rounds where one is repeated: over the same parties only, and everybody else waits until it is over."""

from dataclasses import replace

import numpy as np
import pytest
from pure.barrier_kit import MANIFEST, TIMEOUT, Task, answers, hold, sums, verdicts
from pure.masking_kit import context_of, plain_values

from fedray.party.records import Answer, Expect

COUNTED = replace(MANIFEST, counted=True)
REACHES = ((12,), (30,))


class Repeated:
    """A segment whose first round is opened and asked for once more, so often, with the same inputs."""

    def __init__(self, world, part, parties=4, times=1, count=3, report=None):
        self.w, self.times = world(parties, part), times
        self.inputs = {
            name: plain_values(np.full(COUNTED.size, self.w.value(name)), metrics=[1.0]) for name in self.w.names
        }
        self.seen = []
        self.w.server.expect(Expect(0, count, COUNTED.reaching(REACHES[0]), "train", report=report), self.opened)

    def opened(self, opened, repeats):
        self.seen.append((opened.parties, repeats))
        if self.times:
            self.times -= 1
            return Answer("again", reaches=REACHES[1])
        return Answer("opened", opened.values, opened.metrics, reaches=REACHES[1])

    def send(self, name, number, repeats=None, model=None):
        reaches = REACHES[0] if number == 0 else REACHES[1]
        context = context_of(number if repeats is None else 0, COUNTED.reaching(reaches), model)
        context = replace(context, number=number, repeats=repeats)
        end = self.w.contributors[name]
        return Task(self.w, name, end.conversation("round", context, self.inputs[name]))

    def all(self, number, repeats=None, but=()):
        return {name: self.send(name, number, repeats) for name in self.w.names if name not in but}


@pytest.mark.parametrize("part", ["plain", "masking", "recovery"])
@pytest.mark.parametrize("times", [1, 3])
def test_the_same_inputs_are_summed_again_and_rounds_go_on_behind_it(world, part, times):
    r = Repeated(world, part, times=times, count=2)
    for number in range(times):
        again = answers(r.all(number, number - 1 if number else None))
        assert set(verdicts(again).values()) == {"again"}
        assert {answer.reaches for answer in again.values()} == {REACHES[1]}
        assert r.w.server.progress(-1, 0).done == 0
    assert sums(answers(r.all(times, times - 1))) == {r.w.total(*r.w.names)}
    progress = r.w.server.progress(-1, 0)
    assert (progress.done, progress.again) == (1, times)
    assert set(verdicts(answers(r.all(times + 1))).values()) == {"opened"}
    progress = r.w.server.progress(-1, 0)
    assert (progress.done, progress.again) == (2, times)
    assert r.seen == [(r.w.names, number > 0 and number <= times) for number in range(times + 2)]


def test_a_stop_waits_until_the_repeat_is_over(world):
    r = Repeated(world, "masking")
    first = r.all(0)
    r.w.server.stop()
    assert not any(answer.stop for answer in answers(first).values())
    assert all(answer.stop for answer in answers(r.all(1, 0)).values())


def test_a_party_that_is_lost_before_the_repeat_ends_it_and_the_others_go_on_with_other_rows(world):
    r = Repeated(world, "masking")
    answers(r.all(0))
    r.w.server.lost("p03", "its process has ended")
    gone = answers(r.all(1, 0, but=("p03",)))
    assert set(verdicts(gone).values()) == {"abandoned"}
    assert sums(answers(r.all(2, but=("p03",)))) == {r.w.total("p00", "p01", "p02")}
    assert r.seen[-1] == (("p00", "p01", "p02"), False)


@pytest.mark.parametrize("how", ["lost", "late"])
def test_a_repeat_is_given_up_where_somebody_is_missing_from_it_also_where_rounds_recover(world, how):
    """The survivors would refuse to sign for the same inputs less one of them; so nobody is asked to."""
    r = Repeated(world, "recovery")
    answers(r.all(0))
    there = r.all(1, 0, but=("p03",))
    if how == "lost":
        r.w.server.lost("p03", "its process has ended")
    else:
        r.w.advance(TIMEOUT)
    found = answers(there)
    assert set(verdicts(found).values()) == {"abandoned"}
    assert all(answer.view is None for answer in found.values()), "it may come back"
    (missing,) = r.w.server.progress(-1, 0).missing
    assert (missing.number, missing.party, missing.abandoned) == (0, "p03", True), (
        "the number that the round has in the plan"
    )


def test_who_missed_the_round_waits_until_its_repeat_is_over(world):
    r = Repeated(world, "recovery")
    gate = hold(r.w, "p03", 0, 0)
    late = r.send("p03", 0)
    first = r.all(0, but=("p03",))
    r.w.advance(TIMEOUT)
    assert set(verdicts(answers(first)).values()) == {"again"}
    gate.set()
    r.w.settle()
    assert not late.done()
    assert sums(answers(r.all(1, 0, but=("p03",)))) == {r.w.total("p00", "p01", "p02")}
    answer = late.result(1)
    assert (answer.verdict, answer.number, answer.again, answer.reaches) == ("missed", 2, 1, REACHES[1])
    assert answer.values is not None, "it was one round behind, however often that was held"
    assert sums(answers(r.all(2))) == {r.w.total(*r.w.names)}
    assert r.w.now == TIMEOUT


def test_who_waits_for_the_end_of_a_round_waits_on_where_it_is_repeated(world):
    """Its message came while the survivors were signing: it waits at the end of a round that is not the last of it."""
    r = Repeated(world, "recovery")
    signing = hold(r.w, "p00", 0, 1)
    late = hold(r.w, "p03", 0, 0)
    missed = r.send("p03", 0)
    first = r.all(0, but=("p03",))
    r.w.advance(TIMEOUT)
    late.set()
    r.w.settle()
    signing.set()
    assert set(verdicts(answers(first)).values()) == {"again"}
    assert not missed.done()
    assert sums(answers(r.all(1, 0, but=("p03",)))) == {r.w.total("p00", "p01", "p02")}
    assert missed.result(1).number == 2
    assert r.w.now == TIMEOUT
