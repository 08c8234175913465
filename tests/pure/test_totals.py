# SPDX-License-Identifier: Apache-2.0
"""Totals of a manifest: what is whole takes one word, what is not takes limbs, and whatever does not fit is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pure.masking_kit import context_of, encode, manifest_of, plain_values, session
from pure.sharing_kit import session as sharing_session

from fedray.errors import EncodingError, NotFinite, PlanError, ProtocolError
from fedray.metrics import Word
from fedray.party.training.model_rounds import totals as summed_as
from fedray.protocol import totals
from fedray.protocol.config import Encoding
from fedray.protocol.fixed_point import decode
from fedray.protocol.manifest import ExactTotal, Manifest
from fedray.protocol.opened import OpenedSum

WIDE, NARROW = Encoding(), Encoding(32)
MIXED = Manifest((), (ExactTotal("loss"), ExactTotal("seen", whole=True), ExactTotal("own", 3)), weighted=False)
NUMBERS = st.tuples(
    st.floats(-1e30, 1e30), st.integers(-(2**40), 2**40), *[st.floats(-1e-9, 1e-9, allow_subnormal=False)] * 3
).filter(lambda row: all(value == 0 or abs(value) > 2.0**-100 for value in row))


def words_of(values, manifest=MIXED, parties=3, encoding=WIDE):
    return encode(encoding, parties, manifest, plain_values(np.empty(0), 1, values))


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_every_total_is_the_exact_sum(rows):
    words = [words_of(row, parties=6) for row in rows]
    for order in (words, words[::-1]):
        opened = decode(WIDE, 6, MIXED, OpenedSum(np.add.reduce(order, dtype="<u8"), tuple("abcdef"[: len(rows)])))
        assert opened.metrics.tolist() == [math.fsum(column) for column in zip(*rows, strict=True)]


def test_how_many_words_they_take():
    assert [MIXED.words(n) for n in (2, 8, 9, 1000)] == [2 + 1 + 4 * limbs for limbs in (20, 20, 22, 36)]
    assert MIXED.whole.tolist() == [False, True, False, False, False]
    assert words_of([0, 7, 0, 0, 0]).view("<i8")[:2].tolist() == [1, 7]
    assert Manifest(()).whole.tolist() == []


@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        ([math.nan, 1, 0, 0, 0], NotFinite, "'loss' holds NaN; nothing was sent"),
        ([0, 1, 0, 0, -math.inf], NotFinite, "'own' holds an infinity"),
        ([0, math.inf, 0, 0, 0], NotFinite, "'seen' holds an infinity"),
        ([2.0**160, 1, 0, 0, 0], EncodingError, r"'loss' is beyond 2\^160, the largest number that is summed"),
        ([0, 1, 0, -1e300, 0], EncodingError, "'own' is beyond 2"),
        ([0, 2**53 // 3 + 1, 0, 0, 0], EncodingError, f"'seen' is beyond {2**53 // 3}, the largest count of 3 parties"),
        ([0, 1.5, 0, 0, 0], EncodingError, "'seen' was declared a count, found no whole number.*sample_weight"),
        ([0, 1, 0, 0], EncodingError, "expected 5 metrics, found shape"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, error, text):
    with pytest.raises(error, match="^this party: .*" + text):
        words_of(values)


def test_a_narrow_ring_carries_counts_only():
    counts = manifest_of(0, counts=["seen"], weighted=False)
    assert words_of([5], counts, encoding=NARROW).view("<i4").tolist() == [1, 5, 1]
    with pytest.raises(EncodingError, match="no whole numbers need words of 64 bits, found a ring of 32; take ring=64"):
        words_of([0, 1, 0, 0, 0], encoding=NARROW)


def test_an_altered_sum_of_totals_is_not_published():
    for place, altered, what in ((1, 2**53, "a count"), (2, 2**57, "a limb"), (21, 2**17, "a total")):
        words = words_of([1.0, 2, 3.0, 4.0, 5.0])
        words[place] = altered
        with pytest.raises(ProtocolError, match=f"{what} in the sum is beyond what the parties may send"):
            decode(WIDE, 3, MIXED, OpenedSum(words, ("a",)))


def test_what_is_summed_how_is_in_the_hash():
    made = {
        Manifest((), metrics).hash
        for metrics in (
            (ExactTotal("a", 2),),
            (ExactTotal("a"), ExactTotal("a")),
            (ExactTotal("a", 2, whole=True),),
            (ExactTotal("b", 2),),
        )
    }
    assert len(made) == 4
    with pytest.raises(PlanError, match="total 'a': a size is not negative"):
        ExactTotal("a", -1)


@pytest.mark.parametrize("scheme", ["plain", "masking", "sharing"])
def test_carries_are_drawn_anew_for_each_input_and_once_for_each_message(scheme, monkeypatch):
    """A repeated request returns the identical bytes and draws nothing; for recovery see test_recovery_decisions."""
    kit = sharing_session(3, 2, 2) if scheme == "sharing" else session(3, scheme)
    drawn = []
    real = totals.urandom
    monkeypatch.setattr(totals, "urandom", lambda count: drawn.append(real(count)) or drawn[-1])
    shield = next(iter(kit.shields.values()))
    contribution = plain_values(np.empty(0), 1, [1.0, 2, 3.0, 4.0, 5.0])
    for number in range(2):
        first, again = (
            [bytes(message) for message in shield.protect(context_of(number, MIXED), contribution).values()]
            for _ in range(2)
        )
        assert first == again
    assert [len(carries) for carries in drawn] == [8 * 4 * 19] * 2
    assert drawn[0] != drawn[1]


def test_with_row_weights_no_number_of_a_metric_is_whole():
    """A weight of a half makes half a count: then all are summed as real numbers, at every party."""
    words = (Word("loss/0", whole=False), Word("loss/1", whole=True))
    assert summed_as(words, row_weights=False) == (ExactTotal("loss/0"), ExactTotal("loss/1", whole=True))
    assert summed_as(words, row_weights=True) == (ExactTotal("loss/0"), ExactTotal("loss/1"))


@pytest.mark.parametrize("scheme", ["plain", "masking", "sharing"])
def test_a_round_without_totals_draws_nothing_and_opens_zeros(scheme, monkeypatch):
    """By the plan, for all parties alike; who has zeros to report draws carries, as their absence would tell."""
    kit = sharing_session(3, 2, 2) if scheme == "sharing" else session(3, scheme)
    drawn = []
    real = totals.urandom
    monkeypatch.setattr(totals, "urandom", lambda count: drawn.append(real(count)) or drawn[-1])
    shield = next(iter(kit.shields.values()))
    shield.protect(context_of(0, MIXED), plain_values(np.empty(0), 1, None))
    assert not drawn
    shield.protect(context_of(1, MIXED), plain_values(np.empty(0), 1, np.zeros(5)))
    assert len(drawn) == 1
    total = sum(encode(WIDE, 3, MIXED, plain_values(np.empty(0), 1, None)) for _ in range(3))
    assert decode(WIDE, 3, MIXED, OpenedSum(total, tuple("abc"))).metrics.tolist() == [0.0] * 5
