# SPDX-License-Identifier: Apache-2.0
"""Programs run on a value in another process, which knows nothing of this one.

One interpreter has imported what opens a parcel and nothing else; every program runs in a fork of it, in a hundredth of
the time that an interpreter of its own would take.
"""

import pickle
import subprocess
import sys

from fedray.party.parcel import pack

SERVE = """
import inspect, os, pickle, sys, tempfile, traceback
import fedray.party.parcel

def run(parcel, program):
    names = {"__name__": "__main__", "inspect": inspect, "pickle": pickle, "sys": sys, "traceback": traceback}
    try:
        names["value"] = pickle.loads(parcel).open()
        exec(program, names)
        return 0
    except BaseException:
        traceback.print_exc()
        return 1

def answer(parcel, program):
    shown = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
    child = os.fork()
    if child == 0:
        for number, file in enumerate(shown, 1):
            os.dup2(file.fileno(), number)
        code = run(parcel, program)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, *(os.pread(file.fileno(), 1 << 30, 0).decode() for file in shown)

while (request := pickle.load(sys.stdin.buffer)) is not None:
    pickle.dump(answer(*request), sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


class Elsewhere:
    """The other interpreter. Call it with a value and a program that reads `value`; it returns what that prints."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )

    def __call__(self, value: object, program: str, fails: bool = False) -> str:
        self._send((pickle.dumps(pack(value)), program))
        code, printed, error = pickle.load(self._process.stdout)
        assert (code != 0) == fails, error
        return error if fails else printed

    def close(self) -> None:
        self._send(None)
        self._process.communicate(timeout=60)

    def _send(self, request: object) -> None:
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
