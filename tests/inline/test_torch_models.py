# SPDX-License-Identifier: Apache-2.0
"""PyTorch models of many kinds, each trained here as PyTorch alone trains it: the same step, or it is no use."""

import numpy as np
import pytest
from inline.keras_models import CLASS, RNG, X, batches, bind
from inline.torch_models import NEEDS_TORCH, ready

from fedray.backends import make_backend
from fedray.errors import DataError
from fedray.strategies import make_strategy

pytestmark = NEEDS_TORCH

IMAGES = RNG.normal(size=(60, 1, 12, 12)).astype(np.float32)
TOKENS = RNG.integers(0, 11, size=(60, 7))
PRICES = (250_000 + 90_000 * X[:, 0]).astype(np.float32)


def mlp():
    from torch import nn, optim

    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return net, nn.CrossEntropyLoss(), optim.Adam(net.parameters(), 0.01)


def cnn():
    from torch import nn, optim

    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(100, 3))
    return net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.05, momentum=0.9, nesterov=True)


def gru():
    from torch import nn, optim

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.reader = nn.Embedding(11, 6), nn.GRU(6, 5, batch_first=True)
            self.head = nn.Linear(5, 3)

        def forward(self, tokens):
            return self.head(self.reader(self.words(tokens))[0][:, -1])

    net = Reader()
    return net, nn.CrossEntropyLoss(label_smoothing=0.1), optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)


def normed():
    from torch import nn, optim

    # A bias before BatchNorm has no gradient but rounding, which RMSprop would make much of.
    net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.GroupNorm(2, 8), nn.Linear(8, 3))
    return net, nn.CrossEntropyLoss(), optim.RMSprop(net.parameters(), 0.005)


def tied():
    from torch import nn, optim

    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 3))
    net[2].weight = net[0].weight
    return net, nn.CrossEntropyLoss(), optim.Adagrad(net.parameters(), 0.05)


def price():
    from torch import nn, optim

    net = nn.Sequential(nn.Linear(4, 1))
    return net, nn.MSELoss(), optim.Adam(net.parameters(), 1_000)


def weighty():
    import torch
    from torch import nn, optim

    net = nn.Linear(4, 3)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))
    groups = [{"params": [net.weight], "lr": 0.2}, {"params": [net.bias], "lr": 0.02}]
    return net, loss, optim.SGD(groups, weight_decay=0.01)


def own_loss():
    import torch
    from torch import nn, optim

    class Focal(nn.Module):
        def forward(self, output, y):
            picked = torch.log_softmax(output, 1).gather(1, y[:, None])[:, 0]
            return (-((1 - picked.exp()) ** 2) * picked).mean()

    net = nn.Linear(4, 3)
    return net, Focal(), optim.SGD(net.parameters(), 0.5)


def clipped():
    from torch import nn, optim

    from fedray.ml.nn.torch import Compiled

    net = nn.Linear(4, 3)
    return Compiled(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 5.0), max_grad_norm=0.1)


KINDS = {
    "mlp": (mlp, X, CLASS),
    "cnn": (cnn, IMAGES, CLASS),
    "gru": (gru, TOKENS, CLASS),
    "norms": (normed, X, CLASS),
    "tied": (tied, X, CLASS),
    "prices": (price, X, PRICES),
    "class weights": (weighty, X, CLASS),
    "own loss": (own_loss, X, CLASS),
    "clipping": (clipped, X, CLASS),
}


def plainly(builder, values, spec, x, y, sizes, epochs=1):
    """PyTorch's own loop over the same batches, from the same weights; returns the tensors by name."""
    import torch

    made = builder()
    made = made if isinstance(made, tuple) else (made.module, made.loss, made.optimizer, made.max_grad_norm)
    module, loss, optimizer, *norm = made
    tensors = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for param, part in zip(spec.shared, spec.unpack(values), strict=True):
            tensors[param.name].copy_(torch.from_numpy(part.copy()))
    module.train()
    for batch in batches(*sizes) * epochs:
        rows, labels = torch.from_numpy(x[batch.rows]), torch.from_numpy(y[batch.rows])
        optimizer.zero_grad()
        output = module(rows)
        loss(output, labels.reshape(output.shape) if labels.is_floating_point() else labels).backward()
        if norm:
            torch.nn.utils.clip_grad_norm_(module.parameters(), norm[0])
        optimizer.step()
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_is_pytorchs_own_steps(kind):
    builder, x, y = KINDS[kind]
    backend, data = ready(builder, x, y)
    start = backend.weights().copy()
    trained, *_ = backend.train(start, data, batches(13, 20, 27))
    expected = plainly(builder, start, backend.spec, x, y, (13, 20, 27))
    for param, part in zip(backend.spec.shared, backend.spec.unpack(trained), strict=True):
        np.testing.assert_allclose(part, expected[param.name], rtol=2e-5, atol=1e-6, err_msg=param.name)


