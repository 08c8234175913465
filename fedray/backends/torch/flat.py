# SPDX-License-Identifier: Apache-2.0
"""FlatTensors: a PyTorch module's shared tensors as one flat vector.

Works on the modules and objects it is handed; imports no framework. Knows no data and no step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends.roles import check_something_is_shared, local_names
from fedray.backends.spec import Param, ParamSpec, Role
from fedray.errors import DataError, PlanError
from fedray.types import Vector


class FlatTensors:
    """A module's shared tensors: those that its optimizer changes first, then the floating-point buffers.

    Names are those of `state_dict`; a tensor with several has the first. Buffers of integers (BatchNorm's counter) and
    those that `state_dict` leaves out stay with the party and have no role.

    Args:
        torch: The torch module.
        module: A module whose shapes are known.
        optimizer: Its optimizer; parameters that it does not hold are frozen, and so are those without gradients.
        local: Patterns for what stays in the party.

    Attributes:
        named: Every tensor of `state_dict` once, by its first name.
        variables: The shared ones, in the order of the flat vector.
        trainable: Those of them that the optimizer changes.
        local: The local ones.
        own: Those of them that the optimizer changes.
        spec: All tensors of floating-point numbers, by name.

    Raises:
        PlanError: A pattern fits no tensor, or none is left to sum.
    """

    def __init__(self, torch: Any, module: Any, optimizer: Any, local: Sequence[str] = ()) -> None:
        self._torch = torch
        self.named = named_tensors(torch, module)
        floats = {name: tensor for name, tensor in self.named.items() if tensor.is_floating_point()}
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        trained = {name for name, tensor in floats.items() if id(tensor) in held and tensor.requires_grad}
        kept = local_names(local, list(floats))
        roles = {"shared": list[str](), "frozen": list[str](), "local": list[str]()}
        for name in sorted(floats, key=lambda name: name not in trained):  # stable: trained ones first
            fixed = name not in trained and _never_changes(torch, floats[name])
            roles["local" if name in kept else "frozen" if fixed else "shared"].append(name)
        for name in roles["frozen"]:
            if floats[name].is_leaf and isinstance(floats[name], torch.nn.Parameter):
                floats[name].requires_grad_(False)  # nobody looks at the gradient, which would be computed all the same
        self.spec = ParamSpec(
            tuple(_param(n, floats[n], n in trained, role) for role, names in roles.items() for n in names)  # type: ignore[arg-type]
        )
        check_something_is_shared(self.spec.names, sorted(kept))
        self.variables, frozen, self.local = ([floats[name] for name in names] for names in roles.values())
        self.trainable, _, self.own = ([floats[n] for n in names if n in trained] for names in roles.values())
        self.frozen = dict(zip(roles["frozen"], frozen, strict=True))
        self._dtype = getattr(torch, self.spec.dtype.name)
        self._sizes = list(self.spec.sizes)

    def get(self) -> Vector:
        """Returns every shared tensor end to end, in memory of its own."""
        return self.joined(self.variables).cpu().numpy()  # type: ignore[no-any-return]

    def put(self, values: Vector) -> None:
        """Sets every shared tensor from the flat vector.

        Raises:
            DataError: It is longer or shorter.
        """
        self._fill(self.variables, self.tensor(values))

    def put_others(self, values: Any) -> None:
        """Sets the shared tensors that the optimizer does not change, from the last words of a flat tensor."""
        self._fill(self.variables[len(self.trainable) :], values[self.spec.trainable :])

    def tensor(self, values: Vector) -> Any:
        """Returns a flat vector as a tensor where the model is.

        Raises:
            DataError: It is longer or shorter than the model's.
        """
        if values.shape != (self.spec.size,):
            raise DataError(f"weights: expected {self.spec.size} words, found shape {values.shape}")
        return self.words(values)

    def words(self, values: Vector) -> Any:
        """Returns any vector as a tensor of the flat vector's type, where the model is; the vector may be read-only."""
        made = self._torch.empty(values.shape, dtype=self._dtype)
        made.numpy()[...] = values
        return made.to(self.variables[0].device)

    def joined(self, tensors: Sequence[Any]) -> Any:
        """Returns tensors end to end, in the flat vector's type and memory of its own."""
        parts = [tensor.detach().reshape(-1).to(self._dtype) for tensor in tensors]
        return self._torch.cat(parts) if parts else self._torch.empty(0, dtype=self._dtype)

    def split(self, flat: Any, like: Sequence[Any]) -> list[Any]:
        """Returns one part for each tensor, in its shape and type, from a flat tensor."""
        parts = flat.split([tensor.numel() for tensor in like])
        return [part.view(t.shape).to(t.dtype) for part, t in zip(parts, like, strict=True)]

    def _fill(self, tensors: Sequence[Any], flat: Any) -> None:
        with self._torch.no_grad():
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(part.view(tensor.shape))


class FrozenValues:
    """The frozen tensors, and the values that everybody has agreed on.

    Args:
        torch: The torch module.
        tensors: The frozen ones, by name.
    """

    def __init__(self, torch: Any, tensors: Mapping[str, Any]) -> None:
        self._torch, self._tensors = torch, dict(tensors)
        self.keep()

    def keep(self) -> None:
        """Takes the values as they are for those to be agreed on."""
        self._kept = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        self._seen = {name: tensor._version for name, tensor in self._tensors.items()}
        self._hashes: dict[str, str] | None = None

    @property
    def hashes(self) -> Mapping[str, str]:
        """Name -> SHA-256 of the values, in hexadecimal digits."""
        if self._hashes is None:
            self._hashes = {
                name: hashlib.sha256(_bytes(self._torch, kept)).hexdigest() for name, kept in self._kept.items()
            }
        return self._hashes

    def check(self) -> None:
        """Puts changed tensors back, and refuses to go on.

        Raises:
            PlanError: A tensor is not what it was.
        """
        # PyTorch counts writes: what nobody has written to need not be read.
        written = [name for name, tensor in self._tensors.items() if tensor._version != self._seen[name]]
        changed = [name for name in written if self._differs(name)]
        for name in changed:
            self._tensors[name].detach().copy_(self._kept[name])
        self._seen |= {name: self._tensors[name]._version for name in written}
        if changed:
            raise PlanError(
                f"model: a step changed the tensor {changed[0]!r}, which is frozen; frozen tensors are not summed, and "
                "the parties would drift apart. Hand it to the optimizer, with requires_grad=True, and it is averaged; "
                f"or keep each party's own with FLModel(local=[{changed[0]!r}])"
            )

    def _differs(self, name: str) -> bool:
        return _bytes(self._torch, self._tensors[name]) != _bytes(self._torch, self._kept[name])


def named_tensors(torch: Any, module: Any) -> dict[str, Any]:
    """Returns the tensors of `state_dict` themselves, each once, by its first name and in its order."""
    found: dict[str, Any] = {}
    seen = set[int]()
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor) and id(value) not in seen:
            seen.add(id(value))
            found[name] = value
    return found


def as_array(torch: Any, tensor: Any) -> NDArray[Any]:
    """Returns a tensor's values in an array of its own; those of a type that NumPy lacks, in float32."""
    known = tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
    return np.array((tensor.detach().float() if known else tensor.detach()).cpu().numpy())


def _never_changes(torch: Any, tensor: Any) -> bool:
    """Returns whether a tensor that no optimizer holds stays as it is.

    A buffer may be a statistic that moves with every batch, and is averaged. One that is not finite, such as a mask of
    minus infinity, is none; and it could not be summed.
    """
    return isinstance(tensor, torch.nn.Parameter) or not bool(torch.isfinite(tensor).all())


def _param(name: str, tensor: Any, trainable: bool, role: Role) -> Param:
    return Param(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), trainable, role)


def _bytes(torch: Any, tensor: Any) -> bytes:
    return as_array(torch, tensor).tobytes()
