# SPDX-License-Identifier: Apache-2.0
"""Rounds at the compute parties, with real shares and without threads: who is missing, and what follows from it."""

import math
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from pure.masking_kit import context_of, manifest_of, plain_values
from pure.sharing_kit import session

from fedray.errors import ProtocolError
from fedray.party.records import Answer, Expect, RoundOutcome
from fedray.party.rounds.compute_rounds import ComputeRoles, ComputeRounds
from fedray.protocol.member import Member
from fedray.protocol.sharing.agreement import AgreementSignature

MANIFEST = manifest_of(3, weighted=False)
TIMEOUT = 10.0


class World:
    """Two compute parties, four owners and the server, whose answer is the opened sum."""

    def __init__(self) -> None:
        self.now, self.kit = 0.0, session(owners=4, computing=2, apart=2)
        self.owners = list(self.kit.owners)
        self.mail: deque = deque()
        self.held_back: set[str] = set()
        self.collectors: dict = {}
        self.rounds = {name: self._rounds(name) for name in self.kit.adders}
        self.leader, self.other = self.rounds
        self.told: dict[int, RoundOutcome] = {}
        self.tickets: dict[str, int] = {}
        self.inputs: dict = {}
        for rounds in self.rounds.values():
            rounds.expect(Expect(0, 3, MANIFEST), 0, 0.0)

    def _rounds(self, name: str) -> ComputeRounds:
        def tell(what):
            def send(number, content, void=False):
                for peer in set(self.kit.adders) - {name}:
                    self.mail.append(("void" if void else what, name, peer, number, content))

            return send

        made = ComputeRounds(
            name,
            TIMEOUT,
            tell("hear"),
            lambda n, m, *_: self.mail.append(("sum", name, "", n, m)),
            tell("failed"),
        )
        first = next(iter(self.kit.adders))
        made.begin(ComputeRoles(1, self.kit.adders[name], self.kit.owners, first, name == first), 0.0)
        return made

    def send(self, owner: str, number: int = 0, home: str = "", repeats: int | None = None, model: int = -1) -> None:
        """Sends an owner's shares; at `home` it waits."""
        made = plain_values(np.full(MANIFEST.size, self.value(owner)))
        contribution = self.inputs[owner] = made if repeats is None else self.inputs[owner]
        context = context_of(number if model < 0 else model, MANIFEST)
        messages = self.kit.shields[owner].protect(replace(context, number=number, repeats=repeats), contribution)
        for name, message in messages.items():
            ticket = None
            if name == home:
                ticket = self.tickets[owner] = len(self.tickets) + 1
            self.rounds[name].take(owner, number, message, self.now, ticket)

    def value(self, owner: str) -> float:
        return float(1 << self.owners.index(owner))

    def total(self, owners: list) -> float:
        return sum(map(self.value, owners))

    def settle(self) -> None:
        """Carries messages until there are none; what compute parties in `held_back` send stays behind."""
        kept: list = []
        while self.mail:
            what, sender, to, number, content = self.mail.popleft()
            if sender in self.held_back:
                kept.append((what, sender, to, number, content))
            elif what == "sum":
                collector = self.collectors.setdefault(number, self.kit.collector(number, MANIFEST))
                collector.add(sender, content)
                if not collector.missing():
                    answer = Answer("opened", collector.open())
                    for rounds in self.rounds.values():
                        rounds.answered(1, number, answer, self.now)
            elif what == "hear":
                self.rounds[to].hear(sender, number, content, self.now)
            elif what == "void":
                self.rounds[to].voided(1, sender, number, self.now)
            else:
                self.rounds[to].failed(1, number, content, self.now)
        self.mail.extend(kept)

    def advance(self, seconds: float) -> None:
        self.settle()
        self.now += seconds
        for rounds in self.rounds.values():
            while rounds.barrier.deadline <= self.now:
                rounds.barrier.due(self.now)
        self.settle()

    def outcome(self, owner: str) -> RoundOutcome | None:
        """Returns what an owner was told, or None while it waits."""
        for rounds in self.rounds.values():
            self.told |= {ticket: rounds.barrier.answers.pop(ticket) for ticket in list(rounds.barrier.answers)}
        return self.told.get(self.tickets[owner])

    def values(self, owner: str) -> list[float]:
        """Returns what an owner reads of the sum that it was handed."""
        return self.kit.read(self.outcome(owner).answer.opened, MANIFEST).values.tolist()


def test_a_round_that_everybody_comes_to_opens_without_a_deadline():
    w = World()
    for owner in w.owners:
        w.send(owner, home=w.leader)
    w.settle()
    for owner in w.owners:
        assert w.values(owner) == [15.0] * 3
        assert w.kit.shields[owner].certify(w.outcome(owner).proof) == tuple(w.owners)
    assert w.now == 0