@pytest.mark.parametrize("kind", ["gru", "norms", "clipping"])
def test_a_gradient_of_all_rows_applied_is_a_step_on_all_rows(kind):
    builder, x, y = KINDS[kind]
    backend, data = ready(builder, x, y)
    backend.check_strategy(make_strategy("fed_avg_g"))
    start = backend.weights().copy()
    gradient, rows = backend.gradient(data, batches(60))
    assert rows == 60
    backend.set_weights(start)
    backend.apply_gradient(gradient)
    expected = plainly(builder, start, backend.spec, x, y, (60,))
    for param, part in zip(backend.spec.shared, backend.spec.unpack(backend.weights()), strict=True):
        np.testing.assert_allclose(part, expected[param.name], rtol=2e-5, atol=1e-6, err_msg=param.name)


@pytest.mark.slow
def test_a_compiled_module_takes_the_same_steps():
    from torch import nn, optim

    from fedray.ml.nn.torch import Compiled

    def build(compiled):
        def made():
            net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
            return Compiled(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1), compile=compiled)

        return made

    ends = []
    for compiled in (False, True):
        backend, data = ready(build(compiled))
        assert backend.spec.names[0] == "0.weight"
        ends.append(backend.train(backend.weights(), data, batches(13, 20, 27))[0])
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5, atol=1e-6)


def test_a_tied_tensor_is_there_once():
    backend, _ = ready(tied)
    assert [n for n in backend.spec.names if "weight" in n] == ["0.weight", "3.weight"]
    assert len(backend.arrays()) == 5


def test_statistics_are_averaged_and_counters_stay():
    backend, data = ready(normed)
    assert backend.spec.names[-2:] == ("1.running_mean", "1.running_var")
    assert not any("num_batches" in param.name for param in backend.spec.params)
    assert [p.trainable for p in backend.spec.shared][-2:] == [False, False]
    before = backend.snapshot()
    backend.train(backend.weights(), data, batches(20, 40))
    assert int(backend._module[1].num_batches_tracked) == 2
    backend.restore(before)
    assert int(backend._module[1].num_batches_tracked) == 0, "a round put back takes the counter along"


def test_dropout_is_each_partys_own_and_a_round_put_back_draws_the_same_again():
    from torch import nn, optim

    def build():
        net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        return net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1)

    alice, data = ready(build, noise_seed=1)
    bob, same = ready(build, noise_seed=2)
    start = alice.weights()
    before = alice.snapshot()
    first, second = (alice.train(start, data, batches(20, 40))[0].tolist() for _ in range(2))
    assert first != second
    assert bob.train(start, same, batches(20, 40))[0].tolist() not in (first, second)
    alice.restore(before)
    assert alice.train(start, data, batches(20, 40))[0].tolist() == first


def test_one_row_is_too_few_for_batchnorm_and_the_error_says_what_to_do():
    backend, data = ready(normed)
    with pytest.raises(DataError, match="a batch of one row, of which BatchNorm has no statistics; expected GroupNorm"):
        backend.train(backend.weights(), data, batches(1))


def test_what_the_optimizer_does_not_hold_is_frozen_and_so_is_what_has_no_gradient():
    from torch import nn, optim

    def builder(switched_off):
        def build():
            net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
            if switched_off:
                net[0].requires_grad_(False)
            parameters = net.parameters() if switched_off else net[1].parameters()
            return net, nn.CrossEntropyLoss(), optim.SGD(parameters, 0.1)

        return build

    for switched_off in (True, False):
        backend, data = ready(builder(switched_off))
        assert backend.spec.names == ("1.weight", "1.bias")
        assert set(backend.facts().frozen) == {"0.weight", "0.bias"}
        frozen = [backend.arrays()[0].copy(), backend.arrays()[1].copy()]
        backend.train(backend.weights(), data, batches(60))
        assert all((a == b).all() for a, b in zip(frozen, backend.arrays(), strict=False))


def test_a_step_that_changes_a_frozen_tensor_is_refused_and_taken_back():
    import torch
    from torch import nn, optim

    from fedray.errors import PlanError

    class Sly(nn.Module):
        def __init__(self):
            super().__init__()
            self.kept, self.head = nn.Parameter(torch.zeros(4), requires_grad=False), nn.Linear(4, 3)

        def forward(self, x):
            if self.training:
                self.kept.data.add_(x.mean(0).detach())
                with torch.no_grad():
                    self.kept.add_(x.mean(0).detach())
            return self.head(x + self.kept)

    def build():
        net = Sly()
        return net, nn.CrossEntropyLoss(), optim.SGD(net.head.parameters(), 0.1)

    backend, data = ready(build)
    with pytest.raises(PlanError, match=r"a step changed the tensor 'kept', which is frozen.*local=\['kept'\]"):
        backend.train(backend.weights(), data, batches(60))
    assert not backend.arrays()[0].any()


