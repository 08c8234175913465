# SPDX-License-Identifier: Apache-2.0
"""What a coalition can open, by linear algebra: every pad that it cannot compute is an independent symbol.

The rows are the vectors that honest parties sent, the columns are the pads between honest parties. A combination of
rows without pads is an opened sum; the rows' combinations are searched over the rationals and mod 2, which decides the
ring's case because each column has one +1 and one -1 or a single entry. The checks of the vectors are rows with the
same columns, in the field of checks: they are searched mod its prime. The coalition knows their coefficients.
"""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from pure.masking_kit import context_of, identities, manifest_of, plain_values, session

from fedray.errors import ProtocolError
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keys import kdf
from fedray.protocol.masking import pair_keys
from fedray.protocol.masking.frame import Masked
from fedray.protocol.masking.pair_keys import PairKeys
from fedray.protocol.masking.rounds import Rounds
from fedray.protocol.memory import ModelMemory
from fedray.protocol.messages import enc
from fedray.protocol.pipeline import run
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import View

KEYS = identities(5)
LOOSE = Policy(n_min=2, colluders=0, two_party="always")
MODELS = {"a": b"a" * 32, "b": b"b" * 32}


class Symbols:
    """Stands for `Pad`: remembers which key is added and which is taken away, and lays no mask."""

    made = ()

    def __init__(self, plus, minus):
        self.row = dict.fromkeys(plus, 1) | dict.fromkeys(minus, -1)
        assert len(self.row) == len(plus) + len(minus)
        Symbols.made = (*Symbols.made, self)

    def apply(self, words, start):
        pass

    def cover(self, check):
        self.check = check
        return check


def rows_of(kit, told, context=None):
    """Returns per party the symbols under which its vector left, for the view and model it was told."""
    rows = {}
    for name, (view, model) in told.items():
        if kit.shields[name].rounds.view != view:
            kit.shields[name].join(view)
        Symbols.made = ()
        values = plain_values(np.array([float(kit.names.index(name))]))
        sent = kit.send(name, context or context_of(0, manifest_of(1), MODELS[model]), values)
        kit.words[name] = Masked.decode(sent).words
        rows[name] = Symbols.made[0].row
        kit.checks[name] = Symbols.made[0].check
    return rows


@cache
def kernel(matrix, prime=None):
    """Returns a basis of all combinations of rows that are zero, over the rationals or mod a prime.

    Most matrices of a search are alike but for the order of their columns, which changes no such combination.
    """
    ring = Fraction if prime is None else int
    rows = [[ring(x) for x in row] + [ring(i == j) for j in range(len(matrix))] for i, row in enumerate(matrix)]
    width, done = len(matrix[0]) if matrix else 0, 0
    for column in range(width):
        pivot = next((r for r in range(done, len(rows)) if reduced(rows[r][column], prime)), None)
        if pivot is None:
            continue
        rows[done], rows[pivot] = rows[pivot], rows[done]
        inverse = 1 / rows[done][column] if prime is None else pow(rows[done][column], -1, prime)
        for r in range(done + 1, len(rows)):
            factor = rows[r][column] * inverse
            rows[r] = [reduced(x - factor * y, prime) for x, y in zip(rows[r], rows[done], strict=True)]
        done += 1
    return [row[width:] for row in rows[done:]]


def reduced(value, prime):
    return value if prime is None else value % prime


def opened(rows, coalition, kit):
    """Returns the sets of honest parties whose sum the coalition can open, from all vectors it was sent."""
    known = {key for name in coalition for key in kit.known[name]}
    honest = [name for name in rows if name not in coalition]
    symbols = {key for name in honest for key in rows[name]} - known
    columns = sorted([rows[name].get(key, 0) for name in honest] for key in symbols)
    matrix = tuple(zip(*columns, strict=True)) if columns else ((),) * len(honest)
    found = []
    for prime in (None, 2, PRIME):
        basis = kernel(matrix, prime)
        found.append({frozenset(n for n, x in zip(honest, vector, strict=True) if x) for vector in basis})
        # Each party's check counts as often as every other one's: what opens is a multiple of their sum.
        assert prime is None or all(len({x for x in vector if x}) == 1 for vector in basis)
    assert found[0] == found[1] == found[2]
    return found[0]


