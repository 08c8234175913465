# SPDX-License-Identifier: Apache-2.0
"""`fedray runs`: what is kept in a folder that `fit(checkpoint=...)` was given, at the driver. Starts no session.

Exit codes: 0 done, 1 there is no such run, or what it says of itself is damaged.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedray.errors import PlanError

if TYPE_CHECKING:
    from fedray.ml.nn.checkpoints.run_folder import RunFolder


def add_arguments(commands: Any) -> None:
    """Adds `runs` and its options to the command line.

    Args:
        commands: What `argparse` calls the sub-parsers' action.
    """
    runs = commands.add_parser(
        "runs",
        help="list the runs that fit(checkpoint=...) has kept in a folder, or show one",
        description="Lists the runs in a folder: when, how far, joint metrics, parties. 'fedray runs show DIR/NUMBER' "
        "shows one with its experiment and its checkpoints. A folder called 'show' is './show'.",
        usage="%(prog)s [-h] [--json] DIR | show DIR/NUMBER",
    )
    runs.add_argument("words", nargs="+", metavar="DIR", help="the folder; after 'show', one run in it")
    runs.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(options: argparse.Namespace) -> int:
    """Lists or shows, and returns the exit code.

    Raises:
        PlanError: There is no such run, or its own record is damaged.
    """
    words = options.words
    shows = words[0] == "show" and len(words) == 2
    if not shows and len(words) != 1:
        raise PlanError("runs: expected a folder, or 'show' and the folder of one run")
    return _show(Path(words[1]), options.json) if shows else _list(Path(words[0]), options.json)


def _list(path: Path, as_json: bool) -> int:
    from fedray.ml.nn.checkpoints.run_folder import RunFolder

    if not path.is_dir():
        raise PlanError(f"runs: there is no folder {str(path)!r}; name the one that fit(checkpoint=...) was given")
    found = [_summary(one) for one in RunFolder.all(path)]
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print(f"{path} holds no run{_hint(path)}")
    for one in found:
        print(
            f"{one['run']}  begun {one['started']}  {one['state']}, epoch {one['epoch']} of {one['epochs']}  "
            f"{_figures(one['metrics'])}  {', '.join(one['parties'])}"
        )
    return 0


def _hint(path: Path) -> str:
    """Returns what may have been meant in place of a folder in which there is no run, or which is none."""
    if (path / "run.json").is_file():
        return f", it is one; 'fedray runs show {path}' shows it"
    below = sorted({one.parent.parent for one in [*path.glob("*/run.json"), *path.glob("*/*/run.json")]})
    return f"; 'fedray runs {below[0]}' lists those in there" if below else ""


def _show(path: Path, as_json: bool) -> int:
    from fedray.ml.nn.checkpoints.run_folder import RunFolder

    if not (path / "run.json").is_file():
        raise PlanError(f"runs: {str(path)!r} is no run{_hint(path) or '; name one as DIR/0001'}")
    kept = RunFolder.at(path)
    good, torn = kept.whole()
    checkpoints = [kept.record(number) for number in good]
    said = _summary(kept) | {
        "experiment": kept.run["experiment"],
        "hash": kept.run["hash"],
        "versions": kept.run["versions"],
        "checkpoints": checkpoints,
        "damaged": torn,
    }
    if as_json:
        print(json.dumps(said, indent=2))
        return 1 if torn else 0
    print(f"run {said['run']} of {', '.join(said['parties'])}: begun {said['started']}, {said['state']}")
    for name in ("experiment", "versions"):
        print(f"{name}:")
        print("\n".join(f"  {key}: {json.dumps(value)}" for key, value in said[name].items()))
    for one in checkpoints:
        part = f", after {one['segments']} parts of it" if one["segments"] else ""
        place = "at the end" if one["epoch"] == said["epochs"] else f"before epoch {one['epoch'] + 1}{part}"
        print(f"checkpoint {one['number']}: {one['time']}, {place}; {_figures(one['metrics']) or 'no metrics yet'}")
        print(f"  parts at {', '.join(one['parties'])}")
    for text in torn:
        print(f"damaged: {text}")
    return 1 if torn else 0


def _summary(kept: RunFolder) -> dict[str, Any]:
    """Returns what a line of the list says of a run."""
    good, _ = kept.whole()
    last = kept.record(good[-1]) if good else {"epoch": 0, "metrics": {}, "time": None, "parties": kept.run["parties"]}
    return {
        "run": kept.folder.name,
        "started": kept.run["started"],
        "finished": kept.run["finished"],
        "state": "finished" if kept.run["finished"] else "unfinished",
        "epoch": last["epoch"],
        "epochs": kept.run["epochs"],
        "metrics": last["metrics"],
        "last checkpoint": last["time"],
        "parties": kept.run["parties"],
    }


def _figures(metrics: dict[str, Any]) -> str:
    return " ".join(
        f"{name}:{value:.4f}" if isinstance(value, float) else f"{name}:..." for name, value in metrics.items()
    )
