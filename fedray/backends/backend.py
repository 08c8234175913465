# SPDX-License-Identifier: Apache-2.0
"""Backend: one framework's model in one party, in four small interfaces. Knows no protocol and no party.

`fedray/backends/numpy/` is the shortest implementation, and shows what each of them asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.backends.spec import ParamSpec
from fedray.metrics import Mean, Metric, Word
from fedray.strategies.strategy import Hook, State, Strategy
from fedray.tree import Tree
from fedray.types import Vector

Snapshot: TypeAlias = Mapping[str, Any]
"""All local state of a model but the shared weights, at one moment; local tensors are part of it."""

FileKind: TypeAlias = Literal["model", "weights"]
"""A whole model, or its weights alone."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the driver and the server need to know of a model; nothing in it depends on data.

    Attributes:
        spec: Its tensors.
        train_words: The numbers in which the additive metrics of training are summed.
        evaluate_words: The same of evaluation.
        directions: Metric name -> `"max"` or `"min"`, where the framework knows which is better.
        frozen: Frozen tensor -> SHA-256 of its values: they are not sent, so that everybody has to have the same.
        apart: Metric that stays with its party -> why, and what to do: its state does not add up.
        doubts: What the model can hardly be meant to do, and what to say instead, in words.
    """

    spec: ParamSpec
    train_words: tuple[Word, ...]
    evaluate_words: tuple[Word, ...]
    directions: Mapping[str, str]
    frozen: Mapping[str, str] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Row numbers of one local batch into the party's own arrays."""

    rows: NDArray[np.int64]


class Data(Protocol):
    """A party's arrays as one framework holds them; made by `Steps.bind`, of use to that backend alone."""

    @property
    def rows(self) -> int:
        """Number of rows."""


class Weights(Protocol):
    """The flat vector: what is averaged, end to end. Frozen and local tensors are not in it.

    A model that learns its shape from the data has none before its first `bind`; all of this then raises PlanError.
    """

    @property
    def spec(self) -> ParamSpec:
        """The tensors of the model, and what the words of the flat vector are."""

    def weights(self) -> Vector:
        """Returns the flat vector."""

    def set_weights(self, values: Vector) -> None:
        """Sets every shared tensor from the flat vector.

        Raises:
            DataError: It is longer or shorter than the model's.
        """

    def fingerprint(self) -> bytes:
        """Returns SHA-256 over architecture, roles, optimizer, loss, metrics and the values of frozen tensors.

        It is equal where the same model is trained, and enters the keys of every round.
        """

    def facts(self) -> ModelFacts:
        """Returns names and shapes of tensors and metrics.

        Raises:
            PlanError: No data has been bound yet, and the model needs it.
        """

    def keep_apart(self, reasons: Mapping[str, str]) -> None:
        """Lets metrics stay with their party from now on, as another party's do; the value of each is why."""


