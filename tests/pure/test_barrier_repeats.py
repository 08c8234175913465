# SPDX-License-Identifier: Apache-2.0
"""The server's rounds where one is repeated: over the same parties only, and everybody else waits until it is over.

Whether a sum leads to a repeat the parties see, and say it with their next message; the server does not look.
"""

from dataclasses import replace

import numpy as np
import pytest
from pure.barrier_kit import MANIFEST, REPORT, TIMEOUT, Task, Told, answers, hold, refused, sums, verdicts
from pure.masking_kit import context_of, plain_values

from fedray.errors import ProtocolError
from fedray.party.records import Expect, RoundMessage, SumsRequest

COUNTED = replace(MANIFEST, counted=True).reaching((12,))


class Repeated:
    """A segment whose first round is opened and, as all parties see, to be held once more, with the same inputs."""

    def __init__(self, world, part, parties=4, count=3, report=None):
        self.w = world(parties, part)
        self.w.manifests.append(COUNTED)
        self.inputs = {
            name: plain_values(np.full(COUNTED.size, self.w.value(name)), metrics=[1.0]) for name in self.w.names
        }
        self.w.server.expect(Expect(0, count, COUNTED, report=report))

    def send(self, name, number, repeats=None, model=None):
        context = context_of(number if repeats is None else 0, COUNTED, model)
        context = replace(context, number=number, repeats=repeats)
        end = self.w.contributors[name]
        return Task(self.w, name, end.conversation("round", context, self.inputs[name]))

    def all(self, number, repeats=None, but=()):
        return {name: self.send(name, number, repeats) for name in self.w.names if name not in but}

    def asks(self, name, number):
        """Lets a party that missed a round ask for the sum of the one that repeats it."""
        ticket = self.w.server.ticket()
        request = SumsRequest(self.w.contributors[name].session, number)
        self.w.server.rounds.await_sum(ticket, name, request, self.w.now)
        return ticket

    def told(self, ticket):
        self.w.settle()
        return self.w.kept.get(ticket)


@pytest.mark.parametrize("part", ["plain", "masking", "recovery"])
@pytest.mark.parametrize("times", [1, 3])
def test_the_same_inputs_are_summed_again_and_rounds_go_on_behind_it(world, part, times):
    r = Repeated(world, part, count=2)
    for number in range(times):
        again = answers(r.all(number, number - 1 if number else None))
        assert sums(again) == {r.w.total(*r.w.names)}
        assert r.w.server.progress(-1, 0).done == 1, "it was opened, and is not told twice"
    assert sums(answers(r.all(times, times - 1))) == {r.w.total(*r.w.names)}
    progress = r.w.server.progress(-1, 0)
    assert (progress.done, progress.again) == (1, times)
    assert set(verdicts(answers(r.all(times + 1))).values()) == {"opened"}
    progress = r.w.server.progress(-1, 0)
    assert (progress.done, progress.again) == (2, times)


def test_a_repeat_of_the_last_round_comes_before_the_round_of_metrics(world):
    """The same number stands for either; the parties say which it is, and the vectors differ in length."""
    r = Repeated(world, "masking", count=1, report=REPORT)
    answers(r.all(0))
    assert sums(answers(r.all(1, 0))) == {r.w.total(*r.w.names)}
    found = answers({name: r.w.send(name, 2, REPORT) for name in r.w.names})
    assert sums(found) == {r.w.total(*r.w.names)}
    assert r.w.server.progress(-1, 0).again == 1


def test_who_says_otherwise_than_the_round_began_is_refused(world):
    r = Repeated(world, "masking")
    answers(r.all(0))
    first = r.send("p00", 1, 0)
    r.w.settle()
    odd = r.send("p01", 1)
    refused(odd, "round 1 is one of its own, as it says; the others say it is not so")
    assert not first.done()


def test_a_party_alone_cannot_make_a_repeat_of_a_round_that_has_not_begun(world):
    r = Repeated(world, "recovery")
    answers(r.all(0))
    r.asks("p03", 1)
    assert sums(answers(r.all(1))) == {r.w.total(*r.w.names)}
    assert r.w.server.progress(-1, 0).again == 0


