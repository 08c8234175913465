# SPDX-License-Identifier: Apache-2.0
"""Whether a metric's state adds up is found out by trying: what grows by another rule is never called a sum."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedray.backends.trial import made_up, verdict
from fedray.tree import Tree

RNG = np.random.default_rng(5)


class Variable:
    """What a trial needs of a Keras variable."""

    def __init__(self, start=0.0, dtype="float32"):
        self.value, self.dtype = np.asarray(start, dtype), dtype

    def numpy(self):
        return self.value.copy()


class Metric:
    """A metric of two variables a and b that grows by a rule: (a, b, labels y, outputs p, weights w) -> both."""

    def __init__(self, rule, start=(0.0, 0.0), dtype="float32"):
        self.rule, self.start, self.dtype = rule, start, dtype
        self.reset_state()

    def reset_state(self):
        self.variables = [Variable(value, self.dtype) for value in self.start]

    def see(self, rows, index, weighted):
        weight = rows.weight[index] if weighted else np.ones(len(index), np.float32)
        a, b = (variable.value for variable in self.variables)
        y, p = rows.y[index].astype(float), rows.output[index].astype(float)
        new = self.rule(SimpleNamespace(a=a, b=b, y=y, p=p, w=weight))
        for variable, value in zip(self.variables, new, strict=True):
            variable.value = np.asarray(value, self.dtype)


def tried(rule, labels=None, **form):
    like = np.zeros((2, 3), np.float32)
    rows = [made_up(like, like if labels is None else labels, like, kind) for kind in ("classes", "numbers")]
    metric = Metric(rule, **form)
    return verdict(metric, metric.see, rows)


SUMS = {
    "a weighted mean": lambda s: (s.a + (s.w * ((s.y - s.p) ** 2).sum(1)).sum(), s.b + s.w.sum()),
    "a signed sum": lambda s: (s.a + (s.w * (s.y - s.p).sum(1)).sum(), s.b + len(s.y)),
    "a small sum": lambda s: (s.a + 1e-9 * (s.w * (s.p**2).sum(1)).sum(), s.b + s.w.sum()),
    "one per class": lambda s: (s.a + (s.w[:, None] * s.p).sum(0), s.b + len(s.y)),
}
OTHERS = {
    "the largest": lambda s: (max(s.a, s.p.max()), s.b + len(s.y)),
    "the smallest": lambda s: (min(s.a, s.p.min()), s.b + len(s.y)),
    "the largest of small ones": lambda s: (max(s.a, 1e-9 * s.p.max()), s.b + len(s.y)),
    "a sum and the largest": lambda s: (s.a + s.p.sum(), max(s.b, s.p.max())),
    "the last batch": lambda s: (s.p.sum(), s.b + len(s.y)),
    "a moving average": lambda s: (0.9 * s.a + 0.1 * s.p.sum(), s.b + len(s.y)),
    "a running mean": lambda s: ((s.a * s.b + s.p.sum()) / (s.b + len(s.y)), s.b + len(s.y)),
    "a running maximum of sums": lambda s: (max(s.a, s.p.sum()), s.b + 1),
    "noise": lambda s: (s.a + RNG.uniform(size=len(s.y)).sum(), s.b + len(s.y)),
    "a product": lambda s: ((1 + s.a) * (1 + abs(s.p).sum()) - 1, s.b + len(s.y)),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_over_rows_are_found(name):
    assert tried(SUMS[name]) == "rows"
    numbers = np.zeros((2, 1), np.int64)
    assert tried(SUMS[name], labels=numbers) == "rows"


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_grows_by_another_rule_is_no_sum(name):
    start = (np.inf, 0.0) if name == "the smallest" else (0.0, 0.0)
    assert tried(OTHERS[name], start=start) == "no"


def test_a_state_that_does_not_begin_at_zero_would_be_counted_for_every_party():
    assert tried(SUMS["a weighted mean"], start=(0.0, 1.0)) == "no"


def test_sums_of_batch_means_are_sums_over_batches_only():
    assert tried(lambda s: (s.a + s.p.mean() ** 2, s.b + 1)) == "batches"


def test_a_variable_that_rests_shows_nothing():
    assert tried(lambda s: (s.a, s.b + len(s.y))) == "untried"


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")
def test_rows_that_a_metric_refuses_or_answers_with_nan_show_nothing():
    def picky(s):
        if s.p.min() < 0:
            raise ValueError
        return s.a + s.p.sum() * np.nan, s.b + len(s.y)

    assert tried(picky) == "untried"
    assert tried(lambda s: (s.a + np.sqrt(s.p).sum(), s.b + len(s.y))) == "rows"


def test_sums_of_half_precision_are_found_and_its_maxima_are_not():
    assert tried(lambda s: (s.a + (s.p**2).sum(), s.b + len(s.y)), dtype="float16") == "rows"
    assert tried(OTHERS["the largest"], dtype="float16") == "no"


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_made_up_rows_are_shaped_like_the_partys_and_know_nothing_else_of_them(kind):
    x = {"number": np.zeros((2, 4), np.float32), "word": np.array([["a"], ["b"]]), "id": np.zeros(2, np.int32)}
    y, output = [np.zeros(2, np.int64), np.zeros((2, 3), np.float32)], [np.zeros((2, 5)), np.zeros((2, 3), np.float32)]
    rows = made_up(x, y, output, kind)
    for made, like in ((rows.x, x), (rows.y, y), (rows.output, output)):
        for leaf, given in zip(Tree(made).leaves(), Tree(like).leaves(), strict=True):
            assert (leaf.shape[1:], leaf.dtype.kind) == (given.shape[1:], given.dtype.kind)
    assert set(rows.y[0]) == set(range(5))
    other = made_up(x, [labels + 7 for labels in y], output, kind)
    assert all(np.array_equal(a, b) for a, b in zip(other.y, rows.y, strict=True))
