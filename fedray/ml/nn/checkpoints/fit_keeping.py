# SPDX-License-Identifier: Apache-2.0
"""FitKeeping: the checkpoints of one `fit`: whether it goes on with a run that was left, and what it keeps of its own.

The driver's half. What can go wrong with a disk is said, in the log and in the history, and ends no run. What is kept
is taken when the step has it, and written beside training.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedray.errors import DataError, FedRayError, PlanError
from fedray.ml.nn.checkpoints.checkpoint import Checkpoint, Resume, check_arguments
from fedray.ml.nn.checkpoints.choice import (
    Found,
    common,
    decide,
    say_behind,
    say_dealt,
    say_lacking,
    say_moved,
    staying,
)
from fedray.ml.nn.checkpoints.experiment import differences, experiment_hash, without
from fedray.ml.nn.checkpoints.parts import PartyParts
from fedray.ml.nn.checkpoints.position import FitRows, Position
from fedray.ml.nn.checkpoints.replay import asked, make_again
from fedray.ml.nn.checkpoints.run_folder import RunFolder
from fedray.ml.nn.checkpoints.state import (
    callback_states,
    history_state,
    record_of,
    set_callback_states,
    set_history,
)
from fedray.ml.nn.checkpoints.thinning import at_end, at_interruption
from fedray.ml.nn.federation import Federation
from fedray.ml.nn.history import History
from fedray.ml.nn.optimizer import Optimizer
from fedray.ml.nn.plan import FitPlan, order_seed
from fedray.party.kept.beside import Beside
from fedray.party.kept.numbered import removable
from fedray.party.whole_file import why
from fedray.types import PartyName

_log = logging.getLogger("fedray")
_seconds = time.monotonic


class FitKeeping:
    """The checkpoints of one `fit`.

    Args:
        checkpoint: Where and how often.
        resume: As `fit` was given it.

    Attributes:
        start: Where the run begins; None at its beginning.

    Raises:
        PlanError: What is in the folder is damaged.
    """

    def __init__(self, checkpoint: Checkpoint, resume: Resume) -> None:
        self._checkpoint, self._resume = checkpoint, resume
        runs = RunFolder.all(checkpoint.path)
        # One that was killed before its first checkpoint has nothing to go on from, and has done nothing.
        self._last = next((one for one in reversed(runs) if one.run["finished"] or one.numbers()), None)
        self._folder: RunFolder | None = None
        self._parts: PartyParts
        self._state: Mapping[str, Any] = {}
        self.start: Position | None = None
        self._notices: list[str] = []
        self._said: set[str] = set()
        self._writing, self._failure = Beside("fedray-keeping"), ""
        self._number, self._rounds, self._clock = 0, 0, _seconds()

    @property
    def _left(self) -> RunFolder | None:
        """The run that is to be gone on with, if it is the same experiment."""
        last = self._last
        return None if last is None or last.run["finished"] or self._resume is False else last

    def fits(self, fits: int) -> int:
        """Returns how many fits there were before this one.

        Args:
            fits: As the model has counted them.
        """
        return fits if self._left is None else int(self._left.run["fits"])

    def seed(self, asked: int | None, seed: int) -> int:
        """Returns the seed of the order of rows.

        Args:
            asked: What `fit` was given.
            seed: What it is where nothing is gone on with.
        """
        return seed if asked is not None or self._left is None else int(self._left.run["seed"])

    def settle(
        self,
        federation: Federation,
        rows: FitRows,
        plan: FitPlan,
        experiment: Mapping[str, Any],
        beside: Mapping[str, Any],
        fits: int,
    ) -> FitPlan:
        """Begins a run, or puts everybody back to where one was left; returns the plan, which then may deal anew.

        Args:
            federation: The model.
            rows: Its rows.
            plan: What is going to be done.
            experiment: All that decides the result.
            beside: Versions, and what else is recorded beside it.
            fits: How many fits there were before this one.

        Raises:
            PlanError: A run was left here that is another one, or cannot be gone on with.
        """
        self._parts = parts = federation.parts()
        parts.know(rows)
        for replay in asked:
            if replay.concerns(Path(self._checkpoint.path).expanduser()):
                make_again(replay, self._checkpoint, parts)
        left, looked = self._left, dict[PartyName, dict[str, Any]]()
        if left is not None:
            looked = parts.look(left.name, self._checkpoint.named)
        goes_on = decide(str(self._checkpoint.path), self._found(experiment, beside, looked), self._resume)
        if left is None or not goes_on:
            self._begin(plan, experiment, beside, fits)
            return plan
        versions = differences(left.run["versions"], beside)
        if versions:
            self._notices.append(f"checkpoint: the run was begun with other versions: {'; '.join(versions)}")
        return self._go_on(left, looked, federation, plan)

    def _found(
        self, experiment: Mapping[str, Any], beside: Mapping[str, Any], looked: Mapping[PartyName, Mapping[str, Any]]
    ) -> Found | None:
        last = self._last
        if last is None:
            return None
        differ = [] if last.run["finished"] else self._differ(last.run["experiment"], experiment)
        for party, told in looked.items():
            differ += [f"party {party!r} has {one}" for one in next(iter(reversed(told["differs"].values())), ())]
        versions = differences(last.run["versions"], beside)
        return Found(last.folder.name, bool(last.run["finished"]), differ, versions)

    def _differ(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        """Returns how an experiment differs from what it was; not where it is the same without some of its parties."""
        gone = [party for party in then["parties"] if party not in now["parties"]]
        if gone and self._resume != "must" and not differences(without(then, gone), now):
            self._notices.append(
                f"checkpoint: goes on without {', '.join(map(repr, gone))}, whose rows are gone with it"
            )
            return []
        return differences(then, now)

    def _begin(self, plan: FitPlan, experiment: Mapping[str, Any], beside: Mapping[str, Any], fits: int) -> None:
        said = {
            "experiment": experiment,
            "hash": experiment_hash(experiment),
            "versions": beside,
            "parties": list(self._parts.parties),
            "started": _now(),
            "epochs": plan.epochs,
            "seed": plan.sampling.seed,
            "fits": fits,
        }
        try:
            self._folder = RunFolder.new(self._checkpoint.path, said)
        except OSError as error:
            self._say(
                f"checkpoint: {self._checkpoint.path} cannot be written ({error.strerror}): nothing of this run is kept"
            )
            return
        self._parts.begin(self._folder.name, self._checkpoint.named)

    def _go_on(
        self, left: RunFolder, looked: Mapping[PartyName, Mapping[str, Any]], federation: Federation, plan: FitPlan
    ) -> FitPlan:
        whole, torn = left.whole()
        torn += [one for told in looked.values() for one in told["torn"]]
        held = self._parts.held
        all_have = common(whole, held)
        where = f"run {left.folder.name} in {self._checkpoint.path}"
        if not all_have:
            damaged = f" ({'; '.join(torn)})" if torn else ""
            raise PlanError(
                f"checkpoint: {where} cannot be gone on with, since there is no checkpoint that all have: "
                f"{say_lacking(whole, held)}{damaged}. Restore what is missing, or pass resume=False to begin a new run"
            )
        moved = [party for party, told in looked.items() if told["moved"][all_have[-1]]]
        if moved and not plan.sampling.redealt(min(plan.aggregate_freq, plan.steps)):
            raise PlanError(say_moved(where, moved, plan.sampling.shuffle))
        self._folder, self._number = left, all_have[-1]
        _, self._state = left.read(self._number)
        plan = self._dealt(plan, moved)
        self._parts.restore(left.name, self._checkpoint.named, self._number)
        self.start = Position(**self._state["position"])
        if len(self._parts.parties) < len(left.run["parties"]):
            # With other rows an epoch has other rounds: the one under way is begun once more.
            self.start = replace(self.start, segments=0)
        federation.begun, federation.epochs = self.start.begun, self.start.epochs
        federation.resumed()
        self._notices += [f"checkpoint: {text}" for text in torn]
        self._notices += filter(None, [say_behind(self._number, whole, held)])
        _log.warning("checkpoint: %s goes on in epoch %d", where, self.start.epoch + 1)
        # Numbers are used once: what is newer and not whole everywhere must not pass for what comes now.
        self._number = max([*left.numbers(), *(number for numbers in held.values() for number in numbers)])
        return plan

    def _dealt(self, plan: FitPlan, moved: Sequence[PartyName]) -> FitPlan:
        """Returns the plan, which deals rows anew where those that come again were summed over other parties."""
        deals = int(self._state["deals"])
        if moved and self._folder is not None:
            deals = self._folder.count_deal(deals)
            self._notices.append(say_dealt(moved))
        self._state = {**self._state, "deals": deals}
        if not deals:
            return plan
        return replace(plan, sampling=replace(plan.sampling, seed=order_seed(plan.sampling.seed, -deals)))

    def prepare(self, callbacks: Sequence[Any]) -> None:
        """Lets callbacks that write a file go on with it, before `on_train_begin` is called."""
        for callback in callbacks:
            if self.start is not None and type(callback).__name__ == "CSVLogger":
                callback.append = True  # else it begins a new file, and the epochs before are gone

    def fill(
        self, history: History, away: dict[PartyName, int], callbacks: Sequence[Any], optimizer: Optimizer
    ) -> None:
        """Puts back what the driver kept, once `on_train_begin` was called; nothing in a new run.

        Args:
            history: What `fit` will return.
            away: Party that is away -> place of its record.
            callbacks: The user's.
            optimizer: The learning rate.
        """
        if self.start is not None:
            set_history(history, self._state["history"])
            away.update(self._state["away"])
            optimizer.chosen = self._state["rate"]
            self._notices += set_callback_states(callbacks, self._state["callbacks"])
        for text in self._notices:
            _log.warning("%s", text)
        history.notices += [text for text in self._notices if text not in history.notices]

    def due(self, rounds: int, *, ends_epoch: bool) -> bool:
        """Returns whether a checkpoint is to be made now.

        Args:
            rounds: How many rounds are over since this was last asked.
            ends_epoch: Whether an epoch is over.
        """
        self._rounds += rounds
        if self._checkpoint.seconds is not None:
            return _seconds() - self._clock >= self._checkpoint.seconds
        if self._checkpoint.every == "epoch":
            return ends_epoch
        return self._rounds >= self._checkpoint.rounds

    def capture(
        self,
        position: Position,
        there: Sequence[PartyName],
        history: History,
        away: Mapping[PartyName, int],
        callbacks: Sequence[Any],
        optimizer: Optimizer,
    ) -> None:
        """Keeps the run as it is now, here and at every party; what is written is written beside what follows.

        Args:
            position: Where it is.
            there: Who takes part.
            history: As it is.
            away: Party that is away -> place of its record.
            callbacks: The user's.
            optimizer: The learning rate.
        """
        self._rounds, self._clock = 0, _seconds()
        if self._folder is None:
            return
        if self._number:  # before the first one there is nothing to know yet
            self._hear(history)
        self._number += 1
        folder, number = self._folder, self._number
        try:
            # Whoever was lost before its second answer has the driver's first one, which waited for it.
            held = {party: numbers or folder.numbers()[:1] for party, numbers in self._parts.held.items()}
            stay = staying(folder.numbers(), held, there, self._checkpoint.keep)
            weights = self._parts.capture(there, number, stay, first=not folder.numbers())
            state = {
                "position": {name: getattr(position, name) for name in Position.__slots__},
                "history": history_state(history),
                "away": dict(away),
                "callbacks": callback_states(callbacks),
                "rate": optimizer.chosen,
                "deals": self._state.get("deals", 0),
            }
            # A copy: the run goes on, and its lists grow.
            kept, record = deepcopy(state), record_of(number, _now(), position, there, history)
        except (OSError, DataError) as error:
            self._failure = why(error)
            return

        def write() -> None:
            try:
                whole = kept | {"weights": list(weights())}
                # Before the new one is written: a disk that is full needs the room.
                folder.remove(removable(folder.numbers(), stay))
                folder.write(number, record, whole)
            except (OSError, FedRayError) as error:
                self._failure = why(error)

        self._writing.start(write)

    def finish(self, there: Sequence[PartyName], history: History) -> None:
        """Waits until parties have written what they keep, and says that the run is over.

        Args:
            there: Who takes part.
            history: What `fit` returns.
        """
        if self._folder is None:
            return
        self._parts.settle(there)
        self._hear(history)
        try:
            self._folder.say(finished=_now())
        except OSError as error:
            self._say(f"checkpoint: that the run is finished could not be written ({error.strerror})", history)
            return  # then it is gone on with, and all that is there may be needed
        self._say(at_end(self._folder, self._parts, there, self._checkpoint.keep), history)
        self._hear(history)

    def break_off(self, history: History) -> None:
        """Removes what is more than is to be kept of a run that was interrupted while all were there.

        Args:
            history: As it is.
        """
        self._writing.rest()
        if self._folder is not None:
            self._say(at_interruption(self._folder, self._parts, self._checkpoint.keep), history)

    def leave(self) -> None:
        """Waits until the driver's half is written, however the run has ended: the same cell may come next."""
        self._writing.rest()

    def _hear(self, history: History) -> None:
        """Waits for what is being written here, and takes the parties' answers; says what failed."""
        self._writing.rest()
        self._parts.hear()
        failure, self._failure = self._failure, ""
        told = [f"not kept at the driver: {failure}"] if failure else []
        for text in [*told, *self._parts.failures.values()]:
            self._say(f"checkpoint: {text}. The run goes on; the checkpoints before stay", history)

    def _say(self, text: str, history: History | None = None) -> None:
        """Says something once, in the log and in the history."""
        if not text or text in self._said:
            return
        self._said.add(text)
        if history is None:
            self._notices.append(text)
        else:
            _log.warning("%s", text)
            history.notices.append(text)


def keeping(checkpoint: Checkpoint | None, resume: Resume) -> FitKeeping | None:
    """Returns the checkpoints of a fit, or None where there are none.

    Args:
        checkpoint: As `fit` was given it.
        resume: As `fit` was given it.

    Raises:
        PlanError: An argument cannot work.
    """
    check_arguments(checkpoint, resume)
    return None if checkpoint is None else FitKeeping(checkpoint, resume)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
