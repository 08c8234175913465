# SPDX-License-Identifier: Apache-2.0
"""What every backend must do with tensors that stay in their party; a new one joins by its line in the table of cases.

The whole model, all of it shared, is the reference: on one party's rows alone the roles change nothing.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from contracts.test_backends import CASES, MARKS, RATE, Case
from inline.keras_models import X, batches, bind

from fedray.backends import BACKENDS, make_backend
from fedray.errors import DataError, PlanError

pytestmark = pytest.mark.usefixtures("kernels_kept")


@dataclass
class Kept:
    """One backend with a tensor kept in the party.

    Attributes:
        case: The backend and its models.
        pattern: What is kept.
        place: Which of `arrays()` it is.
        slip: A pattern that almost fits one of the two.
    """

    case: Case
    pattern: str
    place: int
    slip: str = "kernal"

    def ready(self, builder=None, seed=1):
        backend = make_backend(self.case.name, builder or self.case.stateful, seed, 0, 1, [self.pattern])
        return backend, bind(backend, X, self.case.y)

    def whole(self, builder=None, seed=1):
        return self.case.ready(builder, seed=seed)

    @cached_property
    def _probe(self):
        return self.whole(seed=9)[0]

    def own(self, backend):
        """The party's own tensor, as only a file of the party's shows it."""
        self._probe.import_model(backend.export_model(own=True))
        return self._probe.arrays()[self.place].copy()

    def shared(self, arrays):
        return np.ravel(arrays[1 - self.place])


KEPT = {
    "keras bias": Kept(CASES["keras"], "*/bias", 1),
    "keras kernel": Kept(CASES["keras"], "*/kernel", 0),
    "keras graph": Kept(CASES["keras graph"], "*/bias", 1),
    "numpy bias": Kept(CASES["numpy softmax"], "bias", 1),
    "numpy kernel": Kept(CASES["numpy linear"], "kernel", 0),
    "torch": Kept(CASES["torch"], "*.bias", 1, slip="wieght"),
    "torch weight": Kept(CASES["torch"], "0.weight", 0, slip="0.wieght"),
}


KEPT_MARKS = MARKS | {"torch weight": MARKS["torch"]}


@pytest.fixture(params=[pytest.param(name, marks=KEPT_MARKS.get(name, ())) for name in KEPT])
def kept(request):
    return KEPT[request.param]


def test_every_framework_of_the_table_is_under_test():
    assert {kept.case.name for kept in KEPT.values()} == set(BACKENDS)


def test_the_flat_vector_lacks_what_is_kept_and_the_spec_names_it(kept):
    backend, whole = kept.ready()[0], kept.whole()[0]
    (own,) = backend.spec.of("local")
    assert backend.spec.size == len(backend.weights()) == whole.spec.size - own.size
    assert {param.name for param in backend.spec.params} == set(whole.spec.names)
    assert own.name not in backend.spec.names
    assert backend.weights().tolist() == kept.shared(whole.arrays()).tolist(), "the same seed, the same start"
    assert backend.fingerprint() != whole.fingerprint(), "parties with other roles are never summed"


def test_a_party_alone_trains_as_if_everything_were_shared(kept):
    backend, data = kept.ready()
    whole, same = kept.whole()
    trained, *_ = backend.train(backend.weights(), data, batches(20, 40))
    whole.train(whole.weights(), same, batches(20, 40))
    expected = whole.arrays()
    np.testing.assert_allclose(trained, kept.shared(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept.own(backend), expected[kept.place], rtol=1e-5, atol=1e-6)
    expected = [float(metric) for metric in whole.evaluate(same, batches(60))]
    assert [float(metric) for metric in backend.evaluate(data, batches(60))] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        backend.predict(data, batches(60)).nest, whole.predict(same, batches(60)).nest, rtol=1e-4, atol=1e-6
    )


def test_a_new_global_vector_leaves_what_is_kept(kept):
    backend, data = kept.ready()
    first = kept.own(backend)
    backend.train(backend.weights(), data, batches(60))
    own = kept.own(backend)
    assert own.tolist() != first.tolist()
    backend.set_weights(np.zeros(backend.spec.size, backend.spec.dtype))
    assert kept.own(backend).tolist() == own.tolist()


def test_a_round_taken_back_takes_back_what_is_kept(kept):
    backend, data = kept.ready()
    start, first = backend.weights().copy(), kept.own(backend)
    fresh = backend.snapshot()
    _, _, after = backend.train(start, data, batches(60))
    own = kept.own(backend)
    backend.train(start, data, batches(60))
    assert kept.own(backend).tolist() != own.tolist() != first.tolist()
    for snapshot, expected in ((after, own), (fresh, first)):
        backend.restore(snapshot)
        assert kept.own(backend).tolist() == expected.tolist()


def test_a_hook_knows_of_shared_words_only(kept):
    backend, data = kept.ready(kept.case.plain)
    whole, same = kept.whole(kept.case.plain)
    anchor = np.linspace(1, 2, backend.spec.size).astype(backend.spec.dtype)
    sizes = []

    def towards(state, gradient, weights):
        sizes.extend([gradient.shape[0], weights.shape[0], state["anchor"].shape[0]])
        return 0.0 * gradient + (weights - state["anchor"]) / RATE

    trained, *_ = backend.train(backend.weights(), data, batches(60), towards, {"anchor": anchor})
    whole.train(whole.weights(), same, batches(60))
    assert set(sizes) == {backend.spec.trainable}
    np.testing.assert_allclose(trained, anchor, rtol=1e-6)
    np.testing.assert_allclose(kept.own(backend), whole.arrays()[kept.place], rtol=1e-5, atol=1e-6)


def test_what_is_kept_takes_the_partys_own_mean_gradient_with_the_rounds_answer(kept):
    backend, data = kept.ready()
    whole, same = kept.whole()
    first, state = kept.own(backend), backend.snapshot()
    gradient, rows = backend.gradient(data, batches(20, 40))
    full, _ = whole.gradient(same, batches(20, 40))
    whole.apply_gradient(full)
    assert (gradient.shape, rows) == ((backend.spec.size,), 60)
    assert kept.own(backend).tolist() == first.tolist(), "nothing moves before the answer"
    backend.apply_gradient(2 * gradient)
    np.testing.assert_allclose(kept.own(backend), whole.arrays()[kept.place], rtol=1e-5, atol=1e-6)
    backend.restore(state)
    backend.gradient(data, batches(60))
    backend.restore(state)
    backend.apply_gradient(gradient)
    assert kept.own(backend).tolist() == first.tolist(), "a round taken back leaves no gradient behind"


def test_without_rows_what_is_kept_stays_as_it_is(kept):
    backend, data = kept.ready()
    gradient, _ = backend.gradient(data, batches(60))
    backend.apply_gradient(gradient)
    own, before = kept.own(backend), backend.weights().copy()
    backend.gradient(data, [])
    backend.apply_gradient(gradient)
    assert kept.own(backend).tolist() == own.tolist(), "and momentum does not move it either"
    assert backend.weights().tolist() != before.tolist()


def test_arrays_and_the_global_file_hold_it_as_it_was_built(kept):
    backend, data = kept.ready()
    built = kept.whole()[0].arrays()[kept.place].tolist()
    trained, *_ = backend.train(backend.weights(), data, batches(60))
    own = kept.own(backend)
    probe, _ = kept.whole(seed=9)
    probe.import_model(backend.export_model())
    for arrays in (backend.arrays(), probe.arrays()):
        assert arrays[kept.place].tolist() == built
        assert kept.shared(arrays).tolist() == trained.tolist()
    assert kept.own(backend).tolist() == own.tolist(), "and writing them changes nothing"
    assert backend.weights().tolist() == trained.tolist()


def test_files_and_arrays_set_what_is_shared_and_a_partys_own_file_what_is_kept(kept):
    trained, data = kept.ready()
    trained.train(trained.weights(), data, batches(60))
    theirs, owned = trained.weights().copy(), kept.own(trained)
    for setting in (
        lambda b: b.import_model(trained.export_model(own=True)),
        lambda b: b.set_arrays(trained.arrays()),
    ):
        backend, _ = kept.ready(seed=2)
        before = kept.own(backend)
        setting(backend)
        assert backend.weights().tolist() == theirs.tolist()
        assert kept.own(backend).tolist() == before.tolist()
    backend, _ = kept.ready(seed=2)
    before = backend.weights().tolist()
    backend.import_model(trained.export_model(own=True), own=True)
    assert kept.own(backend).tolist() == owned.tolist()
    assert backend.weights().tolist() == before
    with pytest.raises(DataError, match="the file does not hold the weights of this model"):
        backend.import_model(b"no model at all", own=True)
    assert kept.own(backend).tolist() == owned.tolist()


def test_patterns_that_cannot_work_are_refused(kept):
    with pytest.raises(
        PlanError, match=rf"local: pattern '{kept.slip}' matches none of the model's 2 tensors\. Did you mean"
    ):
        make_backend(kept.case.name, kept.case.plain, 1, 0, 1, [kept.slip])
    with pytest.raises(PlanError, match="local: the patterns keep all 2 tensors that training changes in their party"):
        make_backend(kept.case.name, kept.case.plain, 1, 0, 1, ["*"])
