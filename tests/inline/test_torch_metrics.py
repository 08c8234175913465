# SPDX-License-Identifier: Apache-2.0
"""torchmetrics over parties: exact where their states are sums, with their party where not, and told which is which."""

import numpy as np
import pytest
from inline.keras_models import CLASS, RNG, X, batches, bind, in_order
from inline.torch_models import NEEDS_TORCH, correct

from fedray.backends import make_backend
from fedray.errors import DataError, PlanError
from fedray.metrics import merge, words

pytestmark = NEEDS_TORCH

YES = (X[:, :1] + RNG.normal(size=(60, 1)) > 0).astype(np.int64)
PRICES = (250_000 + 90_000 * X[:, :1] + RNG.normal(size=(60, 1))).astype(np.float32)


def model(kind, metrics):
    """One layer whose outputs are classes, shares or prices."""

    def build():
        from torch import nn, optim

        from fedray.ml.nn.torch import Compiled

        net = nn.Linear(4, 3 if kind == "classes" else 1)
        loss = {"classes": nn.CrossEntropyLoss(), "yes": nn.BCEWithLogitsLoss(), "prices": nn.MSELoss()}[kind]
        if kind == "prices":
            nn.init.constant_(net.bias, 240_000)
        return Compiled(net, loss, optim.SGD(net.parameters(), 0.1), metrics=metrics())

    return build


def of_classes():
    from torchmetrics import Accuracy, F1Score, Precision, Recall
    from torchmetrics.classification import MulticlassAUROC, MulticlassConfusionMatrix

    given = {"task": "multiclass", "num_classes": 3}
    return {
        "accuracy": Accuracy(**given, average="micro"),
        "macro": Accuracy(**given, average="macro"),
        "f1": F1Score(**given, average="macro"),
        "precision": Precision(**given, average="weighted"),
        "recall": Recall(**given, average="none"),
        "auroc": MulticlassAUROC(3, thresholds=50),
        "confusion": MulticlassConfusionMatrix(3),
    } | {"own": correct}


def of_shares():
    from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision, BinaryF1Score

    return [BinaryAccuracy(), BinaryAUROC(thresholds=100), BinaryAveragePrecision(thresholds=100), BinaryF1Score()]


def of_prices():
    from torchmetrics import ExplainedVariance, MeanAbsoluteError, MeanSquaredError, R2Score

    return [MeanSquaredError(), MeanSquaredError(squared=False), MeanAbsoluteError(), R2Score(), ExplainedVariance()]


def named(metrics):
    """Gives the second of two of one class another name."""
    return lambda: {f"m{place}": metric for place, metric in enumerate(metrics())}


