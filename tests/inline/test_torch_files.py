# SPDX-License-Identifier: Apache-2.0
"""Files of PyTorch models, and what a model is known by: a file brings tensors, and never runs."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from inline.keras_models import CLASS, X, batches, bind
from inline.torch_models import NEEDS_TORCH, ready, torch_softmax

from fedray.backends import make_backend
from fedray.errors import DataError

pytestmark = NEEDS_TORCH

REFUSED = "the file does not hold the weights of this model"


def saved(content):
    """Returns a value as `torch.save` writes it."""
    import torch

    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Trap:
    """Runs code where it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_a_file_is_a_state_dict_of_the_plain_module():
    import torch
    from safetensors.torch import load

    backend, data = ready(torch_softmax(0.5))
    backend.train(backend.weights(), data, batches(30, 30))
    content = backend.export_model()
    state = torch.load(io.BytesIO(content), weights_only=True)
    assert list(state) == ["0.weight", "0.bias"]
    module = torch.nn.Sequential(torch.nn.Linear(4, 3))
    assert str(module.load_state_dict(state)) == "<All keys matched successfully>"
    assert np.array_equal(module(torch.from_numpy(X)).detach(), backend.predict(data, batches(60)).nest)
    safe = load(backend.export_model(ending=".safetensors"))
    assert all(torch.equal(safe[name], state[name]) for name in state)
    assert backend.export_model("weights") == content, "nothing of the optimizer is in either"


def test_what_is_tied_has_all_its_names_in_a_file():
    import torch

    def build():
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
        net[1].weight = net[0].weight
        return net, torch.nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 0.1)

    backend, _ = ready(build)
    for ending in (".pt", ".safetensors"):
        content = backend.export_model(ending=ending)
        other, _ = ready(build, seed=2)
        other.import_model(content)
        assert other.weights().tolist() == backend.weights().tolist()
        assert other._module[1].weight is other._module[0].weight
    module = build()[0]
    assert module.load_state_dict(torch.load(io.BytesIO(backend.export_model()), weights_only=True)).missing_keys == []


def hostile():
    """Contents that a careless reader would run, or take for this model."""
    import torch
    from safetensors.torch import save

    weight, bias = torch.zeros(3, 4), torch.zeros(3)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    header = json.dumps({"0.weight": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 10**9]}}).encode()
    return {
        "a pickle": pickle.dumps({"0.weight": Trap()}),
        "a trap": saved({"0.weight": weight, "0.bias": bias, "more": Trap()}),
        "a trap in an archive": zipped.getvalue(),
        "another shape": saved({"0.weight": weight.T, "0.bias": bias}),
        "integers": saved({"0.weight": weight.long(), "0.bias": bias}),
        "a tensor too few": save({"0.weight": weight}),
        "a tensor alone": saved(weight),
        "numbers": saved({"0.weight": 3, "0.bias": 4}),
        "a long header": (10**12).to_bytes(8, "little") + b"{}",
        "a lying header": len(header).to_bytes(8, "little") + header,
        "a short one": backend_file()[:100],
    }


def backend_file():
    return ready(torch_softmax())[0].export_model()


@pytest.mark.parametrize("kind", list(range(11)))
def test_files_of_something_else_are_refused_and_never_run(kind):
    name, content = list(hostile().items())[kind]
    backend, _ = ready(torch_softmax())
    before = backend.weights().tolist()
    with pytest.raises(DataError, match=REFUSED):
        backend.import_model(content)
    assert not Trap.sprung, name
    assert backend.weights().tolist() == before


@pytest.mark.parametrize("rate", [float("nan"), -1.0, "fast", None])
def test_a_rate_that_is_none_is_left(rate):
    from collections import OrderedDict

    import torch

    state = OrderedDict({"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3)})
    state._metadata = {"": {"version": 1, "learning_rate": rate}}
    backend, _ = ready(torch_softmax())
    backend.import_model(saved(state))
    assert backend.learning_rate() == 0.25
    assert (backend.weights() == 1).all()


def changed(change):
    def build():
        import torch

        net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.1))
        given = {"loss": torch.nn.CrossEntropyLoss(), "optimizer": torch.optim.SGD(net.parameters(), 0.1)}
        given |= change(torch, net)
        from fedray.ml.nn.torch import Compiled

        return Compiled(net, **given)

    return build


def with_dropout(torch, net):
    net[1].p = 0.2
    return {}


def with_attribute(torch, net):
    net.alpha = 0.5
    return {}


def with_step(torch, net):
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    return {"optimizer": sgd, "scheduler": torch.optim.lr_scheduler.StepLR(sgd, 3)}


CHANGES = {
    "dropout": with_dropout,
    "loss": lambda torch, _: {"loss": torch.nn.CrossEntropyLoss(label_smoothing=0.1)},
    "class weights": lambda torch, _: {"loss": torch.nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))},
    "optimizer": lambda torch, net: {"optimizer": torch.optim.Adam(net.parameters(), 0.1)},
    "rate": lambda torch, net: {"optimizer": torch.optim.SGD(net.parameters(), 0.2)},
    "clipping": lambda *_: {"max_grad_norm": 1.0},
    "schedule": with_step,
    "attribute": with_attribute,
    "metrics": lambda *_: {"metrics": {"own": lambda output, _: output[:, 0]}},
}


def test_whatever_training_depends_on_is_in_the_fingerprint():
    def fingerprint(change):
        return make_backend("torch", changed(change), 1, 0, 1).fingerprint()

    same = fingerprint(lambda *_: {})
    assert fingerprint(lambda *_: {}) == same
    assert len({same, *(fingerprint(change) for change in CHANGES.values())}) == 1 + len(CHANGES)


def test_a_rate_that_was_set_is_not():
    backend, _ = ready(changed(lambda *_: {}))
    before = make_backend("torch", changed(lambda *_: {}), 1, 0, 1).fingerprint()
    backend.set_learning_rate(0.7)
    assert backend.fingerprint() == before


def test_text_and_several_arrays_for_one_input_are_refused():
    backend, _ = ready(torch_softmax())
    with pytest.raises(DataError, match=r"x: expected numbers, found <U1; PyTorch has no tensors of text"):
        bind(backend, np.full((60, 4), "a"), CLASS)
    with pytest.raises(DataError, match="x: the model Sequential expects rows of another form, or other inputs"):
        bind(backend, [X, X], CLASS)
