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


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_marked_processes_are_found():
    child = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"],
        env=os.environ | environment.services("mark-of-this-test"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    child.stdout.readline()
    assert environment.processes("mark-of-this-test") == [child.pid]
    assert environment.processes("mark-of-this-tes") == []
    child.communicate(b"\n")
    assert environment.processes("mark-of-this-test") == []