CASES = {
    "classes": (of_classes, CLASS),
    "one-hot": (of_classes, np.eye(3, dtype=np.float32)[CLASS]),
    "yes": (of_shares, YES),
    "yes as floats": (of_shares, YES.astype(np.float32)),
    "prices": (named(of_prices), PRICES),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sum_over_parties_is_the_metric_over_all_rows(case):
    import torch

    metrics, y = CASES[case]
    kind = case.split()[0].replace("one-hot", "classes")
    backend = make_backend("torch", model(kind, metrics), 1, 0, 1)
    parts = [bind(backend, X[part], y[part]) for part in (slice(0, 11), slice(11, 59), slice(59, 60))]
    assert backend.facts().apart == {}
    merged = backend.finish(merge([backend.evaluate(part, in_order(part.rows, 8)) for part in parts]))
    assert words(merged) == backend.facts().evaluate_words
    output = torch.from_numpy(backend.predict(bind(backend, X), batches(60)).nest)
    labels = torch.from_numpy(y if y.dtype.kind == "i" else y if kind == "prices" else y.astype(np.int64))
    labels = labels.argmax(1) if case == "one-hot" else labels
    made = metrics()
    pooled = made if isinstance(made, dict) else {type(one).__name__.lower(): one for one in made}
    assert [metric.name for metric in merged] == ["loss", *pooled]
    for metric in merged[1:]:
        one = pooled[metric.name]
        expected = correct(output, labels).mean() if one is correct else one(output, labels)
        # R2 and the explained variance are 1 less a ratio: near 0 the pooled float32 has lost what is here.
        np.testing.assert_allclose(metric.result(), expected.numpy(), rtol=2e-5, atol=2e-5, err_msg=metric.name)


def test_a_sum_of_many_rows_keeps_the_small_ones():
    """After a squared error of 1e8, float32 would not see another of 1."""
    from torchmetrics import MeanSquaredError

    backend = make_backend("torch", model("prices", lambda: [MeanSquaredError()]), 1, 0, 1)
    y = np.ones((60, 1), np.float32)
    y[0] = 1e4
    data = bind(backend, 0 * X, y)
    backend.set_weights(0 * backend.weights())
    loss, error = backend.evaluate(data, batches(*[1] * 60))
    assert float(loss) == (1e8 + 59) / 60
    assert float(error) == pytest.approx((1e8 + 59) / 60, rel=1e-12)


def test_counts_travel_as_whole_numbers():
    backend = make_backend("torch", model("classes", of_classes), 1, 0, 1)
    bind(backend, X, CLASS)
    by_name = {word.name: word.whole for word in backend.facts().train_words}
    assert not by_name["loss/0"]
    assert by_name["loss/1"]
    assert all(whole for name, whole in by_name.items() if not name.startswith(("loss/0", "own/0")))
    directions = backend.facts().directions
    assert (directions["loss"], directions["accuracy"], directions.get("own")) == ("min", "max", None)


def test_a_state_has_one_shape_whether_rows_were_seen_or_not():
    backend = make_backend("torch", model("prices", named(of_prices)), 1, 0, 1)
    data = bind(backend, X, PRICES)
    before = backend.facts()
    backend.train(backend.weights(), data, batches(60))
    backend.evaluate(data, batches(60))
    assert backend.facts() == before
    nobody = bind(backend, X[:0], PRICES[:0])
    merged = backend.finish(merge([backend.evaluate(part, batches(part.rows)) for part in (nobody, data)]))
    whole = backend.evaluate(data, batches(60))
    assert [float(metric) for metric in merged] == pytest.approx([float(metric) for metric in whole], rel=1e-6)


def test_states_that_are_lists_stay_with_their_party_and_say_what_would_help():
    from torchmetrics import SpearmanCorrCoef
    from torchmetrics.classification import MulticlassAUROC

    backend = make_backend("torch", model("classes", lambda: [MulticlassAUROC(3)]), 1, 0, 1)
    data = bind(backend, X, CLASS)
    assert (
        "a list of all rows; take one whose state is a sum, e.g. with thresholds=100"
        in backend.facts().apart["multiclassauroc"]
    )
    loss, area = backend.evaluate(data, batches(20, 40))
    assert (loss.additive, area.additive, area.state) == (True, False, ())
    assert 0 <= float(area) <= 1
    assert [word.name for word in backend.facts().evaluate_words] == ["loss/0", "loss/1"]
    backend.train(backend.weights(), data, batches(30))
    before = backend.snapshot()
    backend.train(backend.weights(), data, batches(30))
    backend.restore(before)
    taken = backend.take_metrics()
    assert backend.take_metrics()[1].result() == taken[1].result(), "it goes on until the epoch ends"
    backend = make_backend("torch", model("prices", lambda: [SpearmanCorrCoef()]), 1, 0, 1)
    bind(backend, X, PRICES)
    assert set(backend.facts().apart) == {"spearmancorrcoef"}


def own(rule, reduction="sum", start=0.0, **attributes):
    """A class of a user's own, whose state grows by a rule."""
    import torch
    from torchmetrics import Metric

    class Own(Metric):
        def __init__(self):
            super().__init__()
            self.add_state("seen", torch.tensor(start), dist_reduce_fx=reduction)

        def update(self, output, y):
            self.seen = rule(self.seen, output, y)

        def compute(self):
            return self.seen

    for name, value in attributes.items():
        setattr(Own, name, value)
    return Own


@pytest.mark.parametrize(
    ("rule", "settings", "reason"),
    [
        (lambda s, o, y: s + (o.argmax(1) == y).sum(), {}, None),
        (lambda s, o, _: s + o.max(), {}, "counts batches, not rows"),
        (lambda s, o, _: 0.9 * s + o.sum(), {}, "is not the sum of its states over parts"),
        (lambda s, *_: s + 1.0, {}, "counts batches, not rows"),
        (lambda s, *_: s + 1.0, {"additive": True}, None),
        (lambda s, o, _: s + o.sum(), {"additive": False}, "its class says additive = False"),
        (lambda s, o, _: s + o.sum(), {"reduction": "mean"}, "is put together by mean, not by a sum"),
        (lambda s, o, _: s + o.sum(), {"start": 1.0}, "does not start at zero"),
        (lambda s, o, _: s * 0 + o.sum() / 0, {}, "made-up rows did not show"),
    ],
)
def test_a_class_of_ones_own_is_tried(rule, settings, reason):
    backend = make_backend("torch", model("classes", lambda: [own(rule, **settings)()]), 1, 0, 1)
    data = bind(backend, X, CLASS)
    found = backend.facts().apart.get("own")
    assert (found is None) if reason is None else reason in found
    backend.keep_apart({"own": "another party says so"})
    assert backend.evaluate(data, batches(60))[1].additive is False


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        (lambda: ["accuracy"], PlanError, "expected torchmetrics objects or functions of .*, found str"),
        (lambda: [of_shares()[0], of_shares()[0]], PlanError, "two would be called 'binaryaccuracy'; pass a dict"),
        (lambda: {"loss": of_shares()[0]}, PlanError, "two would be called 'loss'"),
        (lambda: [lambda o, _: o.mean()], PlanError, "expected a function that returns one number for each row"),
        (lambda: [lambda o: o], PlanError, "expected a function of .output, y., and '<lambda>' takes other arguments"),
        (lambda: 3, PlanError, "metrics: expected a list, or a dict by name, found int"),
    ],
)
def test_what_is_no_metric_is_refused(metrics, error, message):
    with pytest.raises(error, match=message):
        bind(make_backend("torch", model("yes", metrics), 1, 0, 1), X, YES)


def test_fractions_are_no_classes():
    with pytest.raises(DataError, match=r"the metric 'BinaryAccuracy' expects classes, .* found fractions"):
        bind(make_backend("torch", model("yes", of_shares), 1, 0, 1), X, YES * 0.5)
