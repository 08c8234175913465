# SPDX-License-Identifier: Apache-2.0
"""Programs in processes of their own, and what they leave behind; and commands in this one."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.commands import Fedray, run_here

import fedray as sf

_TAG = "FEDRAY_TEST"


class Program:
    """A running Python program whose every descendant can be found."""

    def __init__(self, source: str, folder: Path, **variables: str) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        path = folder / f"program_{uuid.uuid4().hex[:6]}.py"
        path.write_text(source)
        self._tag = uuid.uuid4().hex
        self.files = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))  # short: Ray puts sockets in there
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "FEDRAY_", "OMP_", "TF_"))}
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kept | {"HOME": str(self.home), _TAG: self._tag, "RAY_TMPDIR": str(self.files)} | variables,
            start_new_session=True,
        )

    def finish(self, seconds: float = 120) -> tuple[int, str, str]:
        """Waits for the end; returns exit code, stdout, stderr."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def read_line(self) -> str:
        """Waits for the next line on stdout."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        """Writes a line to stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Does what Ctrl-C does: everything in the foreground gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def left(self, seconds: float = 30) -> list[str]:
        """Returns the command lines of descendants that are alive after at most `seconds`, and files they left."""
        deadline = time.monotonic() + seconds
        while (found := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return list(found.values()) + [str(path) for path in self.files.iterdir()]

    def _alive(self) -> dict[int, str]:
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"{_TAG}={self._tag}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")[:200]
            except OSError:
                continue
        return found

    def end(self) -> None:
        """Ends whatever is left."""
        for pid in self._alive():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        shutil.rmtree(self.files)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Returns a function that starts a program; what is left of it ends with the test."""
    started: list[Program] = []

    def begin(source: str, **variables: str) -> Program:
        started.append(Program(source, tmp_path / str(len(started)), **variables))
        return started[-1]

    yield begin
    for each in started:
        each.end()


@pytest.fixture
def fedray(monkeypatch: pytest.MonkeyPatch) -> Fedray:
    """Returns a function that runs a command here, where no party can be started."""
    monkeypatch.setattr(sf, "init", lambda *_, **__: pytest.fail("no party is needed for this"))
    return run_here
