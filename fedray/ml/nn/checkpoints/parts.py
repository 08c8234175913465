# SPDX-License-Identifier: Apache-2.0
"""The parties' parts of checkpoints as the driver reaches them: names, numbers and words, never their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedray.device import PYU
from fedray.errors import PartyLost, PlanError
from fedray.ml.nn.source import Source
from fedray.party.training.replaying import ReplayVerdict
from fedray.runtime.session import Session
from fedray.types import Key, PartyName


class PartyParts:
    """One `Keeping` in each party of a model.

    Args:
        session: The running session.
        keys: Party -> key of its `Keeping`.

    Attributes:
        held: Party -> numbers of the checkpoints on its disk, as far as is known.
        failures: Party -> why its last write failed; none where it did not.
    """

    def __init__(self, session: Session, keys: Mapping[PartyName, Key]) -> None:
        self._session, self._keys = session, dict(keys)
        self.held: dict[PartyName, list[int]] = {party: [] for party in keys}
        self.failures: dict[PartyName, str] = {}

    @property
    def parties(self) -> tuple[PartyName, ...]:
        """All of them, in roster order."""
        return tuple(self._keys)

    def know(
        self, devices: Sequence[PYU], purpose: str, source: Source, class_weight: Mapping[int, float] | None = None
    ) -> None:
        """Lets every party take the hash of its rows, which stays there.

        Args:
            devices: The model's parties.
            purpose: `"train"` or `"evaluate"`.
            source: The arrays.
            class_weight: Weights of classes.
        """
        weights = dict(class_weight) if class_weight else None
        calls = [
            self._session.ask(one.name, self._keys[one.name], "know", purpose, *source.parts(one), weights)
            for one in devices
        ]
        self._session.get(calls)

    def look(self, run: str, named: str) -> dict[PartyName, dict[str, Any]]:
        """Returns what each party has of a run; see `Keeping.look`.

        Args:
            run: The run's name.
            named: Folder of parties that have none of their own.
        """
        found = self._everywhere(self.parties, "look", run, named, self.parties)
        self.held = {party: list(one["held"]) for party, one in found.items()}
        return found

    def restore(self, run: str, named: str, number: int) -> None:
        """Puts every party's part back.

        Args:
            run: The run's name.
            named: Folder of parties that have none of their own.
            number: Of the checkpoint.

        Raises:
            DataError: One is damaged, or of another model.
        """
        self._everywhere(self.parties, "restore", run, named, number)

    def replay(self, party: PartyName, run: str, named: str, committed: Any) -> list[ReplayVerdict]:
        """Lets a party make its rounds again, and returns what came of it; see `Keeping.replay`.

        Args:
            party: Whose.
            run: The run's name.
            named: Folder of parties that have none of their own.
            committed: Its commitments in a ledger that was saved, or None for its own.

        Raises:
            PlanError: Its rows or its model are others.
        """
        found = self._everywhere([party], "look", run, named, self.parties)[party]
        differs = [one for some in found["differs"].values() for one in some]
        if differs:
            raise PlanError(f"replay: party {party!r} has {differs[0]} than the run")
        verdicts: list[ReplayVerdict] = self._everywhere([party], "replay", run, named, committed)[party]
        return verdicts

    def begin(self, run: str, named: str) -> None:
        """Lets every party make its folder of a run."""
        self._hear(self._everywhere(self.parties, "begin", run, named))

    def capture(self, there: Sequence[PartyName], number: int, stay: Sequence[int]) -> None:
        """Lets parties gather their parts, and write them beside what follows.

        Args:
            there: Who takes part; the others are behind from here on.
            number: Of the checkpoint.
            stay: Numbers that are not to be removed.
        """
        self._hear(self._everywhere(there, "capture", number, tuple(stay)))

    def settle(self, there: Sequence[PartyName]) -> None:
        """Waits until parties have written what they gathered."""
        self._hear(self._everywhere(there, "settle"))

    def _hear(self, told: Mapping[PartyName, dict[str, Any]]) -> None:
        for party, status in told.items():
            self.held[party] = list(status["held"])
            self.failures.pop(party, None)
            if status["failure"]:
                self.failures[party] = str(status["failure"])

    def _everywhere(self, there: Sequence[PartyName], method: str, *args: Any) -> dict[PartyName, Any]:
        calls = {party: self._session.ask(party, self._keys[party], method, *args) for party in there}
        found: dict[PartyName, Any] = {}
        for party, call in calls.items():
            try:
                (found[party],) = self._session.get([call])
            except PartyLost as error:
                # Its next segment says so, and what becomes of the others; a checkpoint does not end a run.
                if method in ("capture", "settle") and error.party == party:
                    continue
                raise
        return found
