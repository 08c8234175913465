# SPDX-License-Identifier: Apache-2.0
"""SavedModels: the files of one model, at the driver and in its parties, and the stock model at the driver.

Knows which tensors such a model does not hold, and says so once. Knows no training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedray.backends import BACKENDS, build_at_driver, describe_at_driver
from fedray.backends.backend import FileKind
from fedray.backends.keras.files import SKIPPED
from fedray.backends.keras.unwarned import unwarned
from fedray.device import PYU
from fedray.errors import DataError, PlanError
from fedray.ml.nn.federation import Federation
from fedray.tree import Tree

_log = logging.getLogger("fedray")


class SavedModels:
    """Saves, loads and builds one model.

    Args:
        backend: Name of the framework.
        builder: The user's function that returns a compiled model.
        devices: The model's parties.
        local: The user's patterns for tensors that stay in their party.

    Attributes:
        backend: The same.
    """

    def __init__(self, backend: str, builder: Callable[[], Any], devices: Sequence[PYU], local: Sequence[str]) -> None:
        self.backend, self._builder, self._devices = backend, builder, tuple(devices)
        self._unsaid = bool(local)

    def save(
        self, federation: Federation, path: str | Path, kind: FileKind = "model", party: PYU | None = None
    ) -> None:
        """Writes the global model here, or a party's own model there.

        Args:
            federation: The model.
            path: Where to; its ending is the framework's.
            kind: Whole model or weights alone.
            party: Whose own model is saved, on its own machine; None for the global one.

        Raises:
            PlanError: The path or the party cannot be.
        """
        endings, file = BACKENDS[self.backend].suffixes[kind], Path(path)
        ending = next((ending for ending in endings if file.name.endswith(ending)), None)
        if ending is None:
            raise PlanError(f"path: expected a name that ends in {' or '.join(endings)}, found {str(file)!r}")
        if party is not None:
            return federation.save_own(self._checked(party).name, str(file))
        if not file.parent.is_dir():
            raise PlanError(f"path: folder {str(file.parent)!r} does not exist; make it first")
        self._say_what_is_missing(federation, "save")
        file.write_bytes(federation.export_model(kind, ending))
        return None

    def load(self, federation: Federation, path: str | Path, party: PYU | None = None) -> None:
        """Takes everybody's shared and frozen tensors from a file here, or a party's local ones from a file there.

        Args:
            federation: The model.
            path: The file.
            party: Whose local tensors are loaded, on its own machine; None for what all have in common.

        Raises:
            PlanError: There is no such file, or no such party.
            DataError: It holds another model.
        """
        file = Path(path)
        if party is not None:
            return federation.load_own(self._checked(party).name, str(file))
        if not file.is_file():
            raise PlanError(f"load: no file {str(file)!r}; expected one that save(path) wrote")
        return federation.import_model(file.read_bytes())

    def load_weights(self, federation: Federation, path: str | Path) -> None:
        """Takes everybody's shared and frozen tensors from a file of weights alone.

        Args:
            federation: The model.
            path: The file, at the driver.

        Raises:
            PlanError: There is no such file, or it is of another kind.
            DataError: It holds another model's.
        """
        endings, file = BACKENDS[self.backend].suffixes["weights"], Path(path)
        if not file.name.endswith(endings):
            raise PlanError(
                f"path: expected a name that ends in {' or '.join(endings)}, found {str(file)!r}; load(path) "
                "takes a whole model"
            )
        if self.backend != "tensorflow":  # where weights and models are files of one kind
            return self.load(federation, file)
        if not file.is_file():
            raise PlanError(f"load_weights: no file {str(file)!r}; expected one that save_weights(path) wrote")
        model = self.global_model(federation, None)
        try:
            with unwarned(SKIPPED):
                model.load_weights(file)
        except (ValueError, KeyError, OSError) as error:
            raise DataError(f"load_weights: {str(file)!r} holds no weights of this model: {error}") from None
        return federation.set_arrays(model.get_weights())

    def global_model(self, federation: Federation, learning_rate: float | None) -> Any:
        """Returns the global model as a stock model in this process.

        Args:
            federation: The model.
            learning_rate: What its optimizer is set to; None leaves the compiled one.

        Raises:
            PlanError: The model learns its shape from the data, and has not seen any.
        """
        arrays = federation.arrays()
        if not arrays:
            raise PlanError("global_model: the model learns its shape from the data; call fit or evaluate first")
        self._say_what_is_missing(federation, "global_model")
        return build_at_driver(self.backend, self._builder, arrays, federation.row, learning_rate)

    def summary(self, row: Tree | None, say: Callable[[str], Any]) -> None:
        """Describes the model as its framework does, from the builder, without any party's weights.

        Args:
            row: A row of each input, where arrays have been bound.
            say: Takes each line.
        """
        describe_at_driver(self.backend, self._builder, row, say)

    def _say_what_is_missing(self, federation: Federation, call: str) -> None:
        if self._unsaid:
            self._unsaid = False
            names = ", ".join(federation.local_tensors())
            _log.warning(
                "%s: the parties keep these tensors, and the global model has them as they were built: %s. "
                "save(path, party=...) writes a party's own model, on its own machine",
                call,
                names,
            )

    def _checked(self, party: Any) -> PYU:
        for device in self._devices:
            if device == party:
                return device
        names = ", ".join(device.name for device in self._devices)
        raise PlanError(f"party: expected the PYU of one of the model's parties ({names}), found {party!r}")
