# SPDX-License-Identifier: Apache-2.0
"""Compiled and TorchModel: a PyTorch model with its loss and optimizer, as a user hands it over. Knows no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fedray.errors import PlanError


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the function that builds a model returns; `(module, loss, optimizer)` is short for it.

    Attributes:
        module: A `torch.nn.Module`. It is called with the one input, with several in their order, or with those of a
            dict by name.
        loss: `loss(output, y)`, a module or a function that returns one number, or one for each row; for several
            outputs one that takes all of them, or a list or dict of losses, which are added.
        optimizer: One of `torch.optim` over the module's parameters. Parameters that it does not hold are frozen.
        metrics: torchmetrics objects, and functions of `(output, y)` that return one number per row; as a dict under
            names of their own. For several outputs a list or dict of such.
        scheduler: One of `torch.optim.lr_scheduler`. It takes a step at the end of each epoch; `OneCycleLR` and
            `CyclicLR` do after each batch, and so does every one in `{"scheduler": ..., "interval": "step"}`.
        max_grad_norm: What the norm of all gradients together is clipped to before each step.
        compile: Whether forward and backward passes go through `torch.compile`: worth a try on a GPU; on a CPU the
            tutorial's network took twice the time for a step, and a minute to begin with.

    Example:
        >>> from fedray.backends.torch.compiled import Compiled  # fedray.ml.nn.torch, with PyTorch
        >>> Compiled(module="net", loss="loss", optimizer="sgd").max_grad_norm is None
        True
    """

    module: Any
    loss: Any
    optimizer: Any
    metrics: Sequence[Any] | Mapping[str, Any] = ()
    scheduler: Any = None
    max_grad_norm: float | None = None
    compile: bool = False


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A model in pieces: each is a function that makes one. Called without arguments, inside a party, it returns all.

    Attributes:
        model_fn: Makes the module: its class, or a function.
        loss_fn: Makes the loss: its class, or a function without arguments; a loss itself will do as well.
        optim_fn: Makes the optimizer of the parameters it is handed: see `optim_wrapper`.
        metrics: What makes each metric: see `metric_wrapper`.

    Example:
        >>> from fedray.backends.torch.compiled import TorchModel  # fedray.ml.nn.core.torch
        >>> TorchModel(model_fn=dict, loss_fn=dict, optim_fn=list).metrics
        ()
    """

    model_fn: Callable[[], Any]
    loss_fn: Callable[..., Any]
    optim_fn: Callable[[Any], Any]
    metrics: Sequence[Callable[[], Any]] = ()

    def __call__(self) -> Compiled:
        """Returns module, loss, optimizer and metrics.

        Raises:
            PlanError: `model_fn` makes something else.
        """
        module = self.model_fn()
        if not hasattr(module, "parameters"):
            raise PlanError(f"model_fn: expected what makes a torch.nn.Module, found {type(module).__name__}")
        # A function of outputs and labels is the loss itself; what is to be called first is a class, with arguments or
        # without.
        made = isinstance(getattr(self.loss_fn, "func", self.loss_fn), type)
        loss = self.loss_fn() if made else self.loss_fn
        return Compiled(module, loss, self.optim_fn(module.parameters()), [make() for make in self.metrics])


def metric_wrapper(metric: Callable[..., Any], *args: Any, **settings: Any) -> Callable[[], Any]:
    """Returns what makes a metric with these settings, inside each party.

    Args:
        metric: Its class.
        *args: Arguments.
        **settings: The same by name.

    Example:
        >>> from fedray.backends.torch.compiled import metric_wrapper  # fedray.ml.nn.core.torch
        >>> metric_wrapper(dict, top_k=5)()
        {'top_k': 5}
    """
    return partial(metric, *args, **settings)


def optim_wrapper(optimizer: Callable[..., Any], *args: Any, **settings: Any) -> Callable[[Any], Any]:
    """Returns what makes an optimizer of parameters with these settings, inside each party.

    Args:
        optimizer: Its class.
        *args: Arguments behind the parameters.
        **settings: The same by name, e.g. `lr=0.01`.

    Example:
        >>> from fedray.backends.torch.compiled import optim_wrapper  # fedray.ml.nn.core.torch
        >>> optim_wrapper(dict, lr=0.01)([("weight", 1.0)])
        {'weight': 1.0, 'lr': 0.01}
    """

    def made(parameters: Any) -> Any:
        return optimizer(parameters, *args, **settings)

    return made