class Steps(Protocol):
    """What a model does with rows. Training metrics accumulate in it until `take_metrics`."""

    def bind(
        self,
        x: Tree,
        y: Tree | None = None,
        sample_weight: Tree | None = None,
        class_weight: Mapping[int, float] | None = None,
    ) -> Data:
        """Takes arrays over, builds the model where it has waited for them, and checks that they fit it.

        Args:
            x: One array, or several inputs as the model names or orders them; rows on the first axis of each.
            y: Labels, of one output or of several; None where rows are only predicted.
            sample_weight: One number per row, for all outputs, or a tree like `y` with an array or None per output.
            class_weight: Class number -> weight of its rows; for one output only, and not beside `sample_weight`.

        Raises:
            DataError: The arrays do not fit each other, the model or its loss.
            PlanError: The arguments ask for something that the model cannot do.
        """

    def check_strategy(self, strategy: Strategy) -> None:
        """Refuses a strategy that this model cannot be trained with.

        Raises:
            PlanError: The strategy works on gradients, and the model takes its steps by itself; or it would undo what
                the model's optimizer promises of weights.
        """

    def begin_round(self, first: int, planned: int, epochs: int) -> None:
        """Says where in the run a round is, so that a learning-rate schedule is at the same step at every party.

        Args:
            first: Batches planned for the rounds before it, the same number at every party.
            planned: Batches planned for it, 1 or more, however many this party takes.
            epochs: Epochs of all fits that were over when it began.
        """

    def train(
        self, start: Vector, data: Data, batches: Sequence[Batch], hook: Hook | None = None, state: State | None = None
    ) -> tuple[Vector, int, Snapshot]:
        """Sets the weights to `start` and trains on the batches in order.

        The hook's `state` holds vectors over the trainable words, and numbers; nothing of local tensors is in them.

        Args:
            start: The flat vector to begin with.
            data: What `bind` returned.
            batches: Row numbers of each step.
            hook: Changes each gradient over the trainable words; None for the framework's own step.
            state: What the hook is given.

        Returns:
            The new flat vector, the rows seen, and what `snapshot` would return now, which costs less this way.

        Raises:
            PlanError: A frozen tensor has changed; it is put back.
        """

    def gradient(self, data: Data, batches: Sequence[Batch]) -> tuple[Vector, int]:
        """Returns the mean gradient over the batches' rows and their number; non-trainable words hold the values.

        The gradient of local tensors is kept until `apply_gradient` or `restore`.

        Raises:
            PlanError: A frozen tensor has changed; it is put back.
        """

    def apply_gradient(self, gradient: Vector) -> None:
        """Lets the optimizer apply a gradient, and with it the kept one of local tensors; non-trainable words are set.

        Where none is kept, since the party had no rows, local tensors stay as they are.
        """

    def reset_metrics(self) -> None:
        """Forgets the training metrics accumulated so far: an epoch begins."""

    def take_metrics(self) -> list[Metric]:
        """Returns the training metrics accumulated since the last call, and resets them.

        Those that stay with their party go on until `reset_metrics`: nobody could put them together.
        """

    def loss_so_far(self) -> Mean | None:
        """Returns the loss of `take_metrics`, and changes nothing; None where it is no mean over rows."""

    def evaluate(self, data: Data, batches: Sequence[Batch]) -> list[Metric]:
        """Returns the metrics over the batches; training metrics are not touched."""

    def finish(self, metrics: Sequence[Metric]) -> list[Metric]:
        """Returns metrics whose states are sums over parties with their values computed."""

    def predict(self, data: Data, batches: Sequence[Batch]) -> Tree:
        """Returns the model's outputs, row by row: one array, or a tree of one per output."""

    def learning_rate(self) -> float:
        """Returns the optimizer's current learning rate.

        Raises:
            PlanError: The optimizer is several.
        """

    def set_learning_rate(self, value: float) -> None:
        """Sets the optimizer's learning rate.

        Raises:
            PlanError: The optimizer follows a schedule of its own, or is several.
        """


class LocalState(Protocol):
    """What stays with the party beside the shared weights, so that a round can be taken back whole."""

    def snapshot(self) -> Snapshot:
        """Returns all local state: local tensors, optimizer, metrics, random generators."""

    def restore(self, snapshot: Snapshot) -> None:
        """Puts back what `snapshot` returned."""

    def stored(self) -> Any:
        """Returns all local state and the learning rate as plain values, in memory of their own, for a file.

        Plain are numbers, text, bytes, arrays, and lists, tuples and dicts of such; see `fedray.party.kept.nest`.
        """

    def take_stored(self, stored: Any) -> None:
        """Puts back what `stored` returned, in another process as well.

        Raises:
            DataError: It is the state of another model.
        """

    def forget(self) -> None:
        """Lets the optimizer begin anew; learning rate, metrics, local tensors and random generators stay."""


class ModelFile(Protocol):
    """A model as its framework's users know it: files, and arrays in the framework's own order.

    What the files are called is in the table of `fedray.backends`, where the driver reads it without the framework.
    """

    def export_model(self, kind: FileKind = "model", own: bool = False, ending: str = "") -> bytes:
        """Returns the content of a file.

        Args:
            kind: What is in it.
            own: Whether local tensors have this party's values, in a file that stays with it; else those they were
                built with. Nothing else depends on this party's rows but through the shared weights.
            ending: How the file's name ends, where the framework has several for one kind; empty for its first.
        """

    def import_model(self, content: bytes, own: bool = False) -> None:
        """Takes weights from a file of kind `"model"`; runs none of its code, leaves all other local state as it is.

        With the shared weights comes the learning rate that the file was saved with, where the optimizer can be set.

        Args:
            content: Of the file.
            own: Whether only local tensors are taken; else only the others are.

        Raises:
            DataError: The file does not fit the model; its weights are as before.
        """

    def arrays(self) -> list[NDArray[Any]]:
        """Returns the weights in the framework's own order, local tensors as built; none where it is not built yet."""

    def set_arrays(self, values: Sequence[NDArray[Any]]) -> None:
        """Sets the weights from arrays in the framework's own order; local tensors stay as they are.

        Raises:
            DataError: Their number or a shape is not the model's.
        """


class Backend(Weights, Steps, LocalState, ModelFile, Protocol):
    """A model in one party: all four."""
