# SPDX-License-Identifier: Apache-2.0
"""What becomes known once rows have passed through a PyTorch model: its metrics, and what its steps log.

Works on the modules and objects it is handed; imports no framework.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.torch.asked import Asked
from fedray.backends.torch.checks import hooked
from fedray.backends.torch.data import TorchData, to_arrays
from fedray.backends.torch.flat import as_array
from fedray.backends.torch.measured import Measured
from fedray.backends.torch.metrics import TorchMetrics, TriedMetric, why_apart, why_not_sums
from fedray.backends.torch.noise import Noise
from fedray.backends.torch.state import buffers_kept
from fedray.backends.torch.steps import Stepper
from fedray.backends.torch.tasks import Seen
from fedray.backends.trial import MadeUp, made_up, verdict
from fedray.errors import PlanError
from fedray.tree import Tree


@dataclass(frozen=True, slots=True)
class FittedSteps:
    """A model that has seen rows.

    Attributes:
        training: What is measured in training.
        testing: What is measured in evaluation.
    """

    training: Measured
    testing: Measured

    def keep_apart(self, reasons: Mapping[str, str]) -> None:
        """Lets metrics stay with their party from now on; the value of each is why."""
        self.training.metrics.keep_apart(reasons)
        self.testing.metrics.keep_apart(reasons)


def fit(
    torch: Any, module: Any, stepper: Stepper, sample: TorchData, outputs: Tree, asked: Sequence[Asked], noise: Noise
) -> FittedSteps:
    """Passes two rows through the steps, and finds out which metrics are sums; leaves the model as it was.

    Args:
        torch: The torch module.
        module: The model's module.
        stepper: Its steps; learns which tensors the loss does not depend on.
        sample: Two rows of zeros.
        outputs: What the module returned for such.
        asked: Its metrics.
        noise: What is drawn meanwhile.

    Raises:
        PlanError: Two passes over the same rows, drawing the same, differ; or a step does not do as it should.
    """
    rows, seen = torch.arange(2, device=noise.device), list[Seen]()
    beginning = noise.state

    def note(one: Seen, _: Any, __: int) -> None:
        seen.append(one)

    def passed() -> tuple[NDArray[Any] | None, ...]:
        noise.state = beginning
        with buffers_kept(torch, module), noise.drawn():
            module.train()
            stepper.backward(sample, rows, 0, note)
        gradients = [seen[-1].loss, *stepper.grads()]
        return tuple(None if g is None else as_array(torch, g) for g in gradients)

    first, second = passed(), passed()
    if not all(_same(a, b) for a, b in zip(first, second, strict=True)):
        raise PlanError(_differs(module))
    stepper.untouched = frozenset(place for place, gradient in enumerate(first[1:]) if gradient is None)
    with buffers_kept(torch, module), noise.drawn():
        stepper.evaluate(sample, [rows], note)
    training, testing = (Measured(TorchMetrics(torch, asked, noise.device), list(one.logs)) for one in seen[-2:])
    fitted = FittedSteps(training, testing)
    with noise.drawn():
        fitted.keep_apart(_apart(torch, testing.metrics, asked, sample, outputs, noise.device))
    for one in seen[-2:] if asked else ():
        testing.see(one, sample.y, 2)  # a metric that cannot take these outputs says so now
    training.metrics.settle(testing.metrics)
    testing.metrics.settle(testing.metrics)
    testing.read()
    testing.reset()
    return fitted


def _apart(
    torch: Any, metrics: TorchMetrics, asked: Sequence[Asked], sample: TorchData, outputs: Tree, device: Any
) -> dict[str, str]:
    """Returns why each metric that stays with its party does."""
    if not metrics.objects:
        return {}
    nests = (
        to_arrays(torch, nest, name).nest for nest, name in ((sample.x, "x"), (sample.y, "y"), (outputs.nest, "o"))
    )
    x, y, said = nests
    several = [made_up(x, y, said, kind) for kind in ("classes", "numbers")]
    stock = {one.name: one.is_stock for one in asked}
    found = {}
    for name, metric in metrics.objects.items():
        reason = why_not_sums(metric)
        if not reason:
            reason = why_apart(metric, stock[name], _tried(torch, metrics, name, metric, several, device))
        if reason:
            found[name] = reason
    return found


def _tried(torch: Any, metrics: TorchMetrics, name: str, metric: Any, several: Sequence[MadeUp], device: Any) -> Any:
    tried = TriedMetric(copy.deepcopy(metric))

    def update(rows: MadeUp, index: NDArray[np.int64], _: bool) -> None:
        output, y = (
            Tree(nest).map(lambda array: torch.from_numpy(array[index]).to(device)).nest
            for nest in (rows.output, rows.y)
        )
        metrics.show(name, tried.metric, output, y)

    return verdict(tried, update, several)


def _same(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.tobytes() == b.tobytes()


def _differs(module: Any) -> str:
    hooks = hooked(module)
    remedy = (
        f"it has hooks at {'; '.join(hooks)}: remove those that draw, count or look at the clock"
        if hooks
        else "let it draw from PyTorch's, NumPy's or Python's own generators, and keep no count beside its buffers"
    )
    return (
        "model: two passes over the same rows under the same seed gave different gradients, and two runs would never "
        f"be equal; {remedy}"
    )
