# SPDX-License-Identifier: Apache-2.0
"""`fedray replay`: a party makes rounds of a run that was kept once more, and compares them with its ledger.

Exit codes: 0 all that were compared are equal, 1 a round differs, or there is nothing to compare.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedray.errors import PlanError

if TYPE_CHECKING:
    from fedray.ml.nn.checkpoints.replay import Replay
    from fedray.party.training.replaying import ReplayVerdict


def add_arguments(commands: Any) -> None:
    """Adds `replay` and its options to the command line.

    Args:
        commands: What `argparse` calls the sub-parsers' action.
    """
    replay = commands.add_parser(
        "replay",
        help="let a party make rounds of a run once more, and compare them with its ledger",
        description="Runs the program of a run up to its fit, which then trains nothing: the party puts back each of "
        "its checkpoints, makes the round after it once more from its rows, and compares that with the commitment in "
        "its ledger, all inside the party. Without a key folder, --ledger names a file of sf.shutdown(ledger=FILE).",
    )
    replay.add_argument("run", type=Path, metavar="DIR", help="the folder of fit(checkpoint=...), or of one run in it")
    replay.add_argument("program", metavar="PROGRAM", help="the program that trained, a .py file")
    replay.add_argument("arguments", nargs="*", metavar="ARG", help="its arguments")
    replay.add_argument("--party", required=True, metavar="NAME", help="whose rounds")
    replay.add_argument(
        "--round",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="this round, as in the ledger; repeatable",
    )
    replay.add_argument("--ledger", type=Path, metavar="FILE", help="a ledger that the driver has saved")


def run(options: argparse.Namespace) -> int:
    """Replays, and returns the exit code.

    Raises:
        PlanError: There is no such run, party, program or ledger; nothing has run then. Or the program came to no fit
            that keeps its runs there.
    """
    from fedray.ml.nn.checkpoints import replay
    from fedray.runtime.lifetime import shutdown

    _check_run(options.run, options.party)
    if not Path(options.program).is_file():
        raise PlanError(f"replay: there is no program {options.program!r}; name the .py file that trained")
    committed = None if options.ledger is None else _committed(options.ledger, options.party)
    one = replay.Replay(options.run, options.party, tuple(options.round), committed)
    replay.asked[:] = [one]
    arguments, sys.argv = sys.argv, [options.program, *options.arguments]
    try:
        runpy.run_path(options.program, run_name="__main__")
    except replay.Replayed:
        pass
    finally:
        sys.argv = arguments
        replay.asked.clear()
        shutdown()
    if one.verdicts is None:
        raise PlanError(
            f"replay: {options.program} came to no fit(checkpoint=sf.Checkpoint({str(options.run)!r})); run it from "
            "the folder from which it was run, and name the folder as it does"
        )
    return _told(one, one.verdicts)


def _check_run(path: Path, party: str) -> None:
    """Checks that there is a run, and that the party has taken part in it.

    Raises:
        PlanError: There is none, or it has not.
    """
    from fedray.ml.nn.checkpoints.run_folder import RunFolder

    kept = [RunFolder.at(path)] if (path / "run.json").is_file() else RunFolder.all(path)
    if not kept:
        raise PlanError(f"replay: {str(path)!r} holds no run; name the folder that fit(checkpoint=...) was given")
    parties = kept[-1].run["parties"]
    if party not in parties:
        raise PlanError(
            f"replay: party: expected one of {', '.join(map(repr, parties))}, who took part in run "
            f"{kept[-1].folder.name}, found {party!r}"
        )


def _told(one: Replay, verdicts: Sequence[ReplayVerdict]) -> int:
    """Prints what came of a replay, and returns the exit code."""
    words = {
        "equal": "equal",
        "differs": "DIFFERS: it is not what {party} has contributed, as its ledger says",
        "not in the ledger": "not in the ledger",
        "not kept": "nothing is kept of the round after it",
    }
    for number, place, verdict in verdicts:
        if verdict == "not asked for" or (one.rounds and verdict == "not kept"):
            continue
        which = f", round {place}" if place >= 0 else ""
        print(f"{one.party}: checkpoint {number}{which}: {words[verdict].format(party=one.party)}")
    compared = [verdict for *_, verdict in verdicts if verdict in ("equal", "differs")]
    reached = sorted({place for _, place, verdict in verdicts if verdict != "not kept"})
    beyond = sorted(set(one.rounds) - set(reached))
    if beyond:
        print(
            f"{one.party}: round{'s' * (len(beyond) > 1)} {_listed(beyond)}: out of reach: a contribution can "
            f"be made again where a checkpoint is kept of the moment before, here: {_listed(reached) or 'none'}. "
            "Checkpoint(every=1, keep=...) keeps more of them"
        )
    if not compared and not beyond:
        print("nothing to compare; Checkpoint(every=1, keep=...) keeps more")
    return 0 if compared and not beyond and "differs" not in compared else 1


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _committed(path: Path, party: str) -> dict[tuple[str, str], list[str]]:
    """Returns the commitments of a party in a ledger that the driver has saved.

    Raises:
        PlanError: It cannot be read, is damaged, or the party is not in it.
    """
    from fedray.party.door.ledger_file import BrokenLedger, from_bytes
    from fedray.party.door.ledger_view import Ledger

    try:
        ledger = Ledger(from_bytes(path.read_bytes()))
    except OSError as error:
        raise PlanError(
            f"replay: the ledger {str(path)!r} cannot be read ({error.strerror}); name the file that "
            "sf.shutdown(ledger=FILE) wrote, or leave --ledger out where the party has a key folder"
        ) from None
    except BrokenLedger as error:
        raise PlanError(f"{path}: {error}") from None
    problems = ledger.verify()
    if problems or party not in ledger.pages:
        raise PlanError(f"{path}: {problems[0] if problems else f'party {party!r} is not in it'}")
    found: dict[tuple[str, str], list[str]] = {}
    for entry in ledger.pages[party].entries:
        if entry.commitment is not None:
            found.setdefault((ledger.book.sid.hex(), entry.call), []).append(entry.commitment)
    return found