def test_a_mask_of_minus_infinity_is_no_statistic():
    import torch
    from torch import nn, optim

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)
            self.register_buffer("mask", torch.tensor([0.0, 0.0, float("-inf")]))
            self.register_buffer("scale", torch.ones(4), persistent=False)

        def forward(self, x):
            return self.head(x * self.scale) + self.mask

    def build():
        net = Masked()
        return net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1)

    backend, data = ready(build, X, CLASS % 2)
    assert [param.name for param in backend.spec.of("frozen")] == ["mask"]
    assert np.isfinite(backend.train(backend.weights(), data, batches(60))[0]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_types_of_numbers_are_encoded_and_restored(dtype):
    import torch
    from torch import nn, optim

    def build():
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(getattr(torch, dtype))
        return net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1)

    backend, data = ready(build)
    assert {param.dtype for param in backend.spec.params} == {dtype}
    assert backend.weights().dtype == ("float64" if dtype == "float64" else "float32")
    start = backend.weights().copy()
    backend.set_weights(start)
    assert backend.weights().tobytes() == start.tobytes(), "every number of the short type is one of the long"
    trained, *_ = backend.train(start, data, batches(30, 30))
    assert np.isfinite(trained).all()
    assert (trained != start).any()
    assert backend.predict(data, batches(60)).nest.shape == (60, 3)
    for ending in (".pt", ".safetensors"):
        other, _ = ready(build, seed=2)
        other.import_model(backend.export_model(ending=ending))
        assert other.weights().tobytes() == trained.tobytes()
        other.set_arrays(backend.arrays())
        assert other.weights().tobytes() == trained.tobytes()


def two_and_two():
    from torch import nn, optim
    from torchmetrics.classification import MulticlassAccuracy

    from fedray.ml.nn.torch import Compiled

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.look, self.kind, self.height = nn.Linear(4, 6), nn.Linear(8, 3), nn.Linear(8, 1)

        def forward(self, image, age):
            import torch

            seen = torch.cat([torch.relu(self.look(image)), age], 1)
            return {"kind": self.kind(seen), "height": self.height(seen)}

    net = Both()
    loss = {"kind": nn.CrossEntropyLoss(), "height": nn.MSELoss()}
    metrics = {"kind": [MulticlassAccuracy(3, average="micro")]}
    return Compiled(net, loss, optim.SGD(net.parameters(), 0.1), metrics)


def test_two_inputs_and_two_outputs_by_name():
    x = {"image": X, "age": X[:, :2] * 3}
    y = {"kind": CLASS, "height": X[:, 0]}
    backend = make_backend("torch", two_and_two, 1, 0, 1)
    data = bind(backend, x, y)
    backend.train(backend.weights(), data, batches(30, 30))
    loss, accuracy = backend.evaluate(data, batches(60))
    assert (loss.name, accuracy.name) == ("loss", "kind_multiclassaccuracy")
    said = backend.predict(data, batches(40, 20)).nest
    assert {name: array.shape for name, array in said.items()} == {"kind": (60, 3), "height": (60, 1)}
    assert float(accuracy) == pytest.approx((said["kind"].argmax(1) == CLASS).mean())
    z = said["kind"] - said["kind"].max(1, keepdims=True)
    cross = (np.log(np.exp(z).sum(1)) - z[np.arange(60), CLASS]).mean()
    assert float(loss) == pytest.approx(cross + ((said["height"][:, 0] - X[:, 0]) ** 2).mean(), rel=1e-5)
    with pytest.raises(Exception, match=r"y: the model expects labels for its outputs, y\['height'\], y\['kind'\]"):
        bind(backend, x, {"kind": CLASS})


def test_a_model_that_waits_for_its_shape_takes_it_from_the_first_rows():
    from torch import nn, optim

    from fedray.backends import build_at_driver
    from fedray.errors import PlanError
    from fedray.tree import Tree

    def build():
        net = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(3))
        return net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1)

    backends = [make_backend("torch", build, 1, noise, 1) for noise in (1, 2)]
    with pytest.raises(PlanError, match="it learns its shape from the data; call fit or evaluate first"):
        backends[0].weights()
    assert backends[0].arrays() == []
    for backend in backends:
        bind(backend, X, CLASS)
    assert backends[0].weights().tobytes() == backends[1].weights().tobytes()
    module = build_at_driver("torch", build, backends[0].arrays(), Tree(X[:1] * 0, "x"))
    assert module[0].weight.shape == (6, 4)