def all_keys(kit, name):
    """Returns what a colluding party can compute: its pads in every view and on every model of this round."""
    shield, rows = kit.shields[name], set()
    for view, key_of in product(kit.views, kit.contexts):
        rounds = Rounds(kit.config, shield._member, shield._sid)
        rounds._enter(view)
        for j, root in shield.start_roots.items():
            low, high = min(shield._member.index, j), max(shield._member.index, j)
            rows.add(kdf(root, shield._sid, enc("viewpair", rounds.vid, 0, low, high, key_of, 3, 64)))
    return rows


@pytest.fixture
def symbolic(monkeypatch):
    monkeypatch.setattr(pair_keys, "Pad", Symbols)


def start(parties, colluders, least=2):
    kit = session(
        parties,
        policy=LOOSE,
        keys=dict(list(KEYS.items())[:parties]),
        colluders=colluders,
        n_min=least,
    )
    members = [c for size in range(kit.config.least_members, parties + 1) for c in combinations(kit.names, size)]
    kit.views = [View(0 if len(m) == parties else 1, m) for m in members]
    kit.contexts, kit.words, kit.checks = [], {}, {}
    for shield in kit.shields.values():
        shield.start_roots = dict(shield._pair_keys._keys)
    for model in MODELS.values():
        ctx = kit.shields[kit.names[0]].rounds.admit(context_of(0, manifest_of(1), model))
        kit.contexts.append(ctx)
    kit.known = {name: all_keys(kit, name) for name in kit.names}
    return kit


