# SPDX-License-Identifier: Apache-2.0
"""A model that comes back: further rows are summed over the same members, and no rows over others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pure.masking_kit import Kit, context_of, manifest_of, plain_values, session
from pure.recovery_kit import ALL, Stage, context, contribution
from pure.sharing_kit import session as shared

from fedray.errors import ProtocolError
from fedray.party.training.orders import TrainOrder, rows_of
from fedray.party.training.sampling import Sampling
from fedray.protocol.config import Encoding
from fedray.protocol.memory import ModelMemory, Served
from fedray.protocol.policy import Policy
from fedray.protocol.rows import Rows, RowUses
from fedray.protocol.scheme import View

MANIFEST = manifest_of(2)
MODEL = b"m" * 32
STEPS, TOTAL = 4, 8
PLAN = Sampling(seed=1, steps=STEPS, batch_size=2)


def rows(step: int, epoch: int = 0, plan: Sampling = PLAN, arrays: int = 1) -> Rows:
    """One step of an epoch, as a party of eight rows reads it from its order."""
    spans = ((step, step + 1),)
    order = TrainOrder(0, epoch, spans, False, plan, {"p00": TOTAL}, 8, ("fed_avg_w", {}))
    return rows_of(order, 0, "p00", TOTAL // STEPS, arrays)


def values(name: str, rows: Rows, epoch: int) -> np.ndarray:
    """What a party computes on a stretch of its rows: the sum of what it has in each of them."""
    own = np.random.default_rng(int(name[1:])).normal(size=(TOTAL, 2))
    return own[PLAN.shares(name, TOTAL, epoch)[rows.start]].sum(axis=0)


def send(kit: Kit, number: int, rows: Rows | None, names: tuple[str, ...] = (), epoch: int = 0, model: bytes = MODEL):
    """One round on one model; returns the opened sum."""
    names = names or kit.names
    told = replace(context_of(number, MANIFEST, model), rows=rows)
    return kit.round(
        told, {n: plain_values(values(n, rows, epoch) if rows else np.zeros(2)) for n in names}, kit_view(kit)
    )


def kit_view(kit: Kit) -> View:
    return kit.shields[kit.names[0]].rounds.view


def small(**settings) -> Kit:
    return session(4, encoding=Encoding(), **settings)


def test_further_rows_and_further_epochs_are_summed_over_the_same_members() -> None:
    kit, number = small(), 0
    for epoch in range(3):
        for step in range(STEPS):
            send(kit, number, rows(step, epoch), epoch=epoch)
            number += 1


def test_the_same_rows_are_summed_once_a_session() -> None:
    kit = small()
    send(kit, 0, rows(0))
    with pytest.raises(ProtocolError, match="already served 1 rounds of purpose 'train' on one and the same model and"):
        send(kit, 1, rows(0))
    send(kit, 1, rows(0), model=b"n" * 32)
    send(kit.again(), 0, rows(0))
    generous = small(policy=Policy(rounds={"train": 2}))
    send(generous, 0, rows(0))
    send(generous, 1, rows(0))
    with pytest.raises(ProtocolError, match="allows 2"):
        send(generous, 2, rows(0))
    with pytest.raises(ProtocolError, match="allows 0"):
        send(small(policy=Policy(rounds={"train": 0})), 0, rows(0))


def test_rounds_of_which_no_rows_are_known_repeat_each_other() -> None:
    kit = small()
    send(kit, 0, None)
    for again in (None, rows(0)):
        with pytest.raises(ProtocolError, match="already served 1 rounds"):
            send(kit, 1, again)


def shrink(kit: Kit) -> tuple[str, ...]:
    kit.join(View(1, kit.names[:3]))
    return kit.names[:3]


def test_rows_that_all_have_summed_are_not_summed_without_one_of_them() -> None:
    kit = small()
    for step in range(2):
        send(kit, step, rows(step))
    left = shrink(kit)
    for step in range(2):
        with pytest.raises(ProtocolError, match="these rows were already summed on this model over"):
            send(kit, 2, rows(step), left)
    for step in (2, 3):
        send(kit, step, rows(step), left)


def test_another_epoch_number_makes_no_other_rows() -> None:
    kit, in_order = small(), replace(PLAN, shuffle=False)
    send(kit, 0, rows(0, 0, in_order))
    left = shrink(kit)
    for lie in (rows(0, 5, in_order), rows(0, 0, replace(in_order, seed=9)), rows(0, 0, in_order, arrays=2)):
        with pytest.raises(ProtocolError, match="these rows were already summed"):
            send(kit, 1, lie, left)
    send(kit, 1, rows(1, 5, in_order), left)


@pytest.mark.parametrize("lie", [{"epoch": 1}, {"plan": replace(PLAN, seed=2)}])
def test_a_pass_over_fewer_is_not_held_against_a_pass_over_all(lie: dict[str, object]) -> None:
    """Dealt anew, rows may be the same: as many as the party has may be in all sums together, and no more."""
    kit = small()
    for step in range(3):
        send(kit, step, rows(step))
    left = shrink(kit)
    send(kit, 3, rows(0, **lie), left)
    with pytest.raises(ProtocolError, match="some of these rows were already summed on this model over"):
        send(kit, 4, rows(1, **lie), left)
    send(kit, 4, rows(1, **lie), left, model=b"n" * 32)


def test_rows_that_are_drawn_anew_in_each_step_may_always_be_the_same() -> None:
    kit, drawn = small(), replace(PLAN, method="poisson")
    for step in range(2):
        send(kit, step, replace(rows(step, plan=drawn), used=4))
    left = shrink(kit)
    with pytest.raises(ProtocolError, match="some of these rows were"):
        send(kit, 2, rows(2, plan=drawn), left)


def test_known_rows_do_not_speak_for_those_of_another_process_or_session() -> None:
    everybody, fewer = ("a", "b", "c", "d"), ("a", "b", "c")
    earlier = ModelMemory()
    earlier.record(b"s1", MODEL, "train", everybody, rows(0))
    for memory in (earlier, ModelMemory([Served(MODEL, everybody)])):
        with pytest.raises(ProtocolError, match=r"already summed over .* in another session"):
            memory.check(b"s2", MODEL, "train", fewer, 1, rows(1))
        memory.check(b"s2", MODEL, "train", everybody, 1, rows(1))


def test_another_session_does_not_help() -> None:
    kit = small()
    for step in range(STEPS):
        send(kit, step, rows(step))
    later = kit.again()
    send(later, 0, rows(3))
    left = shrink(later)
    with pytest.raises(ProtocolError, match="these rows were already summed"):
        send(later, 1, rows(0), left)
    with pytest.raises(ProtocolError, match="some of these rows were"):
        send(later, 1, rows(0, 1), left)
    allowing = kit.again(Policy(allow_other_members=True))
    shrink(allowing)
    send(allowing, 0, rows(0), left)


def forgets(memory: ModelMemory) -> None:
    """Broken on purpose: further rows are welcome over whomever."""
    for uses in memory._uses.values():
        uses.rows.clear()


@pytest.mark.parametrize("lie", [0, 1])
def test_a_memory_that_forgets_rows_shows_what_one_party_has_in_all_of_them(lie: int) -> None:
    """On a model that stands still, a pass over all and a pass without p03 differ by p03's rows."""
    kit = small()
    whole = [send(kit, step, rows(step)) for step in range(STEPS)]
    left = shrink(kit)
    with pytest.raises(ProtocolError, match="rows were already summed"):
        send(kit, STEPS, rows(0, lie), left, lie)
    rest = []
    for step in range(STEPS):
        for memory in kit.memories.values():
            forgets(memory)
            for uses in memory._uses.values():
                for one in uses.sessions.values():
                    one.rounds.clear()
        rest.append(send(kit, STEPS + 1 + step, rows(step, lie), left, lie))
    difference = sum(s.values * s.weight for s in whole) - sum(s.values * s.weight for s in rest)
    own = sum(values("p03", rows(step), 0) for step in range(STEPS))
    np.testing.assert_allclose(difference, own, atol=1e-6)


