# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch model must be, said before any training starts.

Works on the modules and objects it is handed; imports no framework.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

from fedray.backends.torch.compiled import Compiled, TorchModel
from fedray.backends.torch.losses import reduction_of
from fedray.errors import PlanError
from fedray.strategies.strategy import Strategy
from fedray.tree import Tree

_FORMS = "(module, loss, optimizer), a Compiled record, or a module with training_step and configure_optimizers"

WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "OptimizedModule")
"""Modules around another one, which they spread over processes and devices, or replace."""


def as_compiled(torch: Any, made: Any) -> Compiled:
    """Returns what a builder returned as one record; a Lightning-shaped module has None for its loss.

    Args:
        torch: The torch module.
        made: What it returned.

    Raises:
        PlanError: It is no model, or one that cannot be trained here.
    """
    if isinstance(made, tuple) and len(made) == 3:
        made = Compiled(*made)
    elif isinstance(made, torch.nn.Module):
        made = _from_lightning(made)
    if not isinstance(made, Compiled):
        raise PlanError(f"model: expected the builder to return a {_FORMS}, found {type(made).__name__}")
    _check_module(torch, made.module)
    if made.loss is None:
        _check_own_step(made)
    if _is_several(made.optimizer):
        raise PlanError(
            f"model: expected one optimizer, found {len(made.optimizer)}; let one hold several groups of parameters, "
            "each with settings of its own"
        )
    if not isinstance(made.optimizer, torch.optim.Optimizer):
        raise PlanError(f"model: expected an optimizer of torch.optim, found {type(made.optimizer).__name__}")
    _check_optimizer(torch, made.module, made.optimizer)
    norm = made.max_grad_norm
    if norm is not None and not (isinstance(norm, int | float) and 0 < norm < float("inf")):
        raise PlanError(f"max_grad_norm: expected a number above 0, or None, found {norm!r}")
    return made


def check_builder(torch: Any, builder: Any) -> None:
    """Refuses a function that does not build its model but hands out one made before, or data with it.

    Parties build under one seed. A module made where the program was read has weights of its own in each process.

    Args:
        torch: The torch module.
        builder: The user's function.

    Raises:
        PlanError: It uses such a thing; the message names it.
    """
    for name, value in _used(builder):
        module, optimizer = isinstance(value, torch.nn.Module), isinstance(value, torch.optim.Optimizer)
        if (module and any(True for _ in value.parameters())) or optimizer:
            raise PlanError(
                f"model: the function uses {name!r}, a {type(value).__name__} that was made outside of it; make it "
                "inside, so that every party makes its own, under the same seed"
            )
        if isinstance(value, torch.utils.data.Dataset | torch.utils.data.DataLoader):
            raise PlanError(
                f"model: the function uses {name!r}, a {type(value).__name__}; a model is built without data, the same "
                "at every party; hand rows to fit"
            )


def check_strategy(compiled: Compiled, own: bool, strategy: Strategy) -> None:
    """Refuses a strategy that this model cannot be trained with.

    Args:
        compiled: The model.
        own: Whether it trains tensors that stay in the party.
        strategy: The strategy.

    Raises:
        PlanError: A mean of gradients is asked for where the loss of a batch is a sum, or where their norm differs from
            party to party.
    """
    if strategy.local != "gradient":
        return
    losses = [] if compiled.loss is None else Tree(compiled.loss, "loss").leaves()
    if any(reduction_of(loss) == "sum" for loss in losses):
        raise PlanError(
            f"model: a loss with reduction='sum' adds up the rows of a batch, and strategy {strategy.name!r} takes a "
            "mean over the rows of all parties; use strategy 'fed_avg_w', or reduction='mean' with a learning rate as "
            "many times as high as a batch has rows"
        )
    if own and compiled.max_grad_norm is not None:
        raise PlanError(
            f"model: max_grad_norm takes one norm over shared and local tensors; it differs from party to party, and "
            f"shared ones would drift apart under strategy {strategy.name!r}; use 'fed_avg_w'"
        )


