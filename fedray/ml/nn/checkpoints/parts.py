# SPDX-License-Identifier: Apache-2.0
"""The parties' parts of checkpoints as the driver reaches them: names, numbers and words, never their content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedray.errors import FedRayError, PartyLost, PlanError
from fedray.ml.nn.checkpoints.position import FitRows
from fedray.party.training.replaying import Committed, ReplayVerdict
from fedray.runtime.session import Session
from fedray.types import Key, PartyName, Ref

_SOON_SECONDS = 5.0  # for the answers at an interruption: who waits for them has pressed Ctrl-C


class PartyParts:
    """One `Keeping` in each party of a model.

    A party does what it is asked one after another. So nobody waits for a folder that is made, or a part that is
    gathered: training is asked for at once, and comes after it; `hear` takes the answers later.

    Args:
        session: The running session.
        keys: Party -> key of its `Keeping`.
        models: Party -> key of its `LocalModel`.
        first: Asks a party that holds the current model.

    Attributes:
        held: Party -> numbers of the checkpoints on its disk, as far as is known.
        failures: Party -> why its last write failed; none where it did not.
    """

    def __init__(
        self,
        session: Session,
        keys: Mapping[PartyName, Key],
        models: Mapping[PartyName, Key],
        first: Callable[[Callable[[PartyName], Ref]], Ref],
    ) -> None:
        self._session, self._keys, self._models, self._first = session, dict(keys), models, first
        self._asked: list[tuple[PartyName, Ref]] = []
        self.held: dict[PartyName, list[int]] = {party: [] for party in keys}
        self.failures: dict[PartyName, str] = {}

    @property
    def parties(self) -> tuple[PartyName, ...]:
        """All of them, in roster order."""
        return tuple(self._keys)

    def know(self, rows: FitRows) -> None:
        """Lets every party take the hash of its rows, which stays there; returns at once.

        Args:
            rows: Those of the fit.
        """
        weights = dict(rows.class_weight or {})
        sources = {"train": rows.train, "evaluate": rows.validation}
        for one in rows.devices:
            own = [(purpose, *source.parts(one)) for purpose, source in sources.items() if source is not None]
            self._ask([one.name], "know", own, weights)

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

    def replay(
        self, party: PartyName, run: str, named: str, committed: Committed | None, rounds: tuple[int, ...]
    ) -> list[ReplayVerdict]:
        """Lets a party make its rounds again, and returns what came of it; see `Keeping.replay`.

        Args:
            party: Whose.
            run: The run's name.
            named: Folder of parties that have none of their own.
            committed: Its commitments in a ledger that was saved, or None for its own.
            rounds: The rounds that are asked for; none for all.

        Raises:
            PlanError: Its rows or its model are others.
        """
        found = self._everywhere([party], "look", run, named, self.parties)[party]
        differs = [one for some in found["differs"].values() for one in some]
        if differs:
            raise PlanError(f"replay: party {party!r} has {differs[0]} than the run")
        verdicts: list[ReplayVerdict] = self._everywhere([party], "replay", run, named, committed, rounds)[party]
        return verdicts

    def begin(self, run: str, named: str) -> None:
        """Lets every party make its folder of a run; returns at once."""
        self._ask(self.parties, "begin", run, named)

    def capture(
        self, there: Sequence[PartyName], number: int, stay: Sequence[int], *, first: bool
    ) -> Callable[[], Any]:
        """Lets parties gather their parts, and write them beside what follows; returns at once.

        Args:
            there: Who takes part; the others are behind from here on.
            number: Of the checkpoint.
            stay: Numbers that are not to be removed.
            first: Whether the driver has none yet.

        Returns:
            What waits for the global model as it is now, and returns it; in whatever thread. For the driver's first
            checkpoint it waits until all have written theirs as well: else a run that was killed meanwhile would have
            one, and none to go on from. It raises `PartyLost` then.
        """
        gathered = self._ask(there, "capture", number, tuple(stay))
        weights = self._first(lambda party: self._session.ask(party, self._models[party], "arrays"))

        def wait() -> Any:
            (found,) = self._session.get([weights])
            if first:
                self._session.get(gathered)  # after that they write
                self._session.get([self._session.tell(party, self._keys[party], "written") for party in there])
            return found

        return wait

    def settle(self, there: Sequence[PartyName]) -> None:
        """Waits until parties have written what they gathered."""
        self._ask(there, "settle")
        self.hear()

    def thin(self, there: Sequence[PartyName], stay: Sequence[int]) -> None:
        """Lets parties remove checkpoints, once they have written what they gathered; returns at once.

        Args:
            there: Who takes part.
            stay: Numbers that are not to be removed.
        """
        self._ask(there, "thin", tuple(stay))

    def thin_soon(self, there: Sequence[PartyName], stay: Sequence[int]) -> bool:
        """Does the same beside whatever parties do, and returns whether all have answered soon.

        Args:
            there: Who takes part.
            stay: As above; none for a look at what there is.
        """
        try:
            calls = [self._session.tell(party, self._keys[party], "thin", tuple(stay)) for party in there]
            answers = self._session.get(calls, _SOON_SECONDS)
        except FedRayError:  # a party or the session is gone, which is told already
            return False
        self.held |= {party: list(status["held"]) for party, status in zip(there, answers, strict=True)}
        return True

    def hear(self) -> None:
        """Takes the answers to all that was asked so far."""
        asked, self._asked = self._asked, []
        for party, call in asked:
            try:
                (status,) = self._session.get([call])
            except PartyLost as error:
                # Its next segment says so, and what becomes of the others; a checkpoint does not end a run.
                if error.party == party:
                    continue
                raise
            if status is None:  # a hash, which stays there
                continue
            self.held[party] = list(status["held"])
            self.failures.pop(party, None)
            if status["failure"]:
                self.failures[party] = str(status["failure"])

    def _ask(self, there: Sequence[PartyName], method: str, *args: Any) -> list[Ref]:
        calls = [self._session.ask(party, self._keys[party], method, *args) for party in there]
        self._asked += zip(there, calls, strict=True)
        return calls

    def _everywhere(self, there: Sequence[PartyName], method: str, *args: Any) -> dict[PartyName, Any]:
        calls = [self._session.ask(party, self._keys[party], method, *args) for party in there]
        return dict(zip(there, self._session.get(calls), strict=True))