def test_survivors_of_a_round_are_held_to_the_same_rows() -> None:
    """Part B: whoever is late may come back while the model stands still, to rows that nobody has summed."""
    stage, model = Stage(), b"m" * 32

    def sum_over(number: int, rows: Rows, but: str = "") -> tuple[str, ...]:
        told = replace(context(number, model), rows=rows)
        sent = {name: contribution(10 * number + i) for i, name in enumerate(ALL) if name != but}
        return stage.rehearsal.sum(told, sent).parties

    assert sum_over(0, rows(0), but=ALL[3]) == ALL[:3]
    assert sum_over(1, rows(1)) == ALL
    with pytest.raises(ProtocolError, match="these rows were already summed on this model over"):
        sum_over(2, replace(rows(1), name=b"again"), but=ALL[3])
    assert sum_over(3, rows(2), but=ALL[3]) == ALL[:3]


def test_shares_of_further_rows_are_sent_and_of_the_same_are_not() -> None:
    kit = shared()
    for step in range(3):
        protect(kit, step, rows(step))
    with pytest.raises(ProtocolError, match="already served 1 rounds"):
        protect(kit, 3, rows(1))
    protect(kit, 4, rows(1, epoch=1))


def protect(kit, number: int, used: Rows) -> None:
    told = replace(context_of(number, MANIFEST, MODEL), rows=used)
    for shield in kit.shields.values():
        shield.protect(told, plain_values(np.zeros(2)))


def test_a_stretch_is_counted_once_however_often_it_is_summed() -> None:
    uses = RowUses()
    for _ in range(5):
        uses.record(("a", "b", "c"), rows(0))
    uses.check(("a", "b"), rows(1, epoch=1))


def test_what_was_served_is_known_whatever_came_between() -> None:
    kit = small()
    assert not kit.memories["p00"].knows(MODEL)
    send(kit, 0, rows(0))
    send(kit, 1, rows(1), model=b"n" * 32)
    assert kit.memories["p00"].knows(MODEL)
