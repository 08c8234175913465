# SPDX-License-Identifier: Apache-2.0
"""Other ways to hand a PyTorch model over: in pieces, in the words of the reference, and in Lightning's form."""

import re

import numpy as np
import pytest
from inline.federated import world
from inline.keras_models import CLASS, X, batches, bind
from inline.torch_models import NEEDS_TORCH, ready

import fedray as sf
from fedray.errors import PlanError
from fedray.ml.nn import FLModel
from fedray.security.aggregation import SecureAggregator
from fedray.strategies import make_strategy
from fedray.utils.simulation.datasets import load_mnist

pytestmark = NEEDS_TORCH


def test_the_reference_program_runs_as_it_stands(start):
    start("inline", ("alice", "bob", "charlie"))
    alice, bob, charlie = sf.PYU("alice"), sf.PYU("bob"), sf.PYU("charlie")
    from torch import nn, optim
    from torch.nn import functional as F  # noqa: N812 (as it stands)
    from torchmetrics import Accuracy, Precision

    from fedray.ml.nn.core.torch import BaseModule, TorchModel, metric_wrapper, optim_wrapper

    class ConvNet(BaseModule):
        """Small ConvNet for MNIST."""

        def __init__(self):
            super(ConvNet, self).__init__()  # noqa: UP008 (as it stands)
            self.conv1 = nn.Conv2d(1, 3, kernel_size=3)
            self.fc_in_dim = 192
            self.fc = nn.Linear(self.fc_in_dim, 10)

        def forward(self, x):
            x = F.relu(F.max_pool2d(self.conv1(x), 3))
            x = x.view(-1, self.fc_in_dim)
            x = self.fc(x)
            return F.softmax(x, dim=1)

    (train_data, train_label), (test_data, test_label) = load_mnist(
        parts={alice: 0.005, bob: 0.005}, normalized_x=True, categorical_y=True, is_torch=True
    )
    assert train_data.shape == (600, 1, 28, 28)
    loss_fn = nn.CrossEntropyLoss
    optim_fn = optim_wrapper(optim.Adam, lr=1e-2)
    model_def = TorchModel(
        model_fn=ConvNet,
        loss_fn=loss_fn,
        optim_fn=optim_fn,
        metrics=[
            metric_wrapper(Accuracy, task="multiclass", num_classes=10, average="micro"),
            metric_wrapper(Precision, task="multiclass", num_classes=10, average="micro"),
        ],
    )
    device_list = [alice, bob]
    aggregator = SecureAggregator(charlie, [alice, bob])
    fl_model = FLModel(
        server=charlie,
        device_list=device_list,
        model=model_def,
        aggregator=aggregator,
        strategy="fed_avg_w",  # fl strategy
        backend="torch",  # backend support ['tensorflow', 'torch']
        random_seed=1234,
    )
    history = fl_model.fit(
        train_data,
        train_label,
        validation_data=(test_data, test_label),
        epochs=3,
        batch_size=32,
        aggregate_freq=1,
        verbose=0,
    )
    assert history.global_history["val_multiclassaccuracy"][-1] > 0.5
    assert list(history.global_history)[:3] == ["loss", "multiclassaccuracy", "multiclassprecision"]


def test_pieces_may_be_classes_functions_or_the_thing_itself():
    import torch
    from torch import nn, optim

    from fedray.ml.nn.core.torch import BaseModule, TorchModel, metric_wrapper, optim_wrapper

    assert issubclass(BaseModule, nn.Module)
    sgd = optim_wrapper(optim.SGD, lr=0.1, momentum=0.5)
    ends = []
    for loss in (nn.CrossEntropyLoss, nn.CrossEntropyLoss(), nn.functional.cross_entropy):
        made = TorchModel(model_fn=lambda: nn.Linear(4, 3), loss_fn=loss, optim_fn=sgd)()
        assert made.optimizer.defaults["momentum"] == 0.5
        backend, data = ready(lambda made=made: made)
        trained = backend.train(np.zeros(15, np.float32), data, batches(60))[0]
        ends.append(trained.tolist())
    assert ends[0] == ends[1] == ends[2]
    assert metric_wrapper(nn.Linear, 4, out_features=2)().weight.shape == (2, 4)
    with pytest.raises(PlanError, match=r"model_fn: expected what makes a torch\.nn\.Module, found dict"):
        TorchModel(model_fn=dict, loss_fn=nn.MSELoss, optim_fn=sgd)()
    assert torch.is_tensor(backend._module.weight)


def test_an_instance_in_place_of_a_function_says_pass_a_function(start):
    import torch

    fed = world(start, backend="numpy")
    with pytest.raises(PlanError, match=r"found Linear; pass a function: every party calls it"):
        fed.model(torch.nn.Linear(4, 3), backend="torch")


