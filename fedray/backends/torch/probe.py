# SPDX-License-Identifier: Apache-2.0
"""ModuleProbe: what a PyTorch module returns, found out with two rows of zeros. Imports no framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedray.backends.torch.data import two_rows
from fedray.backends.torch.state import buffers_kept
from fedray.backends.torch.tasks import Task
from fedray.errors import DataError, PlanError
from fedray.tree import Tree


class ModuleProbe:
    """Passes two rows of zeros through a module, once for each form of them.

    Args:
        torch: The torch module.
        module: The module.
        task: What it makes of rows.
        seeded: Runs work under the model's seed: a module may take its shape, and its first weights, from these rows.
    """

    def __init__(self, torch: Any, module: Any, task: Task, seeded: Callable[[Callable[[], Any]], Any]) -> None:
        self._torch, self._module, self._task, self._seeded = torch, module, task, seeded
        self._outputs: dict[str, Any] = {}

    def outputs(self, x: Tree, tensors: Callable[[Tree], Any]) -> Any:
        """Returns what the module gives for two rows of this form.

        Args:
            x: Arrays of rows.
            tensors: Makes tensors of them.

        Raises:
            DataError: The module cannot take such rows.
            PlanError: What it returns are no tensors with one entry per row.
        """
        form = repr(x.map(lambda array: (array.shape[1:], array.dtype.str)).nest)
        if form not in self._outputs:
            self._outputs[form] = self._passed(x, tensors(two_rows(x)))
        return self._outputs[form]

    def _passed(self, x: Tree, rows: Any) -> Any:
        kind = type(self._module).__name__
        try:
            outputs = self._seeded(lambda: self._pass(rows))
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            found = ", ".join(f"{name}: {array.shape[1:]} of {array.dtype}" for name, array in x.named())
            text = " ".join(str(error).split())[:300]
            raise DataError(
                f"x: the model {kind} expects rows of another form, or other inputs; found {found} (PyTorch: {text})"
            ) from error
        for name, leaf in Tree(outputs, "output").named():
            if not isinstance(leaf, self._torch.Tensor) or tuple(leaf.shape[:1]) != (2,):
                other = tuple(leaf.shape) if isinstance(leaf, self._torch.Tensor) else type(leaf).__name__
                raise PlanError(
                    f"model {kind}: expected tensors with one entry per row on their first axis, found for two rows "
                    f"{name}: {other}"
                )
        return outputs

    def _pass(self, rows: Any) -> Any:
        with buffers_kept(self._torch, self._module), self._torch.no_grad():
            self._module.eval()
            return self._task.outputs(rows)
