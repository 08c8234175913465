# SPDX-License-Identifier: Apache-2.0
"""Rows of one pass are summed over one set, whatever the model; the policy bounds how often the set changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pure.masking_kit import context_of, manifest_of, plain_values, session
from pure.recovery_kit import ALL, Stage, context, contribution
from pure.sharing_kit import session as shared

from fedray.errors import ProtocolError
from fedray.protocol.config import Encoding
from fedray.protocol.member import Member
from fedray.protocol.policy import Policy
from fedray.protocol.rows import Rows
from fedray.protocol.scheme import View
from fedray.protocol.turnover import Turnover

FOUR, THREE = ("a", "b", "c", "d"), ("a", "b", "c")
MANIFEST = manifest_of(2)
NEARLY = [bytes([number]) * 32 for number in range(9)]
"""Models that differ by next to nothing, as far as a party can tell."""


def rows(step: int, of_pass: bytes = b"1", run: bytes = b"run", stop: int = 0) -> Rows:
    """One step of a pass; its name and deal are those of no other, so that the model's own rules say nothing."""
    name = b"%s %d" % (of_pass, step)
    return Rows(name, name, step, stop or step + 1, used=1, total=100, run=run, pass_name=of_pass)


def test_rows_of_one_pass_are_summed_over_one_set() -> None:
    sums = Turnover()
    sums.record(rows(0, stop=2), FOUR)
    for step in (0, 1):
        with pytest.raises(ProtocolError, match=r"already summed in this pass over \['a', 'b', 'c', 'd'\], now over"):
            sums.check_rows(rows(step), THREE)
        sums.check_rows(rows(step), FOUR)
    sums.check_rows(rows(2), THREE)
    sums.check_rows(rows(0, b"2"), THREE)


def test_rows_of_which_nobody_said_over_whom_they_were_opened_are_not_sent_again() -> None:
    sums = Turnover()
    sums.record(rows(0), None)
    for members in (None, FOUR):
        with pytest.raises(ProtocolError, match="in this pass over a set that this party never saw"):
            sums.check_rows(rows(0), members)
    sums.check_rows(rows(0), THREE, leaving=False)
    sums.record(rows(0), THREE)
    sums.check_rows(rows(0), None)
    with pytest.raises(ProtocolError, match="already summed in this pass"):
        sums.check_rows(rows(0), FOUR, leaving=False)


