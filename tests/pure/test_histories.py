# SPDX-License-Identifier: Apache-2.0
"""What a party was told, as one hash: it differs where anything does, enters every key, and is compared at set-up."""

from dataclasses import replace

import numpy as np
import pytest
from pure.masking_kit import context_of, manifest_of, plain_values, session

from fedray.errors import ProtocolError
from fedray.party.rounds.past import Past
from fedray.protocol.config import Config, Encoding
from fedray.protocol.history import HistoryChain, joined, strangers, told
from fedray.protocol.masking.rounds import context_hash

NAMES = ("alice", "bob", "carol")
CONTEXT = context_of(0, manifest_of(2))
OTHERS = {
    "round": replace(CONTEXT, number=1),
    "model": replace(CONTEXT, model=b"m" * 32),
    "settings": replace(CONTEXT, settings=b"learning rate 0"),
    "manifest": replace(CONTEXT, manifest=manifest_of(3)),
    "purpose": replace(CONTEXT, purpose="evaluate"),
    "repeats": replace(CONTEXT, repeats=0),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_was_told_is_in_the_head(what):
    assert len({told(CONTEXT), told(OTHERS[what])}) == 2


def test_whatever_came_of_a_round_is_in_the_head():
    first = HistoryChain()
    come = (told(CONTEXT), "opened", b"s" * 32, NAMES)
    heads = {first.after(*come).head, HistoryChain(b"h" * 32).after(*come).head}
    for place, other in enumerate((b"t" * 32, "abandoned", b"", NAMES[:2])):
        heads.add(first.after(*(other if at == place else one for at, one in enumerate(come))).head)
    assert len(heads) == 6
    assert all(len(head) == 32 for head in heads)
    assert first.after(*come) == first.after(*come)


@pytest.mark.parametrize("scheme", ["masking", "recovery", "sharing"])
def test_the_head_is_in_the_context_of_every_scheme(scheme):
    config = replace(Config.propose("masking", session(3).roster, ["server"], Encoding()), scheme=scheme)
    found = {
        context_hash(config, b"s" * 32, b"", previous, replace(CONTEXT, history=head))
        for head in (b"", b"a" * 32, b"b" * 32)
        for previous in (b"", b"p" * 32)
    }
    assert len(found) == 6


def test_parties_with_different_histories_open_noise_and_are_named():
    kit = session(3)
    inputs = {name: plain_values(np.ones(2)) for name in kit.names}
    collector = kit.collector(0, CONTEXT.manifest)
    for name in kit.names:
        head = b"another history, of 32 bytes ...." if name == "p01" else b""
        collector.add(name, kit.send(name, replace(CONTEXT, history=head), inputs[name]))
    with pytest.raises(ProtocolError, match="p01 took part with another model, settings or history"):
        collector.open()


def past(returns=False, party="alice"):
    found = Past(party)
    found.begin(NAMES, returns=returns)
    return found


def one_round(of, verdict="opened", over=NAMES, model=b"m" * 32, verified=True):
    bound = of.before(CONTEXT)
    assert bound == replace(CONTEXT, history=of.head)
    of.over = over
    of.add(verdict, verified, model)
    return of.head


def test_where_views_only_shrink_every_round_of_training_is_chained():
    heads = {b""}
    for verdict, over in (("opened", NAMES), ("abandoned", NAMES[:2]), ("opened", NAMES[:2])):
        one, other = past(), past(party="bob")
        one_round(one)
        assert one_round(one, verdict, over) == (one_round(other) and one_round(other, verdict, over))
        assert not one.anew
        heads.add(one.head)
    assert len(heads) == 4
    for different in ({"model": b"n" * 32}, {"verdict": "abandoned"}, {"over": NAMES[:2]}):
        assert one_round(past(), **different) != one_round(past())


def test_what_was_put_back_is_no_history():
    of = past()
    before = one_round(of)
    assert one_round(of, "renew") == before
    assert one_round(of, verified=False) == before
    assert not of.anew
    assert of.take_news() is None


@pytest.mark.parametrize("verdict", ["opened", "abandoned"])
def test_where_parties_come_back_a_round_without_one_ends_the_history_of_all(verdict):
    stayed, behind = past(returns=True), past(returns=True, party="carol")
    assert one_round(stayed) == one_round(behind) != b""
    over = NAMES[:2] if verdict == "opened" else ()
    assert one_round(stayed, verdict, over) == b""
    behind.follow(CONTEXT, over, b"m" * 32)
    behind.catch_up(1)
    assert behind.head == b""
    assert stayed.anew
    assert behind.anew
    assert stayed.take_news() == (("carol",) if verdict == "opened" else ())
    assert behind.take_news() == ("carol",)
    assert behind.take_news() is None
    assert one_round(stayed) == one_round(behind) != b""


def test_who_saw_no_end_of_a_round_with_its_input_follows_the_others_and_is_not_taken_for_one_of_them():
    stayed, behind = past(returns=True), past(returns=True, party="carol")
    one_round(stayed)
    behind.follow(CONTEXT, NAMES, b"m" * 32)
    assert behind.followed == stayed.head != behind.head
    with pytest.raises(ProtocolError, match=r"party .carol. was too late to sign round 0, .* comes back with the next"):
        behind.catch_up(0)
    assert behind.head not in (b"", stayed.head), "they have learned what it has not: all begin anew"


def test_who_saw_no_end_of_one_round_and_missed_the_next_is_where_the_others_are():
    stayed, behind = past(returns=True), past(returns=True, party="carol")
    one_round(stayed)
    behind.follow(CONTEXT, NAMES, b"m" * 32)
    one_round(stayed, over=NAMES[:2])
    behind.follow(CONTEXT, NAMES[:2], b"m" * 32)
    behind.catch_up(1)
    assert behind.head == behind.followed == stayed.head == b""
    assert stayed.anew
    assert behind.anew


def test_who_was_away_while_the_others_were_ruined_is_not_summed_with_them():
    """They may be ruined together, told the same: so whoever's history is rare is not the only one to forget."""
    of = {name: past(party=name) for name in NAMES}
    for name in NAMES[:2]:
        one_round(of[name], "abandoned", NAMES[:2])
        one_round(of[name], "opened", NAMES[:2])
    heads = {name: of[name].head for name in NAMES}
    assert strangers(heads) == ("carol",)
    for one in of.values():
        one.meet(heads)
        assert one.anew
        assert one.take_news() == ("carol",)
    assert {one.head for one in of.values()} == {joined(heads).head}


def test_a_wrong_word_about_a_party_s_own_head_is_refused_and_one_about_another_s_parts_them():
    one, other = past(), past(party="bob")
    with pytest.raises(ProtocolError, match="party 'alice': it was handed another history for its own"):
        one.meet({"alice": b"x" * 32, "bob": b"", "carol": b""})
    one.meet({"alice": b"", "bob": b"x" * 32, "carol": b""})
    other.meet({"alice": b"y" * 32, "bob": b"", "carol": b""})
    assert one.head != other.head