def lit(base=None, **changes):
    """A module of Lightning's form."""
    import torch
    from torch import nn

    class Lit(base or nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            x, y = batch
            output = self(x)
            loss = nn.functional.cross_entropy(output, y)
            self.log("train_loss", loss)
            self.log("train_acc", (output.argmax(1) == y).float().mean(), prog_bar=True)
            return loss

        def validation_step(self, batch, batch_idx):
            x, y = batch
            output = self(x)
            self.log("val_loss", nn.functional.cross_entropy(output, y))
            self.log_dict({"val_acc": (output.argmax(1) == y).float().mean()})

        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), 0.02)
            return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), "interval": "step"}]

    for name, value in changes.items():
        setattr(Lit, name, value)
    return Lit


def test_a_module_of_lightnings_form_is_a_model_and_what_it_logs_a_metric(start):
    fed = world(start, backend="numpy")
    model = fed.model(lit(), backend="torch")  # its class, called without arguments
    history = model.fit(fed.x, fed.y, validation_data=(fed.x, fed.y), epochs=3, batch_size=10, verbose=0).history
    assert list(history) == ["loss", "acc", "val_loss", "val_acc"]
    assert model.optimizer.learning_rate < 0.02, "its schedule goes on by batches"
    said = {device.name: sf.reveal(part).argmax(1) for device, part in model.predict(fed.x).items()}
    right = np.concatenate(list(said.values())) == CLASS
    assert history["val_acc"][-1] == pytest.approx(right.mean(), rel=1e-6)
    assert type(model.global_model()).__name__ == "Lit"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"automatic_optimization": False}, "takes its steps by itself; leave it out"),
        ({"training_step": lambda *_: None}, "training_step: expected it to return the loss of a batch"),
        ({"training_step": lambda self, batch, _: self(batch[0])}, "training_step: expected it to return the loss"),
        (
            {"training_step": lambda self, batch, _: self.log("acc", self.net) or self(batch[0]).mean()},
            re.escape("log('acc'): expected a number of the batch, found Sequential"),
        ),
    ],
)
def test_steps_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(PlanError, match=message):
        ready(lit(**changes))


def test_what_a_step_of_ones_own_would_ignore_is_refused():
    import torch

    from fedray.ml.nn.torch import Compiled

    def build(**ignored):
        module = lit()()
        return Compiled(module, None, torch.optim.SGD(module.parameters(), 0.1), **ignored)

    ready(build)
    for ignored in ({"metrics": [len]}, {"compile": True}):
        with pytest.raises(PlanError, match="a training_step keeps its outputs to itself; log the numbers there"):
            ready(lambda ignored=ignored: build(**ignored))


def test_several_optimizers_of_lightnings_are_refused_and_weights_of_rows_too():
    import torch

    def several(self):
        return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.1)]

    with pytest.raises(PlanError, match="expected one optimizer, found 2"):
        ready(lit(configure_optimizers=several))
    backend, _ = ready(lit())
    with pytest.raises(PlanError, match="a training_step of the model's own would not look at it"):
        bind(backend, X, CLASS, np.ones(60))


@pytest.mark.parametrize("name", ["fed_avg_g", "fed_prox"])
def test_its_gradients_are_at_hand(name):
    backend, data = ready(lit())
    strategy = make_strategy(name)
    backend.check_strategy(strategy)
    start = backend.weights()
    if name == "fed_avg_g":
        gradient, rows = backend.gradient(data, batches(60))
        assert rows == 60
        backend.apply_gradient(gradient)
    else:
        state = strategy.client_begin({}, start, {})
        backend.train(start, data, batches(60), strategy.client_hook, state)
    assert (backend.weights() != start).any()


def schedule(make, interval=None, rate=0.5):
    """A model whose rate follows a schedule."""

    def build():
        from torch import nn, optim

        from fedray.ml.nn.torch import Compiled

        net = nn.Linear(4, 3)
        sgd = optim.SGD(net.parameters(), rate, momentum=0.5)
        scheduler = make(optim.lr_scheduler, sgd)
        asked = scheduler if interval is None else {"scheduler": scheduler, "interval": interval}
        return Compiled(net, nn.CrossEntropyLoss(), sgd, scheduler=asked)

    return build


def test_a_schedule_by_batches_goes_by_those_that_are_planned():
    def one_cycle(kinds, sgd):
        return kinds.OneCycleLR(sgd, max_lr=1.0, total_steps=20)

    import torch

    probe = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5, momentum=0.5)
    cycle, rates = torch.optim.lr_scheduler.OneCycleLR(probe, max_lr=1.0, total_steps=20), []
    for _ in range(20):
        rates.append(probe.param_groups[0]["lr"])
        probe.step()
        cycle.step()
    for taken in (1, 2, 4, 8):  # of 4 that are planned
        backend, data = ready(schedule(one_cycle))
        for first in (0, 4, 8):
            backend.begin_round(first, 4, 0)
            before = backend.snapshot()
            trained = backend.train(backend.weights(), data, batches(*[5] * taken))[0]
            last = first + (taken - 1) * 4 // taken
            assert backend.learning_rate() == pytest.approx(rates[last], rel=1e-12)
            after = backend.snapshot()
            backend.restore(before)
            backend.begin_round(first, 4, 0)
            again = backend.train(backend.weights() * 0 + trained, data, [])[0]
            assert again.tolist() == trained.tolist()
            backend.restore(after)
    backend.begin_round(0, 4, 0)
    backend.train(backend.weights(), data, batches(5))
    assert backend.learning_rate() == pytest.approx(rates[0]), "an earlier place is found again"


