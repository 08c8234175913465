# SPDX-License-Identifier: Apache-2.0
"""Another user of the machine, who tries to get at files, folders and sockets. Needs root, to become that user."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

NOBODY = 65534

# All attempts of one process: it has given up every right that root has.
_PROGRAM = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
def plant(path):
    os.symlink("/etc/passwd", path + "/planted")
def connect(path):
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
def move(path):
    os.rename(path, path + "-")
attempts = {"list": os.listdir, "plant": plant, "connect": connect, "move": move,
            "read": lambda path: open(path, "rb").close(), "write": lambda path: open(path, "ab").close()}
paths = sys.stdin.read().split("\\0")
# Moving comes last, since it takes away what the others would try.
for name, attempt in sorted(attempts.items(), key=lambda pair: pair[0] == "move"):
    for path in paths:
        try:
            attempt(path)
            print(name, path)
        except OSError:
            pass
"""


def reached(paths: Iterable[Path]) -> list[str]:
    """Returns what another user could do, e.g. `"read /tmp/x"`, to any of these paths."""
    given = "\0".join(map(str, paths))
    command = [sys.executable, "-I", "-c", _PROGRAM, str(NOBODY)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
