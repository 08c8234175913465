# SPDX-License-Identifier: Apache-2.0
"""Whole runs with PyTorch models: what a user types, equal to the last bit, and beside Keras on the same numbers."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inline.federated import by_hand, softmax, world
from inline.keras_models import CLASS, X
from inline.torch_models import TORCH, WITHOUT, torch_outputs, torch_softmax

import fedray as sf
from fedray.errors import PlanError
from fedray.ml.nn import FLModel
from fedray.security.aggregation import PlainAggregator, SPUAggregator
from fedray.strategies import STRATEGIES

TESTS = Path(__file__).parents[1]


def noisy():
    """Statistics to average, dropout to draw, an optimizer with a memory, and a metric that is a sum."""
    from torch import nn, optim
    from torchmetrics.classification import MulticlassAccuracy

    from fedray.ml.nn.torch import Compiled

    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = optim.Adam(net.parameters(), 0.02)
    metrics = {"accuracy": MulticlassAccuracy(3, average="micro")}
    return Compiled(net, nn.CrossEntropyLoss(), optimizer, metrics, max_grad_norm=1.0)


def torch_world(start, address="inline", rows=(35, 25), **settings):
    """The world of the NumPy backend, whose labels are class numbers, for PyTorch."""
    return replace(world(start, rows, address, backend="numpy", **settings), backend="torch")


def bits(model):
    """All of the global model, bit by bit."""
    return b"".join(tensor.numpy().tobytes() for tensor in model.global_model().state_dict().values())


@pytest.mark.torch
@pytest.mark.skipif(not TORCH, reason=WITHOUT)
class TestRuns:
    def test_fit_learns_and_all_that_follows_works(self, start, tmp_path):
        import torch

        fed = torch_world(start)
        model = fed.model(noisy)
        data = (fed.x, fed.y)
        history = model.fit(*data, validation_data=data, epochs=8, batch_size=8, verbose=0).history
        assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
        assert history["val_accuracy"][-1] > 0.7 > history["val_accuracy"][0]
        (loss, accuracy), local = model.evaluate(*data, verbose=0)
        assert (loss.count, float(accuracy)) == (60, pytest.approx(history["val_accuracy"][-1]))
        assert set(local) == {"alice", "bob"}
        said = np.concatenate([sf.reveal(part) for part in model.predict(fed.x).values()])
        module = model.global_model()
        assert not module.training
        with torch.no_grad():
            np.testing.assert_allclose(said, module(torch.from_numpy(X)).numpy(), rtol=1e-5, atol=1e-6)
        for name in ("m.pt", "m.safetensors"):
            model.save(tmp_path / name)
            other = fed.model(noisy, random_seed=9)
            other.load(tmp_path / name)
            assert bits(other) == bits(model)
            assert float(other.evaluate(*data, verbose=0)[0][0]) == pytest.approx(float(loss), rel=1e-6)
        assert module.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True)).missing_keys == []
        with pytest.raises(PlanError, match=r"path: expected a name that ends in \.pt or \.safetensors, found"):
            model.save(tmp_path / "m.keras")

    def test_two_runs_are_equal_to_the_last_bit_however_they_are_summed(self, start):
        ends = []
        for kind in ("secure", "secure", "plain", "spu"):
            fed = torch_world(start)
            aggregator = {
                "secure": lambda: None,
                "plain": lambda: PlainAggregator(fed.server, fed.devices),  # noqa: B023
                "spu": lambda: SPUAggregator(sf.SPU(sf.utils.testing.cluster_def(["alice", "bob"]))),
            }[kind]()
            server = None if kind == "spu" else fed.server
            model = FLModel(server, fed.devices, noisy, aggregator, backend="torch")
            history = model.fit(fed.x, fed.y, epochs=2, batch_size=8, verbose=0).history
            ends.append((bits(model), history))
            sf.shutdown()
        assert all(end == ends[0] for end in ends)

    def test_the_generators_of_the_process_are_left_alone(self, start):
        import torch

        def drawn():
            return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(np.random.get_state())

        fed = torch_world(start)
        torch.rand(3), random.random(), np.random.random()  # somewhere that no earlier test has left them
        before, threads = drawn(), torch.get_num_threads()
        model = fed.model(noisy)
        model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0)
        model.evaluate(fed.x, fed.y, verbose=0)
        model.global_model()
        assert drawn() == before
        assert torch.get_num_threads() == threads

    @pytest.mark.parametrize("strategy", sorted(STRATEGIES))
    def test_every_strategy_is_what_its_paper_says(self, start, strategy):
        fed = torch_world(start)
        settings = {"strategy_parameters": {"mu": 0.5}} if strategy == "fed_prox" else {}
        model = fed.model(torch_softmax(rate=0.5), strategy=strategy, **settings)
        first = [tensor.numpy().T for tensor in model.global_model().state_dict().values()]
        model.fit(fed.x, fed.y, epochs=2, batch_size=8, aggregate_freq=2, verbose=0)
        found = [tensor.numpy().T for tensor in model.global_model().state_dict().values()]
        if strategy == "fed_adam":  # the server's own step, which is tested without a framework
            assert not np.allclose(first[0], found[0])
            return
        mu = 0.5 if strategy == "fed_prox" else 0.0
        plan = {"epochs": 2, "batch_size": 8, "aggregate_freq": 2}
        expected = by_hand(first, fed.parts, strategy=strategy, mu=mu, **plan)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    def test_first_rounds_are_those_of_keras(self, start):
        ends = {}
        for backend, builder in (("torch", torch_softmax(rate=0.5)), ("tensorflow", softmax(rate=0.5))):
            fed = replace(world(start, (35, 25)), backend=backend)
            model = fed.model(builder)
            kernel, bias = np.linspace(-1, 1, 12).reshape(4, 3).astype("float32"), np.zeros(3, "float32")
            weights = [kernel.T.copy(), bias] if backend == "torch" else [kernel, bias]
            model._federation.set_arrays(weights)
            history = model.fit(fed.x, fed.y, epochs=1, batch_size=12, verbose=0).history
            arrays = model._federation.arrays()
            ends[backend] = ([arrays[0].T if backend == "torch" else arrays[0], arrays[1]], history["loss"])
            sf.shutdown()
        for one, other in zip(ends["torch"][0], ends["tensorflow"][0], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert ends["torch"][1] == pytest.approx(ends["tensorflow"][1], rel=1e-5)

    def test_local_tensors_stay_and_a_partys_own_file_has_them(self, start, tmp_path):
        import torch

        fed = torch_world(start)
        model = fed.model(noisy, local=["4.*", "*running_*"])
        model.fit(fed.x, fed.y, epochs=2, batch_size=8, verbose=0)
        alice = fed.devices[0]
        model.save(tmp_path / "alice.safetensors", party=alice)
        model.save(tmp_path / "all.pt")
        everyone = torch.load(tmp_path / "all.pt", weights_only=True)
        from safetensors.torch import load_file

        own = load_file(tmp_path / "alice.safetensors")
        assert torch.equal(own["0.weight"], everyone["0.weight"])
        assert not torch.equal(own["4.weight"], everyone["4.weight"])
        assert int(everyone["1.num_batches_tracked"]) == 0 < int(own["1.num_batches_tracked"])
        model.load(tmp_path / "alice.safetensors", party=alice)

    def test_a_session_with_pytorch_never_imports_tensorflow(self):
        program = (
            "import sys, numpy as np, fedray as sf\n"
            "from inline.test_torch_runs import noisy, torch_world\n"
            "fed = torch_world(lambda address, names, **settings: sf.init(list(names), address, **settings))\n"
            "model = fed.model(noisy)\n"
            "model.fit(fed.x, fed.y, epochs=1, batch_size=8, verbose=0)\n"
            "model.global_model(), model.evaluate(fed.x, fed.y, verbose=0)\n"
            "print(sorted({'tensorflow', 'keras', 'lightning'} & set(sys.modules)))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, cwd=TESTS)
        assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr


def test_without_pytorch_the_error_has_the_line_that_installs_it(monkeypatch, start):
    from fedray.backends.torch import start as beginning

    monkeypatch.setattr(beginning, "find_spec", lambda _: None)
    fed = torch_world(start)
    with pytest.raises(
        PlanError, match=r"party '(alice|bob)': .* torch is not installed .* pip install 'fedray\[torch\]'"
    ):
        fed.model(noisy)
    import fedray.ml.nn.core.torch as pieces
    import fedray.ml.nn.torch as one

    for module, name in ((pieces, "TorchModel"), (pieces, "BaseModule"), (one, "Compiled")):
        with pytest.raises(PlanError, match=r"pip install 'fedray\[torch\]'"):
            getattr(module, name)
    with pytest.raises(AttributeError, match="has no attribute 'Compile'; it offers Compiled"):
        one.Compile  # noqa: B018
    with pytest.raises(PlanError, match=r"backend: expected one of .*torch \(torch: pip install 'fedray\[torch\]'\)"):
        fed.model(noisy, backend="pytorch")


@pytest.mark.torch
@pytest.mark.skipif(not TORCH, reason=WITHOUT)
def test_a_party_computes_on_its_threads_and_where_its_resources_say(start):
    import torch

    def build():
        class Counting(torch.nn.Linear):
            def forward(self, x):
                return super().forward(x) * 0 + torch.get_num_threads()

        net = Counting(4, 3)
        return net, torch.nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 0.1)

    before = torch.get_num_threads()
    fed = torch_world(start, threads=3)
    said = [sf.reveal(part) for part in fed.model(build).predict(fed.x).values()]
    assert [np.unique(part).tolist() for part in said] == [[3.0], [3.0]]
    assert torch.get_num_threads() == before
    sf.shutdown()
    if not torch.cuda.is_available():
        fed = torch_world(start, resources={"alice": {"GPU": 0.5}})
        with pytest.raises(PlanError, match=r"party 'alice': resources: the party asks for 0\.5 GPU, and PyTorch"):
            fed.model(noisy)


@pytest.mark.torch
@pytest.mark.skipif(not TORCH, reason=WITHOUT)
class TestKinds:
    def test_prices_as_they_are(self, start):
        """A loss of 1e10 and weights of 1e5 come through the masks like any others."""
        from fedray.data.ndarray import load

        def build():
            from torch import nn, optim
            from torchmetrics import R2Score

            from fedray.ml.nn.torch import Compiled

            net = nn.Linear(4, 1)
            return Compiled(net, nn.MSELoss(), optim.Adam(net.parameters(), 30_000), metrics=[R2Score()])

        fed = torch_world(start)
        prices = (250_000 + 90_000 * X[:, 0] - 40_000 * X[:, 1]).astype(np.float32)
        y = load(dict(zip(fed.devices, np.split(prices, [35]), strict=True)))
        model = fed.model(build)
        history = model.fit(fed.x, y, epochs=30, batch_size=10, verbose=0).history
        assert history["r2score"][-1] > 0.97
        output = torch_outputs(model.global_model(), X)[:, 0]
        (loss, score), _ = model.evaluate(fed.x, y, verbose=0)
        assert float(loss) == pytest.approx(((output - prices) ** 2).mean(), rel=1e-4)
        assert float(score) == pytest.approx(1 - ((output - prices) ** 2).sum() / ((prices - prices.mean()) ** 2).sum())

    def test_short_numbers_from_start_to_file(self, start, tmp_path):
        def build():
            import torch
            from torch import nn, optim

            net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(torch.bfloat16)
            return net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.2)

        fed = torch_world(start)
        ends = []
        for aggregator in (None, PlainAggregator(fed.server, fed.devices)):
            model = fed.model(build, aggregator=aggregator)
            history = model.fit(fed.x, fed.y, epochs=4, batch_size=10, verbose=0).history
            model.save(tmp_path / "short.safetensors")
            ends.append((history["loss"], (tmp_path / "short.safetensors").read_bytes()))
        assert ends[0] == ends[1]
        assert history["loss"][-1] < history["loss"][0]
        module = model.global_model()
        assert str(module[0].weight.dtype) == "torch.bfloat16"
        other = fed.model(build, random_seed=8)
        other.load(tmp_path / "short.safetensors")
        assert all(a.equal(b) for a, b in zip(module.parameters(), other.global_model().parameters(), strict=True))

    def test_what_does_not_fit_names_the_party_and_the_array(self, start):
        from fedray.data.ndarray import load
        from fedray.errors import DataError

        fed = torch_world(start)
        labels = CLASS.astype(np.int64)
        y = load(dict(zip(fed.devices, np.split(np.where(np.arange(60) == 50, 7, labels), [35]), strict=True)))
        with pytest.raises(DataError, match=r"party 'bob': y: the loss '\w+' expects class numbers from 0"):
            fed.model(noisy).fit(fed.x, y, epochs=1, verbose=0)