def test_at_the_deadline_it_is_over_those_that_came_and_who_was_late_is_refused():
    w = World()
    first, second, third, late = w.owners
    w.send(first, home=w.leader)
    w.send(second, home=w.other)
    w.send(third, home=w.other)
    w.advance(TIMEOUT - 1)
    assert w.outcome(first) is w.outcome(second) is None
    w.advance(1)
    assert w.values(first) == w.values(second) == [7.0] * 3
    with pytest.raises(ProtocolError, match="over or not announced"):
        w.send(late)


def test_nobody_waits_for_an_owner_that_is_lost():
    w = World()
    for owner in w.owners[:3]:
        w.send(owner, home=w.leader)
    w.settle()
    for rounds in w.rounds.values():
        rounds.barrier.lost(w.owners[3], "its process has ended", w.now)
    w.settle()
    assert w.values(w.owners[0]) == [7.0] * 3
    assert w.now == 0


def test_a_compute_party_that_does_not_sign_ends_the_segment_for_both():
    w = World()
    w.held_back = {w.other}
    for owner in w.owners:
        w.send(owner, home=w.leader)
    w.advance(1.5 * TIMEOUT - 1)
    assert w.outcome(w.owners[0]) is None
    w.advance(1)
    answer = w.outcome(w.owners[0]).answer
    assert answer.verdict == "aborted"
    assert answer.reason == f"round 0: no signature from {w.other} within 15 s"
    for rounds in w.rounds.values():
        with pytest.raises(ProtocolError, match="the segment has ended: round 0: no signature"):
            rounds.hear(w.leader, 0, b"", w.now)


def test_too_few_owners_end_the_segment_and_the_absent_are_named():
    w = World()
    w.send(w.owners[0], home=w.leader)
    w.advance(TIMEOUT)
    answer = w.outcome(w.owners[0]).answer
    assert answer.verdict == "aborted"
    for absent in w.owners[1:]:
        assert f"{absent!r}: no share within 10 s" in answer.reason


def test_a_signature_that_is_wrong_ends_the_segment_and_says_whose_it_is():
    w = World()
    for owner in w.owners:
        w.send(owner, home=w.leader)
    (what, sender, to, number, content) = w.mail.popleft()
    assert (what, sender, to) == ("hear", w.leader, w.other)
    forged = replace(AgreementSignature.decode(content), signature=bytes(64)).encode()
    with pytest.raises(ProtocolError, match=f"{w.leader}: a set of owners that it did not sign"):
        w.rounds[w.other].hear(w.leader, number, forged, w.now)
    w.settle()  # the leader is told
    assert "did not sign" in w.outcome(w.owners[0]).answer.reason


def test_who_asks_late_is_told_the_same_and_a_new_segment_frees_who_waits():
    w = World()
    for owner in w.owners:
        w.send(owner, home=w.leader)
    w.settle()
    leader = w.rounds[w.leader]
    leader.await_outcome(99, w.owners[0], 0)
    assert leader.barrier.answers.pop(99) == w.outcome(w.owners[0])
    w.held_back = {w.leader, w.other}
    for owner in w.owners:
        w.send(owner, number=1, home=w.leader)
    w.settle()
    leader.expect(Expect(2, 1, MANIFEST), 0, w.now)
    assert w.outcome(w.owners[0]).answer == Answer("aborted", reason="the segment has ended")
    assert leader.barrier.deadline == math.inf


def test_what_came_of_a_round_may_be_asked_when_the_next_one_has_begun():
    w = World()
    for owner in w.owners:
        w.send(owner, home=w.leader)
    w.settle()
    w.send(w.owners[1], number=1)
    w.rounds[w.leader].await_outcome(99, w.owners[0], 0)
    assert w.rounds[w.leader].barrier.answers[99] == w.outcome(w.owners[0])


def test_what_belongs_to_an_earlier_session_is_not_taken():
    w = World()
    w.send(w.owners[0], home=w.leader)
    w.rounds[w.leader].failed(0, 0, "the last session failed", w.now)
    w.rounds[w.leader].answered(0, 0, Answer("opened"), w.now)
    assert w.outcome(w.owners[0]) is None
    w.rounds[w.leader].failed(1, 0, "this one, too", w.now)
    assert w.outcome(w.owners[0]).answer.reason == "this one, too"


def test_a_watch_ends_when_the_driver_asks_again_or_after_its_time():
    rounds = World().rounds.popitem()[1]
    rounds.watch(1, 1.0, 0.0)
    rounds.watch(2, 1.0, 0.5)
    assert rounds.barrier.answers == {1: ()}
    rounds.barrier.due(1.5)
    assert rounds.barrier.answers == {1: (), 2: ()}


def opened_once(w: World) -> None:
    """Runs a round of everybody, whose inputs are to be summed once more."""
    for owner in w.owners:
        w.send(owner, home=w.leader)
    w.settle()