CASES = [(n, t) for n in (2, 3, 4, 5) for t in range(n - 1) if max((n + t) // 2 + 1, t + 2) <= n]


@pytest.mark.parametrize(("parties", "colluders"), CASES)
def test_agreement_opens_the_honest_sum_and_nothing_else(symbolic, parties, colluders):
    """Every coalition, every set of honest parties that keeps silent."""
    kit = start(parties, colluders)
    rows = rows_of(kit, {name: (View(0, kit.names), "a") for name in kit.names})
    for size in range(colluders + 1):
        for coalition in combinations(kit.names, size):
            honest = [n for n in kit.names if n not in coalition]
            assert opened(rows, coalition, kit) == {frozenset(honest)}
            # And the sum of their checks says nothing that does not follow from the sum of their words.
            checks = kit.shields[honest[0]]._judge._awaited.checks
            run(sum(kit.words[name] for name in honest), (product := checks.product()).take)
            expected = checks.check(product, [kit.names.index(name) for name in honest])
            assert sum(kit.checks[name] for name in honest) % PRIME == expected
            for silent in (s for k in range(1, len(honest)) for s in combinations(honest, k)):
                sent = {n: r for n, r in rows.items() if n not in silent}
                assert opened(sent, coalition, kit) == set()


def offers_of(kit, honest):
    views = [[v for v in kit.views if name in v.members] for name in honest]
    return product(*([(v, m) for v in mine for m in MODELS] for mine in views))


@pytest.mark.parametrize(("parties", "colluders"), [(n, t) for n, t in CASES if n <= 4])
def test_whatever_is_told_one_sum_opens_at_most(symbolic, parties, colluders):
    """Every view and either of two models to every honest party, every coalition: at most one view's honest sum."""
    kit = start(parties, colluders)
    table = {}
    for name in kit.names:
        for told in [(v, m) for v in kit.views if name in v.members for m in MODELS]:
            reset(kit, name)
            table[name, told] = rows_of(kit, {name: told})[name]
    for coalition in combinations(kit.names, colluders):
        honest = [n for n in kit.names if n not in coalition]
        for shown in offers_of(kit, honest):
            told = dict(zip(honest, shown, strict=True))
            found = opened({n: table[n, t] for n, t in told.items()}, coalition, kit)
            expected = {
                frozenset(n for n in view.members if n in honest)
                for view, model in set(shown)
                if all(told[n] == (view, model) for n in view.members if n in honest)
            }
            assert found == expected
            assert len(found) <= 1
            assert all(len(s) >= 2 for s in found)


def reset(kit, name):
    """Puts a shield back to the start of its session: one table of rows instead of a session for every offer."""
    shield = kit.shields[name]
    shield.rounds = Rounds(kit.config, shield._member, shield._sid, agreed=shield._judge.confirm)
    shield._pair_keys = PairKeys(shield._sid, shield._member.index, shield.start_roots)
    shield._member = replace(shield._member, memory=ModelMemory())


def test_history_keeps_apart_who_was_once_told_something_else(symbolic):
    """One party trained round 0 on another model; in round 1 all agree, and still nothing opens."""
    kit = start(3, 0)
    rows_of(kit, {n: (View(0, kit.names), "b" if n == "p00" else "a") for n in kit.names})
    rows = rows_of(kit, {n: (View(0, kit.names), "a") for n in kit.names}, context_of(1, manifest_of(1), b"c" * 32))
    assert opened(rows, (), kit) == set()


def test_a_setting_told_to_one_party_alone_opens_nothing(symbolic):
    """Learning rate 0 for all but one would make the sum that one's update."""
    kit = start(3, 0)
    rows = {}
    for name in kit.names:
        settings = b"learning rate 0" if name != "p01" else b"learning rate 1"
        rows |= rows_of(kit, {name: (View(0, kit.names), "a")}, context_of(0, manifest_of(1), b"a" * 32, settings))
    assert opened(rows, (), kit) == set()


def test_no_two_rounds_open_a_difference(symbolic):
    """The vectors of two rounds together open both sums and nothing of one party."""
    kit = start(3, 1)
    whole = View(0, kit.names)
    rows = {}
    for number in range(2):
        more = rows_of(kit, dict.fromkeys(kit.names, (whole, "a")), context_of(number, manifest_of(1)))
        rows |= {f"{name}/{number}": row for name, row in more.items()}
    matrix_kernel = opened(rows, (), kit)
    assert matrix_kernel == {frozenset(f"{n}/{r}" for n in kit.names) for r in range(2)}


def broken(forgets):
    """Pair keys that leave something out of those of pads."""

    class Broken(PairKeys):
        def pad(self, vid, number, ctx, size, bits):
            nothing = bytes(32)
            return super().pad(
                nothing if forgets == "vid" else vid, number, nothing if forgets == "ctx" else ctx, size, bits
            )

    return Broken


@pytest.mark.parametrize("forgets", ["ctx", "vid"])
def test_the_search_finds_a_deliberate_leak(symbolic, forgets):
    """Without ctx a sum over different models opens; without vid a party's pads cancel across views."""
    kit = start(4, 0)
    for shield in kit.shields.values():
        shield._pair_keys.__class__ = broken(forgets)
    whole, smaller = View(0, kit.names), View(1, kit.names[:3])
    if forgets == "ctx":
        told = {n: (whole, "a" if n == "p00" else "b") for n in kit.names}
    else:
        told = dict.fromkeys(kit.names[:3], (whole, "a")) | {"p03": (whole, "a")}
        told |= dict.fromkeys(kit.names[:2], (smaller, "a"))
    rows = rows_of(kit, told)
    found = opened(rows, (), kit) if forgets == "ctx" else shared_symbols(rows)
    assert found
    honest = start(4, 0)
    rows = rows_of(honest, told)
    assert not (opened(rows, (), honest) if forgets == "ctx" else shared_symbols(rows))


def shared_symbols(rows):
    """Returns pads that a party in the smaller view has in common with one in the larger view."""
    return {k for a in ("p00", "p01") for k in rows[a]} & {k for b in ("p02", "p03") for k in rows[b]}


def test_a_party_gives_one_row_a_round(symbolic):
    kit = start(3, 0)
    told = {"p00": (View(0, kit.names), "a")}
    rows_of(kit, told)
    with pytest.raises(ProtocolError, match="is over"):
        rows_of(kit, {"p00": (View(0, kit.names), "b")})