SCHEDULES = {
    "warm-up": lambda kinds, sgd: kinds.SequentialLR(
        sgd, [kinds.LinearLR(sgd, 0.1, total_iters=4), kinds.CosineAnnealingLR(sgd, 10)], [4]
    ),
    "a chain": lambda kinds, sgd: kinds.ChainedScheduler(
        [kinds.ExponentialLR(sgd, 0.9), kinds.ConstantLR(sgd, 0.5, 4)]
    ),
    "a function": lambda kinds, sgd: kinds.LambdaLR(sgd, lambda step: 1 / (step + 1)),
    "restarts": lambda kinds, sgd: kinds.CosineAnnealingWarmRestarts(sgd, 5),
    "cycles": lambda kinds, sgd: kinds.CyclicLR(sgd, 0.1, 1.0, step_size_up=3),
}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.filterwarnings("error")
def test_every_schedule_is_pytorchs_own_also_where_rounds_are_put_back(kind):
    build = schedule(SCHEDULES[kind], "step")
    made, rates, found = build(), [], []
    for _ in range(12):
        rates.append(made.optimizer.param_groups[0]["lr"])
        made.optimizer.step()
        made.scheduler["scheduler"].step()
    backend, data = ready(build)
    for first in range(12):
        before = backend.snapshot()
        for again in range(1 + first % 2):
            if again:
                backend.restore(before)
            backend.begin_round(first, 1, 0)
            backend.train(backend.weights(), data, batches(10))
        found.append(backend.learning_rate())
    assert found == pytest.approx(rates, rel=1e-9)


def test_a_schedule_by_epochs_goes_by_those_that_are_over(start):
    def halved(kinds, sgd):
        return kinds.StepLR(sgd, 1, 0.5)

    fed = world(start, (50, 10), backend="numpy")
    model = fed.model(schedule(halved), backend="torch")
    rates = []
    for _ in range(2):
        model.fit(fed.x, fed.y, epochs=2, batch_size=10, verbose=0)
        rates.append(float(model.optimizer.learning_rate))
    assert rates == [0.25, 0.0625], "and on over fits"
    with pytest.raises(PlanError, match="the optimizer follows a schedule of its own"):
        model.optimizer.learning_rate = 0.1


def test_a_rate_in_a_tensor_is_put_back_with_its_round():
    import torch

    def build():
        from fedray.ml.nn.torch import Compiled

        net = torch.nn.Linear(4, 3)
        sgd = torch.optim.SGD(net.parameters(), torch.tensor(0.5))
        return Compiled(net, torch.nn.CrossEntropyLoss(), sgd, scheduler=torch.optim.lr_scheduler.StepLR(sgd, 1, 0.5))

    backend, data = ready(build)
    before = backend.snapshot()
    backend.begin_round(0, 1, 3)
    backend.train(backend.weights(), data, batches(60))
    assert backend.learning_rate() == 0.0625
    backend.restore(before)
    assert backend.learning_rate() == 0.5


def test_rates_of_groups_keep_their_proportions_and_a_rate_travels_with_a_file():
    from torch import nn, optim

    def build():
        net = nn.Linear(4, 3)
        groups = [{"params": [net.weight], "lr": 0.2}, {"params": [net.bias], "lr": 0.05}]
        return net, nn.CrossEntropyLoss(), optim.SGD(groups)

    backend, _ = ready(build)
    backend.set_learning_rate(0.4)
    assert [group["lr"] for group in backend._compiled.optimizer.param_groups] == [0.4, pytest.approx(0.1)]
    for ending in (".pt", ".safetensors"):
        other, _ = ready(build)
        other.import_model(backend.export_model(ending=ending))
        assert other.learning_rate() == 0.4


def test_words_of_a_module_at_the_driver(start, capsys):
    from torch import nn, optim

    fed = world(start, y=CLASS)

    def build():
        net = nn.Linear(4, 3)
        return net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.1)

    model = fed.model(build, backend="torch")
    model.summary()
    told = capsys.readouterr().out
    assert "Linear(in_features=4, out_features=3, bias=True)" in told
    assert "parameters: 15, of which are trained: 15" in told
    weight, bias = model.get_weights()
    state = model.state_dict()
    assert list(state) == ["weight", "bias"]
    assert np.array_equal(state["weight"].numpy(), weight)
    assert np.array_equal(state["bias"].numpy(), bias)
    with pytest.raises(AttributeError, match=r"no 'to': a party computes on a GPU where sf\.init"):
        model.to("cuda")
