# SPDX-License-Identifier: Apache-2.0
"""The command line: each command has a module of its own beside this one, but for the demo's options, which are here.

Exit codes: 0 done, 1 failed (for `ledger`: the file is not as the parties signed it), 2 wrong usage, 130 interrupted,
141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from fedray import __version__
from fedray.commands import doctor as doctor_commands
from fedray.commands import keys as key_commands
from fedray.commands import ledger as ledger_commands
from fedray.commands import nodes as node_commands
from fedray.commands import replay as replay_commands
from fedray.commands import runs as run_commands
from fedray.commands import streams
from fedray.commands import tls as tls_commands
from fedray.errors import FedRayError, PlanError

_IMPATIENCE_SECONDS = 15.0  # in which a second Ctrl-C is ignored; ending every party takes a few


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        arguments: The command line without the program's name; None takes that of the process.
    """
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGINT, _Interrupt())
    try:
        code = _COMMANDS[options.command](options)
        streams.finish()
        return code
    # 130 is what shells give a program that ended by Ctrl-C.
    except KeyboardInterrupt:
        # All is done: pressed once more while Python ends, where no handler is called, it would end it by the signal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("fedray: interrupted; every party has been stopped", file=sys.stderr)
        return 130
    except (FedRayError, OSError) as error:
        # `fedray ledger FILE | head` is no mistake; a connection of Ray's that breaks is one.
        unread = isinstance(error, BrokenPipeError) and streams.unread()
        streams.drop()
        if unread:
            return streams.PIPE_CODE
        print(f"fedray: {_in_words(error)}", file=sys.stderr)
        return 1


def _in_words(error: Exception) -> str:
    """Returns what an error says, without the number that the system has for it."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


class _Interrupt:
    """Ctrl-C: the first press interrupts; those that follow it at once would only interrupt the clean-up."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (what `signal` calls it with)
        if time.monotonic() - self._last > _IMPATIENCE_SECONDS:
            self._last = time.monotonic()
            raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    """Takes options by their full names: an abbreviation means something else once there is another option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fedray", description="Federated learning: one process per party, sums that open and nothing else."
    )
    parser.add_argument("--version", action="version", version=f"fedray {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train MNIST with several parties on this machine, against one party alone",
        description="Trains a small CNN on MNIST with several parties, each a process of its own with its own images, "
        "and a server, charlie, that sums their updates after every batch. Then one party trains the same model alone, "
        "and both are compared on the same 10,000 test images. Needs no network: MNIST is included.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--epochs", type=int, default=3, metavar="N", help="passes over the training images")
    demo.add_argument(
        "--parties", type=int, default=2, metavar="N", help="data parties, 2 to 10: alice, bob, carol, ..."
    )
    demo.add_argument(
        "--aggregator",
        choices=("secure", "plain"),
        default="secure",
        help="secure: the server opens the sum only; plain: it sees every update",
    )
    demo.add_argument(
        "--backend",
        choices=("tensorflow", "torch"),
        default="tensorflow",
        help="framework of the CNN; torch: with pip install 'fedray[torch]'",
    )
    demo.add_argument(
        "--train-samples", type=int, default=60_000, metavar="N", help="training images, shared out evenly"
    )
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same figures")
    demo.add_argument(
        "--plot", type=Path, default=argparse.SUPPRESS, metavar="FILE.png", help="write a picture of both curves"
    )
    demo.add_argument(
        "--ledger",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="keep the signed record of what left each party, for 'fedray ledger FILE --verify'",
    )
    demo.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON only")
    ledger_commands.add_arguments(commands)
    key_commands.add_arguments(commands)
    run_commands.add_arguments(commands)
    replay_commands.add_arguments(commands)
    tls_commands.add_arguments(commands)
    node_commands.add_arguments(commands)
    doctor_commands.add_arguments(commands)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from fedray.commands import demo, demo_report  # only here: `fedray ledger` needs no session

    as_json = getattr(options, "json", False)
    picture, record = getattr(options, "plot", None), getattr(options, "ledger", None)
    # With --json, stdout holds the result and nothing else, so that it can be piped on.
    stage = sys.stderr if as_json else sys.stdout
    try:
        settings = demo.Settings(
            options.epochs,
            options.parties,
            options.aggregator,
            options.train_samples,
            options.seed,
            stage.isatty(),
            options.backend,
        )
        if picture is not None:
            demo_report.check_plot(picture)
        if record is not None:
            streams.check_writable("ledger", record)
    except PlanError as error:
        print(f"fedray demo: --{error}", file=sys.stderr)
        return 2
    # The bars of `fit` go to stdout by themselves.
    with contextlib.redirect_stdout(stage):
        print(demo_report.opening(settings), flush=True)
        result = demo.run(settings, lambda line: print(line, flush=True))
        print(f"\n{demo_report.report(result)}", flush=True)
        if picture is not None:
            demo_report.plot(result, picture)
            print(f"\nwrote {picture}")
        if record is not None:
            result.ledger.save(record)
            print(f"\nwrote {record}; roster fingerprint {ledger_commands.fingerprint(result.ledger.roster)}")
    if as_json:
        print(json.dumps(demo_report.as_json(result)), flush=True)
    return 0


_COMMANDS = {
    "demo": _demo,
    "ledger": ledger_commands.run,
    "keys": key_commands.run,
    "runs": run_commands.run,
    "replay": replay_commands.run,
    "tls": tls_commands.run,
    "doctor": doctor_commands.run,
    **dict.fromkeys(("head", "party", "status", "stop"), node_commands.run),
}
