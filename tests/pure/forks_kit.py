# SPDX-License-Identifier: Apache-2.0
"""Programs that run in a fork of a process which is not pytest's.

One interpreter has imported fedray and nothing else; every program runs in a fork of it, in a hundredth of the time
that an interpreter of its own would take. pytest's own process is none to fork: other tests have left threads in it,
which may hold a lock at that moment, and libraries such as JAX warn of that.
"""

import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

SERVE = """
import fcntl, os, pickle, signal, sys, tempfile, traceback
import fedray.party.party

def run(program, given, environment, ends):
    for number, end in enumerate(ends, 1):
        os.dup2(end, number)
        os.close(end)
    signal.alarm(60)
    os.environ.update(environment)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    try:
        exec(program, {"__name__": "__main__"} | given)
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def file():
    made = tempfile.TemporaryFile()
    fcntl.fcntl(made, fcntl.F_SETFL, os.O_APPEND)  # as two processes' output to one file has to be
    return made.fileno(), made

def pipe():
    reading, writing = os.pipe()
    return writing, os.fdopen(reading, "rb")

def answer(program, given, environment, piped):
    ends, shown = zip(*[pipe() if piped else file() for _ in range(2)])
    child = os.fork()
    if child == 0:
        run(program, given, environment, ends)
    said = []
    if piped:
        for end in ends:
            os.close(end)
        said = [end.read() for end in shown]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not piped:
        said = [os.pread(end, 1 << 30, 0) for end in ends]
    return code, *said

while (request := pickle.load(sys.stdin.buffer)) is not None:
    pickle.dump(answer(*request), sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


class Ran(NamedTuple):
    """How a program ended, and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes


class Forks:
    """The interpreter that is forked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )

    def run(
        self,
        program: str,
        given: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        piped: bool = False,
    ) -> Ran:
        """Runs a program to its end, which comes within 60 s.

        Args:
            program: Its source.
            given: Names that it knows.
            environment: Variables that it has beside those of this process.
            piped: Whether it prints into pipes; else into files.
        """
        self._send((program, dict(given or {}), dict(environment or {}), piped))
        return Ran(*pickle.load(self._process.stdout))

    def close(self) -> None:
        self._send(None)
        self._process.communicate(timeout=60)

    def _send(self, request: object) -> None:
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
