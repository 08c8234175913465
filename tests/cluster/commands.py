# SPDX-License-Identifier: Apache-2.0
"""The command line, in a process of its own or in this one."""

import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from fedray.commands.cli import main

COMMAND = [sys.executable, "-m", "fedray"]
SMALL = ["demo", "--train-samples", "1024", "--epochs", "1"]


@dataclass
class Done:
    """How a command went."""

    returncode: int
    stdout: str
    stderr: str


Fedray = Callable[..., Done]


def run_here(*arguments: str) -> Done:
    """Runs a command in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())