def test_there_is_no_repeat_of_nothing(world):
    r = Repeated(world, "masking")
    for number in (0, 1):
        with pytest.raises(ProtocolError, match=f"round {number} cannot repeat the one before, of which there is no"):
            r.w.server.rounds.take(99, "p00", RoundMessage(1, number, b"", True), 0.0)


def test_a_stop_is_told_with_the_sum(world):
    """Whoever is told it holds the repeats of its round all the same: `Trainer` sees to it."""
    r = Repeated(world, "masking")
    first = r.all(0)
    r.w.server.stop()
    assert all(answer.stop for answer in answers(first).values())
    assert all(answer.stop for answer in answers(r.all(1, 0)).values())


def test_a_party_that_is_lost_before_the_repeat_ends_it_and_the_others_go_on_with_other_rows(world):
    r = Repeated(world, "masking")
    answers(r.all(0))
    r.w.server.lost("p03", "its process has ended")
    gone = answers(r.all(1, 0, but=("p03",)))
    assert set(verdicts(gone).values()) == {"abandoned"}
    found = answers(r.all(2, but=("p03",)))
    assert sums(found) == {r.w.total("p00", "p01", "p02")}
    assert {answer.opened.members for answer in found.values()} == {("p00", "p01", "p02")}


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
    if how == "late":
        late = r.send("p03", 1, 0).result(1)
        assert (late.verdict, late.number, late.past) == ("missed", 2, [(1, None)])


def missed(r, number=0):
    """Lets p03 come too late for a round; returns its task and the others'."""
    gate = hold(r.w, "p03", number, 0)
    late = r.send("p03", number)
    there = r.all(number, but=("p03",))
    r.w.advance(TIMEOUT)
    return gate, late, there


def test_who_missed_the_round_waits_until_its_repeat_is_over(world):
    r = Repeated(world, "recovery")
    gate, late, first = missed(r)
    total = r.w.total("p00", "p01", "p02")
    assert sums(answers(first)) == {total}
    gate.set()
    answer = late.result(1)
    assert (answer.verdict, answer.number, answer.past) == ("missed", 1, [(0, {total})])
    asked = r.asks("p03", 1)  # it sees from the sum that the others repeat it
    assert r.told(asked) is None
    assert sums(answers(r.all(1, 0, but=("p03",)))) == {total}
    answer = Told(r.w, r.told(asked))
    assert (answer.verdict, answer.number, answer.past) == ("missed", 2, [(1, {total})])
    assert sums(answers(r.all(2))) == {r.w.total(*r.w.names)}
    assert r.w.now == TIMEOUT


def test_who_asks_for_the_sum_of_a_repeat_that_is_over_is_told_at_once(world):
    r = Repeated(world, "recovery")
    gate, late, first = missed(r)
    answers(first)
    answers(r.all(1, 0, but=("p03",)))
    gate.set()
    total = {r.w.total("p00", "p01", "p02")}
    assert late.result(1).past == [(0, total), (1, total)]
    answer = Told(r.w, r.told(r.asks("p03", 1)))
    assert (answer.verdict, answer.number, answer.past) == ("missed", 2, [(1, total)])


def test_who_waits_for_the_end_of_a_round_is_handed_its_sum(world):
    """Its message came while the survivors were signing."""
    r = Repeated(world, "recovery")
    signing = hold(r.w, "p00", 0, 1)
    gate, late, first = missed(r)
    gate.set()
    r.w.settle()
    assert not late.done()
    signing.set()
    total = {r.w.total("p00", "p01", "p02")}
    assert sums(answers(first)) == total
    assert late.result(1).past == [(0, total)]


def test_a_wrong_session_is_left(world):
    r = Repeated(world, "recovery")
    r.w.server.rounds.await_sum(99, "p00", SumsRequest(7, 1), 0.0)
    assert r.w.server.rounds.barrier.answers.pop(99).verdict == "left"
    r.w.server.rounds.take(99, "p00", RoundMessage(7, 0, b""), 0.0)
    assert r.w.server.rounds.barrier.answers.pop(99).verdict == "left"