def hooked(module: Any) -> list[str]:
    """Returns the parts of a module that have hooks, with the hooks' names, e.g. `"layers.0 (noisy)"`."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    found = []
    for name, part in module.named_modules():
        hooks = [hook for kind in kinds for hook in (getattr(part, kind, None) or {}).values()]
        if hooks:
            names = ", ".join(str(getattr(hook, "__name__", type(hook).__name__)) for hook in hooks)
            found.append(f"{name or type(module).__name__} ({names})")
    return found


def _check_own_step(made: Compiled) -> None:
    if not callable(getattr(made.module, "training_step", None)):
        raise PlanError("loss: expected a loss, or a module with a training_step that computes one; found neither")
    if made.metrics or made.compile:
        raise PlanError(
            "metrics and compile: a training_step keeps its outputs to itself; log the numbers there, and compile the "
            "parts of the module in its constructor"
        )


def _from_lightning(module: Any) -> Any:
    if not all(callable(getattr(module, name, None)) for name in ("training_step", "configure_optimizers")):
        raise PlanError(
            f"model: expected the builder to return a {_FORMS}, found the module {type(module).__name__} alone"
        )
    if getattr(module, "automatic_optimization", True) is False:
        raise PlanError(
            f"model: {type(module).__name__} has automatic_optimization=False and takes its steps by itself; leave it "
            "out, and return the loss from training_step"
        )
    optimizer: Any = module.configure_optimizers()
    scheduler: Any = None
    if isinstance(optimizer, Mapping):
        optimizer, scheduler = optimizer.get("optimizer"), optimizer.get("lr_scheduler")
    elif isinstance(optimizer, Sequence) and len(optimizer) == 2 and _is_several(optimizer[0], least=1):
        (optimizer, schedulers) = optimizer
        scheduler = _only("schedulers", schedulers)
    if _is_several(optimizer, least=1) and len(optimizer) == 1:
        (optimizer,) = optimizer
    return Compiled(module, None, optimizer, scheduler=scheduler)


def _only(what: str, several: Sequence[Any]) -> Any:
    if len(several) > 1:
        raise PlanError(f"configure_optimizers: expected one of {what}, found {len(several)}; SequentialLR chains some")
    return several[0] if several else None


def _is_several(optimizer: Any, least: int = 2) -> bool:
    return isinstance(optimizer, list | tuple) and len(optimizer) >= least


def _check_module(torch: Any, module: Any) -> None:
    if isinstance(module, type) or not isinstance(module, torch.nn.Module):
        found = module.__name__ if isinstance(module, type) else type(module).__name__
        raise PlanError(f"model: expected a torch.nn.Module as the first of {_FORMS}, found {found}")
    for name, part in module.named_modules():
        if type(part).__name__ in WRAPPERS and type(part).__module__.startswith("torch."):
            raise PlanError(
                f"model: {name or 'the module'!s} is a {type(part).__name__}; hand over the module inside it: a party "
                "is one process on one device, and Compiled(compile=True) compiles"
            )
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_complex():
            raise PlanError(
                f"model: the tensor {name!r} is complex, and sums here are of real numbers; keep real and imaginary "
                "part as two, e.g. torch.view_as_real, and put them together in forward"
            )


def _check_optimizer(torch: Any, module: Any, optimizer: Any) -> None:
    known = {id(parameter) for parameter in module.parameters()}
    if any(id(parameter) not in known for group in optimizer.param_groups for parameter in group["params"]):
        raise PlanError(
            "model: the optimizer holds tensors that are not the module's; make it of module.parameters(), of the "
            "module that is handed over"
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise PlanError("model: LBFGS evaluates a batch several times within a step; use another optimizer")


def _used(builder: Any) -> Iterator[tuple[str, Any]]:
    """Yields the names that a function takes from outside, with their values; of a `TorchModel`, those of its parts."""
    if isinstance(builder, TorchModel):
        for piece in (builder.model_fn, builder.loss_fn, builder.optim_fn, *builder.metrics):
            yield from _used(piece)
        return
    function = getattr(builder, "func", builder)  # of a partial
    if not inspect.isfunction(function):
        return
    function = inspect.unwrap(function)
    names = _globals(function.__code__)
    yield from ((name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a name that is set later
            continue


def _globals(code: CodeType) -> set[str]:
    """Returns the names that code reads from its module, code inside it included; names of attributes are none."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def waits_for_shape(torch: Any, module: Any) -> bool:
    """Returns whether a module learns its shape from the first rows that pass through it."""
    kinds = torch.nn.parameter.UninitializedParameter, torch.nn.parameter.UninitializedBuffer
    return any(isinstance(tensor, kinds) for tensor in (*module.parameters(), *module.buffers()))


def number_type(torch: Any, module: Any) -> Any:
    """Returns the type of a module's numbers: that of its first parameter with floating-point ones."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
