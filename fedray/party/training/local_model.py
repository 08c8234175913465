# SPDX-License-Identifier: Apache-2.0
"""LocalModel: one party's model between the rounds. Built, fed with rows, saved, asked for predictions.

Knows no round, no server and no other party. The global vector is what all parties agree on; the backend's own weights
differ from it only while a round is trained. Local tensors are in neither: no other party and no driver sees them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedray.backends import make_backend
from fedray.backends.backend import Data, FileKind, ModelFacts
from fedray.errors import DataError, PlanError
from fedray.party.context import PartyContext, Reply
from fedray.party.door.egress import Kind
from fedray.party.training.sampling import cut
from fedray.protocol.scales import Scales
from fedray.strategies import State
from fedray.tree import Tree
from fedray.types import Value, Vector


class LocalModel:
    """One party's model, and the global vector it was last given.

    Args:
        context: The party this service lives in.
        backend: Name of the framework.
        builder: The user's function that returns a compiled model.
        seed: Seed under which every party builds the same model.
        local: Patterns for the names of tensors that stay in the party.

    Attributes:
        party: Name of the party.
        backend: The model itself.
        weights: The global vector, float[n]; empty before the first `adopt`.
        known: What the strategy's server half says to everybody beside it, float[m] each.
        state: What the strategy's server half remembers, the same at every party; None before the first sum.
        scales: How far the values of each tensor may reach in the next round of training; None where the model alone
            says it, as before the first sum.
        as_built: Whether the weights are still those that the builder made.
        facts: Names and shapes of tensors and metrics, since the last `bind`.
        data: Purpose -> the rows bound for it.
        bound: Purpose -> how often rows were bound for it.
        class_weight: Purpose -> weights of classes; empty for none.
        row_weights: Purpose -> whether its rows have weights, of their own or of their classes.
    """

    facts: ModelFacts

    def __init__(
        self, context: PartyContext, backend: str, builder: Any, seed: int, local: tuple[str, ...] = ()
    ) -> None:
        self.party = context.name
        # Each party draws noise (dropout) of its own, yet the same in every run with this seed.
        noise = hashlib.sha256(f"{seed} {context.name}".encode()).digest()
        with self.named():
            threads = context.config.threads
            gpus = float((context.config.resources or {}).get("GPU", 0))
            self.backend = make_backend(backend, builder, seed, int.from_bytes(noise[:8], "big"), threads, local, gpus)
        self.weights: Vector = np.empty(0, np.float32)
        self.known: tuple[Vector, ...] = ()
        self.state: State | None = None
        self.scales: Scales | None = None
        self.as_built = True
        self.data: dict[str, Data] = {}
        self.bound: Counter[str] = Counter()
        self.class_weight: dict[str, dict[int, float]] = {}
        self.row_weights: dict[str, bool] = {}
        self._hash = b""
        self._from_outside = False  # whether weights came from a file or the driver since the last `adopt`

    def bind(
        self, purpose: str, x: Value, y: Value, sample_weight: Value | None, class_weight: dict[int, float] | None
    ) -> Reply:
        """Takes the arrays that the next segments of a purpose run over; builds a model that waited for their shape.

        Args:
            purpose: `"train"` or `"evaluate"`.
            x: An array, or lists, tuples and dicts of arrays.
            y: The same of labels.
            sample_weight: One number per row, or as `y`.
            class_weight: Class number -> weight.

        Returns:
            `ModelFacts`, in which nothing depends on the numbers in the arrays. Of frozen tensors it has hashes.

        Raises:
            DataError: Rows, labels or weights do not fit each other or the model.
        """
        with self.named():
            weight = None if sample_weight is None else Tree(sample_weight, "sample_weight")
            self.data[purpose] = self.backend.bind(Tree(x, "x"), Tree(y, "y"), weight, class_weight)
        self.bound[purpose] += 1
        self.class_weight[purpose] = dict(class_weight or {})
        self.row_weights[purpose] = weight is not None or bool(class_weight)
        self.facts = self.backend.facts()
        return Reply(Kind.SHAPE, self.facts)

    def keep_apart(self, reasons: dict[str, str]) -> Reply:
        """Lets metrics stay with their party that do so at another; returns `ModelFacts`."""
        self.backend.keep_apart(reasons)
        self.facts = self.backend.facts()
        return Reply(Kind.SHAPE, self.facts)

    def ready(self) -> None:
        """Acknowledges that the model is there."""

    def export_model(self, kind: FileKind, ending: str) -> Reply:
        """Returns the global model, or its weights alone, as the bytes of a stock file; local tensors as built.

        Args:
            kind: Whole model or weights alone.
            ending: How the file's name ends.
        """
        self.put_back()
        with self.named():
            return Reply(Kind.AGGREGATE, self.backend.export_model(kind, ending=ending))

    def import_model(self, content: bytes) -> Reply:
        """Replaces shared and frozen weights by those in a saved model; returns whether there are frozen ones.

        Raises:
            DataError: The file holds another model.
        """
        self.as_built, self._from_outside = False, True
        with self.named():
            self.backend.import_model(content)
            return self._has_frozen()

    def save_own(self, path: str) -> None:
        """Writes the model with this party's own local tensors to a file on this party's machine.

        Raises:
            PlanError: The file cannot be written.
        """
        file = Path(path).expanduser()
        with self.named():
            content = self.backend.export_model(own=True, ending=file.suffix)
            try:
                file.write_bytes(content)
            except OSError as error:
                raise PlanError(
                    f"path: {str(file)!r} cannot be written where this party's process runs ({error.strerror}); "
                    "expected a file name in a folder that is there"
                ) from error

    def load_own(self, path: str) -> None:
        """Takes the local tensors from a file on this party's machine, and nothing else.

        Raises:
            PlanError: There is no such file.
            DataError: It holds another model.
        """
        file = Path(path).expanduser()
        with self.named():
            try:
                content = file.read_bytes()
            except OSError as error:
                raise PlanError(
                    f"load: {str(file)!r} cannot be read where this party's process runs ({error.strerror}); "
                    "expected a file that save(path, party=...) wrote"
                ) from error
            self.backend.import_model(content, own=True)

    def local_tensors(self) -> Reply:
        """Returns the names of the tensors that stay in the party.

        Raises:
            PlanError: The model learns its shape from the data, and has not seen any.
        """
        with self.named():
            return Reply(Kind.SHAPE, tuple(param.name for param in self.backend.spec.of("local")))

    def arrays(self) -> Reply:
        """Returns the global weights as arrays, in the framework's order; local tensors as built."""
        self.put_back()
        return Reply(Kind.AGGREGATE, self.backend.arrays())

    def set_arrays(self, arrays: Sequence[NDArray[Any]]) -> Reply:
        """Sets shared and frozen weights from arrays in the framework's order; returns whether there are frozen ones.

        Raises:
            DataError: Their number or shapes are not the model's.
        """
        self.as_built, self._from_outside = False, True
        with self.named():
            self.backend.set_arrays(arrays)
            return self._has_frozen()

    def learning_rate(self) -> Reply:
        """Returns the optimizer's learning rate."""
        return Reply(Kind.SHAPE, self.backend.learning_rate())

    def set_learning_rate(self, rate: float) -> None:
        """Sets the optimizer's learning rate.

        Raises:
            PlanError: The optimizer follows a schedule of its own.
        """
        with self.named():
            self.backend.set_learning_rate(rate)

    def predict(self, x: Value, batch_size: int) -> Value:
        """Returns the model's outputs for this party's rows, nested as the model has them; they stay in the party."""
        with self.named():
            data = self.backend.bind(Tree(x, "x"))
            return self.backend.predict(data, cut(np.arange(data.rows, dtype=np.int64), batch_size)).nest

    def adopt(self, values: Vector, known: tuple[Vector, ...] = ()) -> None:
        """Makes a vector the global one, and the model's weights.

        Args:
            values: float[n]; kept, so the caller must not change it afterwards.
            known: As in the attributes.
        """
        self.take_over(values, known)
        self.backend.set_weights(values)

    def take_over(self, values: Vector, known: tuple[Vector, ...] = ()) -> None:
        """Makes a vector the global one where the model's weights are set by what follows."""
        self.weights, self.known, self._hash = values, known, b""
        self._from_outside = False

    def put_back(self) -> None:
        """Makes the global vector the model's weights: whatever a round has left there is this party's own.

        Not where none was given yet, nor where a file or the driver has replaced the weights since.
        """
        if self.weights.size and not self._from_outside:
            self.backend.set_weights(self.weights)

    def hash(self) -> bytes:
        """Returns SHA-256 over the model's description and the global vector; a vector is hashed once."""
        if not self._hash:
            model = hashlib.sha256(self.backend.fingerprint())
            model.update(np.ascontiguousarray(self.weights).data)
            self._hash = model.digest()
        return self._hash

    def _has_frozen(self) -> Reply:
        return Reply(Kind.SHAPE, bool(self.backend.spec.of("frozen")))

    @contextmanager
    def named(self) -> Iterator[None]:
        """Puts this party's name before the text of an error about its data or its numbers."""
        try:
            yield
        except (DataError, PlanError) as error:
            raise type(error)(f"party {self.party!r}: {error}") from error
