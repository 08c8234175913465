# SPDX-License-Identifier: Apache-2.0
"""Variables are set for a while and put back; descendants of a cluster are found by their mark."""

import os
import subprocess
import sys

import pytest

from fedray.runtime import environment
from fedray.runtime.environment import Environment


def test_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("FEDRAY_A", "before")
    monkeypatch.delenv("FEDRAY_B", raising=False)
    changed = Environment()
    changed.set({"FEDRAY_A": "1", "FEDRAY_B": "2"})
    changed.set({"FEDRAY_A": "3"})
    assert (os.environ["FEDRAY_A"], os.environ["FEDRAY_B"]) == ("3", "2")
    changed.restore(["FEDRAY_B"])
    assert (os.environ["FEDRAY_A"], os.environ.get("FEDRAY_B")) == ("3", None)
    changed.keep("FEDRAY_B")
    os.environ["FEDRAY_B"] = "somebody else's"
    changed.restore()
    assert (os.environ["FEDRAY_A"], os.environ.get("FEDRAY_B")) == ("before", None)
    changed.restore()


def test_a_users_own_choices_stand(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    ours = environment.authentication()
    assert ours["RAY_AUTH_MODE"] == "token"
    assert len(ours["RAY_AUTH_TOKEN"]) == 64
    assert environment.authentication() == ours
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert environment.authentication() == {}
    monkeypatch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", "mine")
    assert environment.importing() == {}
    monkeypatch.setenv("RAY_TMPDIR", str(os.getcwd()))
    assert environment.short_folder() == os.getcwd()
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    assert environment.short_folder() is None


def marked(mark: str, code: str) -> subprocess.Popen:
    """Returns a process with a mark that has started to run its code."""
    variables = os.environ | environment.services(mark)
    program = [sys.executable, "-c", f"print(1, flush=True); {code}"]
    child = subprocess.Popen(program, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    return child


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_marked_processes_are_found():
    child = marked("mark-of-this-test", "input()")
    assert environment.processes("mark-of-this-test") == [child.pid]
    assert environment.processes("mark-of-this-tes") == []
    child.communicate(b"\n")
    assert environment.processes("mark-of-this-test") == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize(("code", "peace", "ended"), [("import time; time.sleep(0.3)", 30.0, 0), ("input()", 0.2, -9)])
def test_marked_processes_end_in_peace_or_by_force(monkeypatch, code, peace, ended):
    monkeypatch.setattr(environment, "_PEACE_SECONDS", peace)
    monkeypatch.setattr(environment, "_GIVE_UP_SECONDS", 60.0)
    child = marked(f"mark-of-{ended}", code)
    environment.end_processes(f"mark-of-{ended}")
    assert child.wait(10) == ended
