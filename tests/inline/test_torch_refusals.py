# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch model or its labels cannot be is said before training, with what to do instead."""

import functools
import time

import numpy as np
import pytest
from inline.keras_models import CLASS, X, batches, bind
from inline.torch_models import NEEDS_TORCH, ready

from fedray.backends import make_backend
from fedray.errors import DataError, PlanError
from fedray.strategies import make_strategy

pytestmark = NEEDS_TORCH


def made(change=None, loss=None, outputs=3, **compiled):
    """A builder of one layer, with something changed about it."""

    def build():
        from torch import nn, optim

        from fedray.ml.nn.torch import Compiled

        net = nn.Sequential(nn.Linear(4, outputs))
        given = {
            "module": net,
            "loss": nn.CrossEntropyLoss() if loss is None else loss(),
            "optimizer": optim.SGD(net.parameters(), 0.1),
        } | compiled
        return Compiled(**(given | (change(net, optim) if change else {})))

    return build


def with_complex(net, optim):
    import torch

    net.register_parameter("turn", torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    return {}


def plateau(net, optim):
    sgd = optim.SGD(net.parameters(), 0.1)
    return {"optimizer": sgd, "scheduler": optim.lr_scheduler.ReduceLROnPlateau(sgd)}


def anothers(net, optim):
    return {"scheduler": optim.lr_scheduler.StepLR(optim.SGD(net.parameters(), 0.1), 1)}


def stranger(net, optim):
    import torch

    return {"optimizer": optim.SGD([*net.parameters(), torch.nn.Parameter(torch.zeros(2))], 0.1)}


def spread(net, optim):
    import torch

    return {"module": torch.nn.DataParallel(net)}


def learned(net, optim):
    import torch

    return {"loss": torch.nn.Linear(1, 1)}


REFUSED = {
    "several optimizers": (
        lambda net, optim: {"optimizer": [optim.SGD(net.parameters(), 0.1)] * 2},
        r"expected one optimizer, found 2; let one hold several groups of parameters",
    ),
    "no optimizer": (lambda *_: {"optimizer": None}, "expected an optimizer of torch.optim, found NoneType"),
    "LBFGS": (lambda net, optim: {"optimizer": optim.LBFGS(net.parameters())}, "use another optimizer"),
    "a tensor of another": (stranger, "the optimizer holds tensors that are not the module's"),
    "complex": (with_complex, "the tensor 'turn' is complex, .* torch.view_as_real"),
    "DataParallel": (spread, "the module is a DataParallel; hand over the module inside it"),
    "a class": (lambda net, _: {"module": type(net)}, "expected a torch.nn.Module .*, found Sequential"),
    "a plateau": (plateau, "ReduceLROnPlateau looks at a metric over all parties"),
    "another's scheduler": (anothers, "expected one of the optimizer that is handed over with it"),
    "no scheduler": (lambda *_: {"scheduler": 0.1}, "expected one of torch.optim.lr_scheduler, found float"),
    "half a dict": (lambda *_: {"scheduler": {"interval": "step"}}, r"scheduler: expected \{'scheduler'"),
    "a norm below 0": (lambda *_: {"max_grad_norm": -1.0}, "max_grad_norm: expected a number above 0"),
    "a loss that learns": (learned, "loss: Linear has parameters to train"),
    "neither loss nor step": (lambda *_: {"loss": None}, "loss: expected a loss, or a module with a training_step"),
    "no loss": (lambda *_: {"loss": "mse"}, r"loss: expected a loss, e.g. .*, found str"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_cannot_be_trained_are_refused(kind):
    change, message = REFUSED[kind]
    with pytest.raises(PlanError, match=message):
        make_backend("torch", made(change), 1, 0, 1)


def test_a_module_without_the_rest_is_refused():
    import torch

    with pytest.raises(PlanError, match=r"expected .* training_step and configure_optimizers, found the module Linear"):
        make_backend("torch", lambda: torch.nn.Linear(4, 3), 1, 0, 1)


def test_what_was_made_outside_of_the_builder_is_refused():
    import torch

    net = torch.nn.Linear(4, 3)
    rows = torch.utils.data.TensorDataset(torch.zeros(2, 4))

    def instance():
        return net, torch.nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 0.1)

    def on_data():
        inner = torch.nn.Linear(rows.tensors[0].shape[1], 3)
        return inner, torch.nn.CrossEntropyLoss(), torch.optim.SGD(inner.parameters(), 0.1)

    from fedray.ml.nn.core.torch import TorchModel, optim_wrapper

    pieces = TorchModel(lambda: net, torch.nn.CrossEntropyLoss, optim_wrapper(torch.optim.SGD, lr=0.1))
    for builder in (instance, functools.partial(instance), pieces):
        with pytest.raises(PlanError, match="uses 'net', a Linear that was made outside of it; make it inside"):
            make_backend("torch", builder, 1, 0, 1)
    with pytest.raises(PlanError, match="uses 'rows', a TensorDataset; a model is built without data"):
        make_backend("torch", on_data, 1, 0, 1)


def test_an_attribute_that_is_called_like_a_module_of_the_program_is_none():
    import torch

    space = {"torch": torch, "net": torch.nn.Linear(4, 3), "rows": torch.zeros(3)}
    program = """
def build():
    class Holder:
        net = torch.nn.Linear(4, 3)
    made = Holder()
    return made.net, torch.nn.CrossEntropyLoss(), torch.optim.SGD(made.net.parameters(), 0.1)

def outside():
    def inner():
        return net
    return inner(), torch.nn.CrossEntropyLoss(), torch.optim.SGD(inner().parameters(), 0.1)
"""
    exec(program, space)
    assert make_backend("torch", space["build"], 1, 0, 1).spec.names == ("weight", "bias")
    with pytest.raises(PlanError, match="uses 'net', a Linear that was made outside of it"):
        make_backend("torch", space["outside"], 1, 0, 1)


def test_hooks_that_break_determinism_are_refused_by_name():
    def clock(module, inputs, output):
        return output * (1 + time.perf_counter_ns() % 1000)

    def hooked(net, optim):
        net[0].register_forward_hook(clock)
        return {}

    with pytest.raises(PlanError, match=r"two passes over the same rows .* differ|it has hooks at 0 \(clock\)"):
        ready(made(hooked))

    def noise(module, inputs, output):
        import torch

        return output + torch.rand(3) + float(np.random.random())

    def drawing(net, optim):
        net[0].register_forward_hook(noise)
        return {}

    backend, data = ready(made(drawing))
    other, same = ready(made(drawing))
    ends = [one.train(one.weights(), rows, batches(60))[0].tolist() for one, rows in ((backend, data), (other, same))]
    assert ends[0] == ends[1], "one that draws from the generators is as good as dropout"


def test_a_layer_with_a_generator_of_its_own_is_refused():
    import torch

    class Drawing(torch.nn.Linear):
        def forward(self, x):
            if not hasattr(self, "own"):
                self.own = torch.Generator()
            return super().forward(x) * torch.rand(1, generator=self.own)

    def build():
        net = Drawing(4, 3)
        return net, torch.nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 0.1)

    with pytest.raises(PlanError, match="let it draw from PyTorch's, NumPy's or Python's own generators"):
        ready(build)


def loss(name, **settings):
    def make():
        import torch

        return getattr(torch.nn, name)(**settings)

    return make


def function(name, **settings):
    def make():
        import torch

        return functools.partial(getattr(torch.nn.functional, name), **settings)

    return make


ONE_HOT = np.eye(3, dtype=np.float32)[CLASS]

FITTING = {
    "numbers": (loss("CrossEntropyLoss"), 3, CLASS),
    "short numbers": (loss("CrossEntropyLoss"), 3, CLASS.astype(np.uint8)),
    "numbers in a column": (loss("CrossEntropyLoss"), 3, CLASS[:, None]),
    "one-hot": (loss("CrossEntropyLoss"), 3, ONE_HOT),
    "a function": (function("cross_entropy", label_smoothing=0.1), 3, CLASS),
    "ignored": (loss("CrossEntropyLoss", ignore_index=-1), 3, np.where(CLASS == 2, -1, CLASS)),
    "whole prices": (loss("MSELoss"), 1, CLASS),
    "prices in a row": (loss("HuberLoss"), 1, X[:, 0]),
    "yes and no": (loss("BCEWithLogitsLoss"), 1, CLASS > 0),
}


@pytest.mark.parametrize("kind", FITTING)
def test_labels_that_lack_nothing_but_a_type_or_an_axis_fit(kind):
    made_loss, outputs, y = FITTING[kind]
    backend, data = ready(made(loss=made_loss, outputs=outputs), X, y)
    assert np.isfinite(backend.train(backend.weights(), data, batches(60))[0]).all()


UNFIT = {
    "floats for classes": (
        loss("CrossEntropyLoss"),
        3,
        CLASS.astype(np.float32),
        r"integers .*use y.astype\('int64'\)",
    ),
    "one-hot integers": (loss("CrossEntropyLoss"), 3, ONE_HOT.astype(int), r"found \(3,\) of int64; use y.argmax"),
    "one-hot for NLL": (loss("NLLLoss"), 3, ONE_HOT, r"'NLLLoss' expects class numbers, .*use y.argmax\(axis=1\)"),
    "a class too many": (loss("CrossEntropyLoss"), 3, CLASS + 1, "class numbers from 0 to 3 - 1, found others"),
    "a class below": (function("cross_entropy"), 3, CLASS - 1, "'cross_entropy' expects class numbers from 0"),
    "three for one": (loss("MSELoss"), 1, ONE_HOT, r"'MSELoss' expects rows of shape \(1,\), found \(3,\) of float32"),
    "classes for numbers": (loss("L1Loss"), 3, CLASS, "its labels are numbers, not classes"),
    "shares above 1": (loss("BCEWithLogitsLoss"), 1, CLASS, "expects labels from 0 to 1, found others"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_labels_are_held_against_the_loss_before_the_first_step(kind):
    made_loss, outputs, y, message = UNFIT[kind]
    with pytest.raises(DataError, match=f"^y: the loss .*{message}"):
        ready(made(loss=made_loss, outputs=outputs), X, y)


def test_a_loss_of_ones_own_that_would_broadcast_is_found_out():
    def squares():
        return lambda output, y: ((output - y) ** 2).mean()

    with pytest.raises(DataError, match=r"sets each row's labels against all .* y.reshape\(-1, 1\)"):
        ready(made(loss=squares, outputs=1), X, X[:, 0])
    ready(made(loss=squares, outputs=1), X, X[:, :1])


@pytest.mark.parametrize("settings", [{}, {"weight": [1.0, 3.0, 0.5]}, {"ignore_index": 1}, {"reduction": "sum"}])
def test_weights_of_rows_are_those_of_the_loss(settings):
    """With all weights 1 nothing changes; rows of weight 0 might as well not be there, but in the number of rows."""
    import torch

    def make():
        given = {k: torch.tensor(v) if k == "weight" else v for k, v in settings.items()}
        return torch.nn.CrossEntropyLoss(**given)

    backend, plain = ready(made(loss=make))
    weighted = bind(backend, X, CLASS, np.ones(60))
    first, second = (backend.gradient(data, batches(60))[0] for data in (plain, weighted))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)


def test_a_loss_for_a_whole_batch_takes_no_weights_of_rows_and_one_for_each_row_does():
    import torch

    def for_all():
        return lambda output, y: torch.nn.functional.cross_entropy(output, y)

    def for_each():
        return lambda output, y: torch.nn.functional.cross_entropy(output, y, reduction="none")

    backend, _ = ready(made(loss=for_all))
    with pytest.raises(PlanError, match=r"gives one number for a batch, .* let it return one number per row"):
        bind(backend, X, CLASS, np.ones(60))
    kept = np.arange(60) < 20
    backend, _ = ready(made(loss=for_each))
    some, alone = bind(backend, X, CLASS, kept.astype(float)), bind(backend, X[kept], CLASS[kept])
    part, whole = backend.gradient(some, batches(60))[0], backend.gradient(alone, batches(20))[0]
    np.testing.assert_allclose(part, whole / 3, rtol=1e-4, atol=1e-6)
    by_class = bind(backend, X, CLASS, None, {2: 0.0, 1: 0.0})
    some = bind(backend, X, CLASS, (CLASS == 0).astype(float))
    assert backend.gradient(by_class, batches(60))[0].tolist() == backend.gradient(some, batches(60))[0].tolist()


def test_strategies_that_would_do_something_else_are_refused():
    average = make_strategy("fed_avg_g")
    backend = make_backend("torch", made(loss=loss("CrossEntropyLoss", reduction="sum")), 1, 0, 1)
    with pytest.raises(PlanError, match="a loss with reduction='sum' adds up the rows of a batch"):
        backend.check_strategy(average)
    backend = make_backend("torch", made(max_grad_norm=1.0), 1, 0, 1, ["0.bias"])
    with pytest.raises(PlanError, match="max_grad_norm takes one norm over shared and local tensors"):
        backend.check_strategy(average)
    backend.check_strategy(make_strategy("fed_avg_w"))


def test_outputs_without_an_entry_per_row_are_refused():
    import torch

    class Summed(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x).sum(0)

    def build():
        net = Summed(4, 3)
        return net, torch.nn.MSELoss(), torch.optim.SGD(net.parameters(), 0.1)

    with pytest.raises(PlanError, match=r"one entry per row .*, found for two rows output: \(3,\)"):
        ready(build)


def test_a_gpu_that_is_asked_for_and_is_not_there_is_told(monkeypatch):
    import torch

    from fedray.backends.torch.start import device_of

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlanError, match="the party asks for 1 GPU, and PyTorch finds none where it runs"):
        make_backend("torch", made(), 1, 0, 1, gpus=1.0)
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: taken.append(given))
    assert device_of(torch, 0) == torch.device("cpu"), "a GPU that nobody gave the party is another's"
    assert device_of(torch, 1) == torch.device("cuda", 0)
    assert taken == []
    assert device_of(torch, 0.25) == torch.device("cuda", 0)
    assert taken == [(0.25, torch.device("cuda", 0))], "of a quarter of a GPU, a quarter of its memory"
