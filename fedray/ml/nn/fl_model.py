# SPDX-License-Identifier: Apache-2.0
"""FLModel: one model trained by several parties, with the manners of a Keras model.

The driver's side only: it checks arguments, plans, and hands the plan to a run. Nothing of a run is kept on the object.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Never

from fedray.backends import framework
from fedray.backends.roles import checked_patterns
from fedray.data.columns import Names
from fedray.device import PYU, PYUObject
from fedray.errors import PlanError
from fedray.ml.nn.absences import notices
from fedray.ml.nn.callbacks import CallbackList, ModelAccess, as_list
from fedray.ml.nn.checkpoints.checkpoint import Checkpoint, Resume
from fedray.ml.nn.checkpoints.experiment import experiment_of
from fedray.ml.nn.checkpoints.fit_keeping import keeping
from fedray.ml.nn.checkpoints.position import FitRows
from fedray.ml.nn.checkpoints.said import described, versions
from fedray.ml.nn.federation import Federation
from fedray.ml.nn.fitting import FitRun, local, own_metrics, plan_shape, values
from fedray.ml.nn.history import History
from fedray.ml.nn.optimizer import Optimizer
from fedray.ml.nn.parties import checked_aggregator, checked_devices
from fedray.ml.nn.plan import order_seed, plan_evaluate, plan_fit, whole
from fedray.ml.nn.progress import EpochBar, Verbose, check_verbose
from fedray.ml.nn.saving import SavedModels
from fedray.ml.nn.source import Arrays, check_columns, check_inputs, check_source, fit_sources
from fedray.ml.nn.words import ModelWords, refuse, trial
from fedray.runtime.session import current
from fedray.security.aggregation import Aggregator, PlainAggregator, SPUAggregator
from fedray.strategies import make_strategy

_log = logging.getLogger("fedray")


class FLModel(ModelWords):
    """A model that several parties train together.

    Every party builds the model under the same seed and keeps its own rows; what leaves a party in a round is its
    protected update. The parties' optimizers keep their state from one `fit` to the next.

    Args:
        server: The party that sums; None takes the aggregator's.
        device_list: The parties that hold rows. The server may be one of them.
        model: A function without arguments that returns a compiled model; it is called inside each party.
        aggregator: How updates are summed; None is `SecureAggregator(server, device_list)`.
        strategy: `"fed_avg_w"` averages weights, `"fed_avg_g"` gradients, `"fed_avg_u"` updates; `"fed_prox"` averages
            weights that are pulled towards the global ones by `mu`; `"fed_adam"` averages updates, along which all
            take the same step of a server's Adam.
        strategy_parameters: Its settings, e.g. `{"mu": 0.1}`.
        backend: `"tensorflow"`, for Keras models, `"torch"`, for PyTorch's, or `"numpy"`, for those of
            `fedray.ml.nn.numpy`.
        random_seed: Seed of all that is random; None takes the session's, or that of a first `fit(random_seed=...)`.
        local_metrics: Whether each party's own metrics and losses come to the driver, as egress kind `metrics`.
        local: Patterns for tensors that stay in their party and are trained on its rows alone, e.g. `["head/*",
            "*/batch_normalization*"]`: `fnmatch` on Keras's `variable.path` without the model's name, or on names of
            PyTorch's `state_dict`. They start equal, and each party's `evaluate` and `predict` use its own.

    Raises:
        NotInitialized: No session is running.
        PlanError: An argument cannot work; the message names it.
        PartyError: `model` failed inside a party.

    Example:
        >>> from fedray.data.ndarray import load
        >>> from fedray.ml.nn import FLModel
        >>> from fedray.ml.nn.numpy import LinearRegression
        >>> def build():
        ...     return LinearRegression(features=1, learning_rate=0.1)
        >>> x = load({alice: np.array([[0.0], [1.0]]), bob: np.array([[2.0], [3.0]])})
        >>> y = 2 * x + 1
        >>> model = FLModel(server=charlie, device_list=[alice, bob], model=build, backend="numpy")
        >>> history = model.fit(x, y, epochs=60, verbose=0)
        >>> history.history["loss"][-1] < 0.01
        True
        >>> metrics, of_each_party = model.evaluate(x, y, verbose=0)
        >>> [metric.name for metric in metrics]
        ['loss', 'mae']
    """

    def __init__(
        self,
        server: PYU | None = None,
        device_list: Sequence[PYU] = (),
        model: Callable[[], Any] | None = None,
        aggregator: Aggregator | SPUAggregator | None = None,
        strategy: str = "fed_avg_w",
        backend: str = "tensorflow",
        random_seed: int | None = None,
        *,
        strategy_parameters: Mapping[str, float] | None = None,
        local_metrics: bool = True,
        local: Sequence[str] = (),
    ) -> None:
        session = current()
        self._devices = checked_devices(device_list)
        method = framework(backend).method
        # A class whose models are made without arguments is as good as a function.
        if not callable(model) or (hasattr(model, method) and not isinstance(model, type)):
            found = type(model).__name__
            raise PlanError(
                f"model: expected a function that returns a compiled model, found {found}; pass a function: every "
                "party calls it and builds a model of its own"
            )
        if not isinstance(local_metrics, bool):  # a text such as "no" would count as True, and metrics would leave
            raise PlanError(f"local_metrics: expected True or False, found {local_metrics!r}")
        patterns = checked_patterns(local)
        made = make_strategy(strategy, strategy_parameters)
        self._aggregator = checked_aggregator(server, self._devices, aggregator)
        self._seed = session.seed if random_seed is None else whole("random_seed", random_seed, least=0)
        self._files = SavedModels(backend, model, self._devices, patterns)
        self._federate = partial(
            Federation,
            session,
            self._aggregator,
            self._devices,
            model,
            backend,
            made,
            local_metrics=local_metrics,
            local=patterns,
        )
        self._said = described(self._aggregator, backend, made, patterns, local_metrics, random_seed)
        self._federation = self._federate(self._seed)
        self._seed_is_open = random_seed is None
        self._fits = 0
        self._columns: dict[str, Names] = {}
        self._history: History | None = None
        self._optimizer = Optimizer(lambda: self._federation)  # a first fit may make another one

    @property
    def optimizer(self) -> Optimizer:
        """The parties' optimizers as one: `model.optimizer.learning_rate` is read and set as in Keras.

        What is set here or by a callback holds for all parties from their next round on, and for later fits.
        """
        return self._optimizer

    def fit(
        self,
        x: Arrays,
        y: Arrays | None = None,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: Verbose = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: tuple[Arrays, ...] | None = None,
        shuffle: bool = True,
        *,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Arrays | None = None,
        initial_epoch: int = 0,
        validation_freq: int | Sequence[int] = 1,
        aggregate_freq: int = 1,
        sampler_method: str = "batch",
        random_seed: int | None = None,
        first: int | None = None,
        checkpoint: Checkpoint | None = None,
        resume: Resume = True,
        **refused: Never,
    ) -> History:
        """Trains, and returns the history; arguments mean what they mean in Keras's `fit`.

        Args:
            x: Rows, a FedNdarray; a list, tuple or dict of such where the model has several inputs.
            y: Labels, as the model's loss wants them; nested in the same way where it has several outputs.
            batch_size: Rows in one local batch of each party.
            epochs: Epoch to stop before.
            verbose: `"auto"` or 1: a bar per epoch, with the loss so far where a callback looks at every round; 2: a
                line per epoch; 0: nothing.
            callbacks: Keras callbacks, a list or one; they run at the driver on the aggregated metrics.
            validation_split: Share of the rows to validate on in place of training: the last ones of each party.
            validation_data: `(x, y)` or `(x, y, sample_weight)`.
            shuffle: Whether each party deals its rows in a new order each epoch.
            class_weight: Weight of each class, of the one output.
            sample_weight: One weight per row; for several outputs, one array for all or one (or None) for each.
            initial_epoch: Epoch to start with.
            validation_freq: Epochs between validations, or a list of epochs counted from 1.
            aggregate_freq: Local batches between two sums.
            sampler_method: `"batch"`, or `"poisson"` (each row with probability batch_size / rows).
            random_seed: Seed of the order of rows; None takes the model's, in another order for every call. Where the
                model was given none and nothing has been asked of it yet, also the seed of its initial weights.
            first: For a trial run: only so many rows of each party, of training and of validation.
            checkpoint: Where the run is kept, e.g. `sf.Checkpoint("runs/mnist")`; None keeps nothing.
            resume: Whether an unfinished run that was kept there goes on; False begins a new one, `"must"` is an error
                where there is none.
            **refused: Words of Keras's that have no meaning here; the error says what has.

        Raises:
            PlanError: An argument cannot work, or the run that was kept is another one; nothing has started.
            DataError: A party's rows or labels do not fit.
            NotFinite: A party's weights became NaN or infinite; the round was put back.
            PartyLost: A party's process ended; the message names party and round.
        """
        refuse("fit", refused)
        level = check_verbose(verbose)
        if class_weight is not None and not isinstance(class_weight, Mapping):
            raise PlanError(f"class_weight: expected {{class number: weight}}, found {type(class_weight).__name__}")
        given = (x, y, sample_weight)
        train, validation = fit_sources(self._devices, given, validation_data, validation_split, first)
        columns = check_columns(train.x, self._columns)
        if validation is not None:
            plan_evaluate(validation.sizes, alone=self._alone)
            check_columns(validation.x, columns)
        watched = CallbackList(as_list(callbacks), self._access())
        kept = keeping(checkpoint, resume)
        fits = self._fits if kept is None else kept.fits(self._fits)
        seed = order_seed(self._seed, fits) if random_seed is None else whole("random_seed", random_seed, least=0)
        seed = seed if kept is None else kept.seed(random_seed, seed)
        plan = plan_fit(
            train.sizes,
            seed=seed,
            batch_size=batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            aggregate_freq=aggregate_freq,
            sampler_method=sampler_method,
            shuffle=shuffle,
            validation_freq=validation_freq,
            every_round=watched.wants_rounds,
            alone=self._alone,
            pause=0 if checkpoint is None else checkpoint.rounds,
        )
        if random_seed is not None and self._seed_is_open:
            self._seed, self._federation = seed, self._federate(seed)
        self._seed_is_open = False
        facts = self._federation.bind("train", train, class_weight)
        if validation is not None:
            facts = self._federation.bind("evaluate", validation)
        watched.check(facts.apart)
        if kept is not None:
            rows = FitRows(self._devices, train, validation, class_weight)
            sizes = None if validation is None else validation.sizes
            experiment = experiment_of(self._said, plan, facts.spec, sizes, class_weight, random_seed)
            plan = kept.settle(self._federation, rows, plan, experiment, versions(self._said["backend"]), fits)
        self._federation.open(plan.largest_weight(), plan_shape(plan))
        self._say_notices(level, () if first is None else (trial(first),))
        params = {"epochs": epochs, "steps": plan.steps, "batch_size": batch_size, "verbose": level, "seed": seed}
        watched.prepare(params, facts.directions)
        history = History(params, notices=list(self._federation.notices))
        if first is not None:
            history.notices.append(trial(first))
        self._history = history  # from here on, so that a fit that is interrupted leaves what it has done
        run = FitRun(self._federation, facts, plan, validation, watched, history, level, self._optimizer, kept)
        self._columns = columns
        self._fits = fits + 1
        return run.execute()

    def evaluate(
        self,
        x: Arrays,
        y: Arrays | None = None,
        batch_size: int = 32,
        verbose: Verbose = "auto",
        sample_weight: Arrays | None = None,
        *,
        return_dict: bool = False,
        **refused: Never,
    ) -> Any:
        """Returns the metrics over all parties' rows, and each party's own.

        Args:
            x: Rows, as in `fit`.
            y: Labels, as in `fit`.
            batch_size: Rows in one local batch.
            verbose: 0 for silence; otherwise a line.
            sample_weight: One weight per row, as in `fit`.
            return_dict: Whether to return numbers by name.
            **refused: As in `fit`.

        Returns:
            `([Mean(name='loss', ...), ...], {"alice": [...], ...})`, or as numbers `({"loss": 0.3, ...}, {"alice":
            {"loss": 0.2, ...}, ...})`.

        Raises:
            PlanError: An argument cannot work.
            DataError: A party's rows or labels do not fit.
        """
        refuse("evaluate", refused)
        level = check_verbose(verbose)
        source = check_source(self._devices, x, y, sample_weight)
        check_columns(source.x, self._columns)
        plan = plan_evaluate(source.sizes, batch_size=batch_size, alone=self._alone)
        self._seed_is_open = False
        facts = self._federation.bind("evaluate", source)
        self._federation.open()
        self._say_notices(level)
        with EpochBar(level, "evaluate", plan.steps) as bar:
            reports, stretches = self._federation.evaluate(facts, source, plan.batch_size)
            for rounds in stretches:
                for one in rounds.missing:
                    bar.note(f"{one.party} dropped out of the evaluation ({one.reason})")
                for text in notices(rounds, "evaluation"):
                    _log.warning("%s", text)
            overall = list(next((report.overall for report in reports.values() if report.overall), ()))
            bar.close(complete=True)
            bar.figures(values(overall))
        if return_dict:
            return values(overall), local(reports)
        return overall, {party: list(own) for party, own in own_metrics(reports).items()}

    def predict(
        self, x: Arrays, batch_size: int = 32, verbose: Verbose = "auto", **refused: Never
    ) -> dict[PYU, PYUObject]:
        """Returns each party's predictions for its own rows, one array or as the model has outputs; they stay there.

        Args:
            x: Rows, at any of the model's parties; a list, tuple or dict where the model has several inputs.
            batch_size: Rows in one local batch.
            verbose: Of no effect: the call returns at once, and nothing is printed.
            **refused: As in `fit`.

        Raises:
            PlanError: A party that holds rows is not one of the model's, or lacks those of an input.
        """
        refuse("predict", refused)
        check_verbose(verbose)
        inputs, places = check_inputs(self._devices, x)
        check_columns(inputs, self._columns)
        rows = whole("batch_size", batch_size, least=1)
        self._seed_is_open = False
        return {device: self._federation.predict(device, inputs, rows) for device in places}

    def save(self, path: str | Path, *, party: PYU | None = None) -> None:
        """Saves the global model at the driver as a stock file of its framework: `.keras`, or `.npz` of NumPy's.

        Tensors that stay in their party are in it as they were built; a warning names them once.

        Args:
            path: Where to; its ending is the framework's.
            party: Saves this party's model instead, with its own local tensors, at this path on its machine. Nothing
                leaves the party.

        Raises:
            PlanError: The path ends otherwise.
        """
        self._files.save(self._federation, path, party=party)
        self._seed_is_open = False

    def load(self, path: str | Path, *, party: PYU | None = None) -> None:
        """Replaces weights and learning rate, everywhere, by a saved file's; local tensors stay as they are.

        Args:
            path: The file.
            party: Takes only this party's local tensors instead, from this path on its machine.

        Raises:
            PlanError: There is no such file.
            DataError: It holds another model.
        """
        self._files.load(self._federation, path, party)
        if party is None:
            self._optimizer.adopt()
        self._seed_is_open = False
        self._columns = {}  # what that model was trained on is not in the file

    def global_model(self) -> Any:
        """Returns the global model as a stock model in this process, which imports its framework.

        Tensors that stay in their party are in it as they were built; a warning names them once.

        Raises:
            PlanError: The model learns its shape from the data, and has not seen any.
        """
        self._seed_is_open = False
        return self._files.global_model(self._federation, self._optimizer.chosen)

    def _say_notices(self, verbose: int, more: Sequence[str] = ()) -> None:
        if verbose:
            for text in (*self._federation.unsaid(), *more):
                print(f"note: {text}", flush=True)

    @property
    def _alone(self) -> bool:
        return isinstance(self._aggregator, PlainAggregator)

    def _access(self) -> ModelAccess:
        federation = self._federation
        return ModelAccess(
            get_weights=federation.arrays,
            set_weights=federation.set_arrays,
            save=self.save,
            save_weights=lambda path: self._files.save(federation, path, "weights"),
            optimizer=self._optimizer,
        )
