# SPDX-License-Identifier: Apache-2.0
"""What `fedray replay` asks of the program that it runs: not to train, and to have one party make its rounds again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


class Replayed(BaseException):
    """Ends a program whose fit was replayed: what would follow has no model. No error, and no `Exception`."""


asked: list[Replay] = []
"""What the command line has asked for, at most one."""
