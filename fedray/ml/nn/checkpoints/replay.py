# SPDX-License-Identifier: Apache-2.0
"""What `fedray replay` asks of the program that it runs: not to train, and to have one party make its rounds again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fedray.errors import PlanError
from fedray.ml.nn.checkpoints.checkpoint import Checkpoint
from fedray.ml.nn.checkpoints.parts import PartyParts
from fedray.ml.nn.checkpoints.run_folder import RunFolder
from fedray.party.training.replaying import Committed, ReplayVerdict
from fedray.types import PartyName


@dataclass(slots=True)
class Replay:
    """One replay that was asked for.

    Attributes:
        path: The folder of runs, or of one.
        party: Whose rounds.
        rounds: Numbers of the rounds that are asked for, as the ledger has them; none for all.
        committed: (session, call) -> commitments in a ledger that was saved; None for the party's own ledger.
        verdicts: What came of it; None as long as no fit was met that keeps its runs there.
    """

    path: Path
    party: PartyName
    rounds: tuple[int, ...] = ()
    committed: Committed | None = None
    verdicts: list[ReplayVerdict] | None = None

    def concerns(self, path: Path) -> bool:
        """Returns whether a fit keeps its runs in the folder that is asked about."""
        return path.resolve() in (self.path.resolve(), self.path.resolve().parent)

    def run_in(self, path: Path) -> str | None:
        """Returns the name of the run's subfolder; None for the newest."""
        return None if path.resolve() == self.path.resolve() else self.path.name


def make_again(replay: Replay, checkpoint: Checkpoint, parts: PartyParts) -> NoReturn:
    """Lets a party make its rounds again in place of training.

    Args:
        replay: What is asked for; the verdicts go there.
        checkpoint: Where the fit keeps its runs.
        parts: The parties' parts.

    Raises:
        PlanError: There is no such run, or the party's rows or model are others.
        Replayed: Always, in the end.
    """
    path = Path(checkpoint.path).expanduser()
    wanted = replay.run_in(path)
    run = next((one for one in reversed(RunFolder.all(path)) if wanted in (None, one.folder.name)), None)
    if run is None or replay.party not in parts.parties:
        parties = ", ".join(map(repr, parts.parties))
        raise PlanError(f"replay: expected a run in {path} and one of its parties {parties}, found none")
    replay.verdicts = parts.replay(replay.party, run.name, checkpoint.named, replay.committed, replay.rounds)
    raise Replayed


class Replayed(BaseException):
    """Ends a program whose fit was replayed: what would follow has no model. No error, and no `Exception`."""


asked: list[Replay] = []
"""What the command line has asked for, at most one."""