def test_stretches_of_any_length_and_order_are_found_again() -> None:
    """A pass of many rounds looks at neighbours only: no stretch that overlaps is overlooked, no other found."""
    draw = np.random.default_rng(0)
    sums, left = Turnover(), []
    for start, length in zip(draw.integers(0, 300, 60), draw.integers(1, 40, 60) ** 2 // 40 + 1, strict=True):
        step, stop = int(start), int(start + length)
        apart = all(stop <= begin or end <= step for begin, end in left)
        if apart:
            sums.check_rows(rows(step, stop=stop), THREE)
            sums.record(rows(step, stop=stop), FOUR)
            left.append((step, stop))
        else:
            with pytest.raises(ProtocolError, match="already summed in this pass"):
                sums.check_rows(rows(step, stop=stop), THREE)
    assert 10 < len(left) < 50


def test_how_often_the_set_changes_is_counted_in_both_directions() -> None:
    sums = Turnover()
    sums.check_change(FOUR, 0)
    for place, (members, changes) in enumerate([(FOUR, 0), (FOUR, 0), (THREE, 1), (THREE, 1), (FOUR, 2)]):
        sums.record(rows(place), members)
        sums.check_change(members, 0)
        other = THREE if members == FOUR else FOUR
        sums.check_change(other, changes + 1)
        sums.check_change(other, None)
        with pytest.raises(ProtocolError, match=f"changed {changes} times, this party allows {changes}: .*'member_cha"):
            sums.check_change(other, changes)


def masked(policy: Policy | None = None, **arguments):
    return session(4, encoding=Encoding(), policy=policy, **arguments)


def send(kit, number: int, used: Rows, names: tuple[str, ...] = ()) -> None:
    names = names or kit.names
    told = replace(context_of(number, MANIFEST, NEARLY[number]), rows=used)
    kit.round(told, {name: plain_values(np.ones(2)) for name in names}, kit.shields[names[0]].rounds.view)


def shrink(kit) -> tuple[str, ...]:
    kit.join(View(1, kit.names[:3]))
    return kit.names[:3]


def test_part_a_another_model_and_another_session_make_no_other_rows() -> None:
    kit = masked()
    send(kit, 0, rows(0))
    for later in (kit, kit.again()):
        left = shrink(later)
        with pytest.raises(ProtocolError, match=r"p00: these rows were already summed in this pass"):
            send(later, 1, rows(0), left)
        send(later, 1, rows(0, run=b"another run"), left)
        send(later, 2, rows(0, b"another pass"), left)
    allowing = kit.again(Policy(allow_other_members=True))
    send(allowing, 1, rows(0), shrink(allowing))


def test_part_a_the_policy_bounds_how_often_the_set_changes() -> None:
    strict = Policy(member_changes=1)
    kit = masked(strict)
    send(kit, 0, rows(0))
    send(kit, 1, rows(1), shrink(kit))
    back = kit.again(strict)
    with pytest.raises(ProtocolError, match="p00: the parties of this run have changed 1 times, this party allows 1"):
        send(back, 2, rows(2))
    send(kit.again(Policy(member_changes=2)), 2, rows(2))


def opened(stage: Stage, number: int, used: Rows, but: str = "") -> tuple[str, ...]:
    told = replace(context(number, NEARLY[number]), rows=used)
    sent = {name: contribution(10 * number + i) for i, name in enumerate(ALL) if name != but}
    return stage.rehearsal.sum(told, sent).parties


def test_part_b_survivors_sign_for_rows_of_a_pass_over_one_set() -> None:
    stage = Stage()
    assert opened(stage, 0, rows(0)) == ALL
    with pytest.raises(ProtocolError, match="these rows were already summed in this pass over"):
        opened(stage, 1, rows(0), but=ALL[3])
    # Sent for the round before, and not seen to open: it may have opened over anybody.
    with pytest.raises(ProtocolError, match="in this pass over a set that this party never saw"):
        opened(stage, 2, rows(0))
    assert opened(stage, 3, rows(1), but=ALL[3]) == ALL[:3]


def test_part_b_the_policy_bounds_how_often_the_set_changes() -> None:
    stage = Stage()
    for shield in stage.shields.values():
        object.__setattr__(shield._member, "policy", Policy(member_changes=1))
    assert opened(stage, 0, rows(0)) == ALL
    assert opened(stage, 1, rows(1), but=ALL[3]) == ALL[:3]
    with pytest.raises(ProtocolError, match="have changed 1 times, this party allows 1"):
        opened(stage, 2, rows(2))
    assert opened(stage, 3, rows(3), but=ALL[3]) == ALL[:3]


def test_part_b_nobody_signs_for_fewer_where_the_policy_allows_no_smaller_set() -> None:
    stage = Stage()
    object.__setattr__(stage.shields[ALL[1]]._member, "policy", Policy(views=0))
    assert opened(stage, 0, rows(0)) == ALL
    with pytest.raises(ProtocolError, match=r"allows a sum over all parties only \(views = 0\), not over"):
        opened(stage, 1, rows(1), but=ALL[3])


def test_part_c_rows_of_a_pass_are_shared_among_one_set_of_owners() -> None:
    kit = shared()
    first, *_ = kit.owners
    told = replace(context_of(0, MANIFEST, NEARLY[0]), rows=rows(0))
    kit.shields[first].protect(told, plain_values(np.zeros(2)))
    memory = kit.memories[first].turnover(rows(0))
    with pytest.raises(ProtocolError, match="already summed in this pass over a set that this party never saw"):
        memory.check_rows(rows(0), tuple(kit.owners))
    memory.record(rows(0), tuple(kit.owners))  # as the compute parties have signed
    with pytest.raises(ProtocolError, match="already summed in this pass"):
        memory.check_rows(rows(0), kit.owners[:2])
    memory.check_rows(rows(0), tuple(kit.owners))


def test_part_c_what_left_is_of_an_unknown_set_to_whoever_is_started_anew() -> None:
    stored: list[tuple[bytes, tuple[str, ...]]] = []
    kit = shared()
    first = kit.owners[0]
    kit.memories[first].turnover(rows(0)).keep([], lambda *line: stored.append(line))
    told = replace(context_of(0, MANIFEST, NEARLY[0]), rows=rows(0))
    kit.shields[first].protect(told, plain_values(np.zeros(2)))
    assert stored == [(b"1", ())], "before it leaves"
    anew = Turnover()
    anew.keep(stored, lambda *_: None)
    with pytest.raises(ProtocolError, match="in this pass over a set that this party never saw"):
        anew.check_rows(rows(1), None)
    anew.check_rows(rows(1, b"2"), None)
    anew.check_change(tuple(kit.owners), 0)


def stretch_again(kit) -> None:
    """Sums one stretch over all owners but the last, and asks for it once more on a model that has hardly moved."""
    kit.expect(MANIFEST)
    inputs = {name: plain_values(np.ones(2)) for name in kit.owners}
    told = [replace(context_of(number, MANIFEST, NEARLY[number]), rows=rows(0)) for number in (0, 1)]
    kit.round(told[0], {name: inputs[name] for name in kit.owners[:-1]})
    (adder, *_) = kit.adders.values()
    for name in kit.owners[:-1]:
        kit.shields[name].certify(adder.proof(0))
    assert kit.round(told[1], inputs).parties == kit.owners


def test_part_c_a_stretch_that_was_opened_over_some_is_not_shared_again() -> None:
    """It could be opened over all owners, and the two sums differ by the input of the one that was away."""
    with pytest.raises(ProtocolError, match=r"summed in this pass over \['p00', 'p01', 'p02'\], now over"):
        stretch_again(shared(4))


def test_part_c_an_owner_that_asks_for_nothing_shares_a_stretch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken variant: the sum over all is opened."""
    monkeypatch.setattr(Member, "check_opening", lambda *_: None)
    stretch_again(shared(4))


def test_a_party_that_asks_for_the_model_only_sends_the_same_rows_twice() -> None:
    """The broken variant: rows that are of no run are known by the model, and next to nothing makes another one."""
    kit, anybody_s = masked(), rows(0, run=b"")
    send(kit, 0, anybody_s)
    send(kit, 1, anybody_s, shrink(kit))