def test_the_same_inputs_once_more_are_opened_over_the_same_owners_without_a_deadline():
    w = World()
    late = w.owners[3]
    for owner in w.owners[:3]:
        w.send(owner, home=w.leader)
    w.advance(TIMEOUT)
    for owner in w.owners[:3]:
        w.send(owner, 1, w.other, repeats=0, model=0)
    w.settle()
    assert w.values(w.owners[0]) == [7.0] * 3, "nobody waits for the fourth"
    w.send(late, 2, w.leader)
    assert w.now == TIMEOUT


@pytest.mark.parametrize("how", ["lost", "late"])
def test_a_repeat_that_lacks_an_owner_is_void_and_the_next_round_goes_on(how):
    w = World()
    opened_once(w)
    *rest, missing = w.owners
    for owner in rest:
        w.send(owner, 1, w.other, repeats=0, model=0)
    if how == "lost":
        for rounds in w.rounds.values():
            rounds.barrier.lost(missing, "its process has ended", w.now)
        w.settle()
    else:
        w.advance(TIMEOUT)
    assert [w.outcome(owner).answer.verdict for owner in rest] == ["abandoned"] * 3
    assert 1 not in w.collectors, "no sum was published"
    if how == "late":  # its shares are not read, and it goes on with the others
        w.send(missing, 1, w.leader, repeats=0, model=0)
        assert w.outcome(missing).answer.verdict == "abandoned"
        rest.append(missing)
    for owner in rest:
        w.kit.shields[owner].give_up(1)
        w.send(owner, 2, w.leader, model=0)
    w.settle()
    assert w.values(rest[0]) == [w.total(rest)] * 3
    with pytest.raises(ProtocolError, match="already served 2 rounds"):
        w.kit.shields[rest[0]].protect(replace(context_of(0, MANIFEST), number=3), w.inputs[rest[0]])


def test_a_share_that_comes_when_its_round_is_void_is_not_read():
    """At the other compute party nothing has come yet when the leader finds that the repeat lacks an owner."""
    w = World()
    opened_once(w)
    for rounds in w.rounds.values():
        rounds.barrier.lost(w.owners[3], "its process has ended", w.now)
    w.rounds[w.other].voided(1, w.leader, 1, w.now)
    w.send(w.owners[0], 1, w.other, repeats=0, model=0)
    assert w.outcome(w.owners[0]).answer.verdict == "abandoned"
    w.rounds[w.leader].voided(1, w.other, 2, w.now)
    assert w.rounds[w.leader]._void == {1}, "who does not propose cannot say so"


def test_only_a_repeat_gives_a_model_one_more_round():
    w = World()
    opened_once(w)
    shield = w.kit.shields[w.owners[0]]
    shield.give_up(0)
    with pytest.raises(ProtocolError, match="already served 1 rounds"):
        shield.protect(replace(context_of(0, MANIFEST), number=1), w.inputs[w.owners[0]])


def demanding(w: World, number: int, owners: list, monkeypatch) -> None:
    """Sends the shares of some owners that allow a sum over all of them only."""
    monkeypatch.setattr(Member, "allows_only", lambda *_: True)
    for owner in owners:
        w.send(owner, number, w.leader)


@pytest.mark.parametrize("how", ["lost", "late"])
def test_a_round_that_may_be_opened_over_all_only_is_void_without_one_of_them(how, monkeypatch):
    w = World()
    *rest, missing = w.owners
    demanding(w, 0, rest, monkeypatch)
    if how == "lost":
        for rounds in w.rounds.values():
            rounds.barrier.lost(missing, "its process has ended", w.now)
        w.settle()
    else:
        w.advance(TIMEOUT)
    assert [w.outcome(owner) for owner in rest] == [RoundOutcome(Answer("abandoned"))] * 3, "void, and nothing signed"
    assert 0 not in w.collectors
    assert w.rounds[w.leader]._void_repeats == 0, "it is one of the plan: the server need not count it apart"


def test_whatever_else_the_server_says_of_a_sum_ends_the_segment_for_all():
    w = World()
    for place, owner in enumerate(w.owners):
        w.send(owner, home=(w.leader, w.other)[place % 2])
    while w.mail and w.mail[0][0] != "sum":
        what, sender, to, number, content = w.mail.popleft()
        assert what == "hear"
        w.rounds[to].hear(sender, number, content, w.now)
    assert {mail[0] for mail in w.mail} == {"sum"}
    w.mail.clear()  # the server has both, and keeps them
    w.rounds[w.other].answered(1, 0, Answer("abandoned"), w.now)
    w.settle()
    told = [w.outcome(owner) for owner in w.owners]
    assert [one.answer.verdict for one in told] == ["aborted", "abandoned"] * 2
    assert all(w.kit.shields[o].certify(one.proof) == tuple(w.owners) for o, one in zip(w.owners, told, strict=True))
    for rounds in w.rounds.values():
        with pytest.raises(ProtocolError, match="the server said 'abandoned' of round 0, whose sum it was sent"):
            rounds.take(w.owners[0], 1, b"", w.now)
