# SPDX-License-Identifier: Apache-2.0
"""Views: V1 decided for every offer among up to five parties, and what follows for every coalition."""

import contextlib
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import context_of, identities, manifest_of, plain_values, session

from fedray.errors import ProtocolError
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import View

KEYS = identities(5)
LOOSE = Policy(n_min=2, colluders=0, two_party="always")
CASES = [
    (parties, colluders, n_min)
    for parties in (2, 3, 4, 5)
    for colluders in range(parties - 1)
    for n_min in (2, 3)
    if n_min <= parties and (parties + colluders) // 2 + 1 <= parties
]


def least_of(parties, colluders, n_min):
    return max(n_min, (parties + colluders) // 2 + 1, colluders + 2)


def start(parties, colluders, n_min):
    keys = dict(list(KEYS.items())[:parties])
    return session(parties, policy=LOOSE, keys=keys, colluders=colluders, n_min=n_min)


def subsets(items):
    return [s for size in range(len(items) + 1) for s in combinations(items, size)]


def allowed(own, old, new, least):
    """V1, from the words of the specification."""
    old_counter, old_members = old
    counter, members = new
    return own in members and set(members) < set(old_members) and counter > old_counter and len(members) >= least


@pytest.mark.parametrize(("parties", "colluders", "n_min"), CASES)
def test_every_offer_is_decided_as_specified(parties, colluders, n_min):
    """Every pair of offers in a row: the second one meets a party that took the first one or refused it."""
    least = least_of(parties, colluders, n_min)
    if least > parties:
        with pytest.raises(ProtocolError, match="refused"):
            start(parties, colluders, n_min)
        return
    kit = start(parties, colluders, n_min)
    own, shield = kit.names[0], kit.shields[kit.names[0]]
    rounds = shield.rounds
    for first, second in product(subsets(kit.names), repeat=2):
        rounds._enter(View(0, kit.names))
        at = (0, kit.names)
        for counter, members in ((2, first), (1, second), (2, second), (3, second)):
            try:
                shield.join(View(counter, members))
                joined = True
            except ProtocolError:
                joined = False
            assert joined == (allowed(own, at, (counter, members), least) or (counter, members) == at)
            at = (counter, members) if joined else at
            assert shield.rounds.view == View(*at)


@pytest.mark.parametrize(("parties", "colluders", "n_min"), CASES)
def test_any_two_views_share_an_honest_party(parties, colluders, n_min):
    least = least_of(parties, colluders, n_min)
    views = [set(v) for v in subsets(range(parties)) if len(v) >= least]
    for coalition in combinations(range(parties), colluders):
        for one, other in product(views, repeat=2):
            assert (one & other) - set(coalition)
        for view in views:
            assert len(view - set(coalition)) >= 2


@pytest.mark.parametrize(("parties", "colluders", "least"), sorted({(n, t, least_of(n, t, m)) for n, t, m in CASES}))
def test_one_round_opens_one_sum(parties, colluders, least):
    """The coordinator shows every honest party the view of its choice: all honest members of at most one view agree."""
    views = [frozenset(v) for v in subsets(range(parties)) if len(v) >= least]
    for coalition in subsets(range(parties)):
        if len(coalition) > colluders:
            continue
        honest = [p for p in range(parties) if p not in coalition]
        offers = [[v for v in views if p in v] or [None] for p in honest]
        for shown in product(*offers):
            told = dict(zip(honest, shown, strict=True))
            opened = sum(all(told.get(p, v) is v for p in v) for v in set(shown) if v)
            assert opened <= 1


@given(st.data())
def test_the_views_opened_in_a_session_form_a_chain(data):
    """A coordinator that shows any view to anybody at any time; a view opens when all its honest members are in it."""
    coalition = data.draw(st.sampled_from([(), ("p03",)]))
    kit = start(5, len(coalition), 3)
    honest = [name for name in kit.names if name not in coalition]
    views = [v for v in subsets(kit.names) if len(v) >= 3]
    opened = [set(kit.names)]
    for counter in range(1, 6):
        for name in honest:
            with contextlib.suppress(ProtocolError):
                kit.shields[name].join(View(counter, data.draw(st.sampled_from(views))))
        for view in views:
            if all(kit.shields[name].rounds.view.members == view for name in view if name in honest):
                opened.append(set(view))
    assert all(later <= earlier for earlier, later in pairwise(opened))


@pytest.mark.parametrize(
    ("view", "fault"),
    [
        (View(1, ("p00", "p01", "p02")), "too small"),
        (View(1, ("p01", "p02", "p03", "p04")), "not in the new view"),
        (View(0, ("p00", "p01", "p02", "p03")), "counter only grows"),
        (View(1, ("p00", "p01", "p02", "p03", "p04")), "only shrinks"),
        (View(1, ("p01", "p00", "p02", "p03")), "in its order"),
        (View(1, ("p00", "p00", "p01", "p02", "p03")), "in its order"),
        (View(1, ("p00", "p01", "p02", "p09")), "in its order"),
        (View(1, ("p00",)), "too small"),
        (View(1, ()), "not in the new view"),
    ],
)
def test_refusals_say_why(view, fault):
    kit = session(5, keys=dict(KEYS))
    with pytest.raises(ProtocolError, match=fault):
        kit.shields["p00"].join(view)
    assert kit.shields["p00"].rounds.view == View(0, kit.names)


def test_a_view_neither_grows_nor_goes_back():
    kit = session(5, keys=dict(KEYS), policy=Policy(colluders=0), colluders=0)
    shield = kit.shields["p00"]
    shield.join(View(3, kit.names[:4]))
    shield.join(View(3, kit.names[:4]))
    for view in (View(0, kit.names), View(4, kit.names), View(2, kit.names[:3]), View(4, kit.names[:4])):
        with pytest.raises(ProtocolError, match="only shrinks"):
            shield.join(view)
    shield.join(View(9, kit.names[:3]))


def test_a_policy_may_limit_how_often_a_view_shrinks():
    kit = session(5, keys=dict(KEYS), policy=Policy(colluders=0, views=1), colluders=0)
    kit.shields["p00"].join(View(1, kit.names[:4]))
    with pytest.raises(ProtocolError, match="no further smaller view"):
        kit.shields["p00"].join(View(2, kit.names[:3]))


@pytest.mark.parametrize("parties", [2, 3])
def test_small_rosters_have_no_smaller_view(parties):
    kit = session(parties, keys=dict(list(KEYS.items())[:parties]))
    with pytest.raises(ProtocolError, match="too small"):
        kit.shields["p00"].join(View(1, kit.names[: parties - 1]))


def test_a_plain_sum_may_shrink_to_one():
    kit = session(3, "plain", keys=dict(list(KEYS.items())[:3]))
    view = View(1, ("p00",))
    kit.join(view)
    opened = kit.round(context_of(0, manifest_of(1)), {"p00": plain_values(np.array([5.0]))}, view)
    assert opened.values.tolist() == [5.0]
