# SPDX-License-Identifier: Apache-2.0
"""Variables are set for a while and put back; descendants of a cluster are found by their mark."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from intruder import as_root, reached

from fedray.errors import PlanError
from fedray.runtime import environment, leftovers
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
    assert leftovers.processes("mark-of-this-test", "/nowhere") == [child.pid]
    assert leftovers.processes("mark-of-this-tes", "/nowhere") == []
    child.communicate(b"\n")
    assert leftovers.processes("mark-of-this-test", "/nowhere") == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize(("code", "peace", "ended"), [("import time; time.sleep(0.3)", 30.0, 0), ("input()", 0.2, -9)])
def test_marked_processes_end_in_peace_or_by_force(monkeypatch, code, peace, ended):
    monkeypatch.setattr(leftovers, "_PEACE_SECONDS", peace)
    monkeypatch.setattr(leftovers, "_GIVE_UP_SECONDS", 60.0)
    child = marked(f"mark-of-{ended}", code)
    leftovers.end_processes(f"mark-of-{ended}", "/nowhere")
    assert child.wait(10) == ended


def test_breakpoint_is_an_error_at_once(monkeypatch):
    monkeypatch.setenv("PYTHONBREAKPOINT", environment.debugging()["PYTHONBREAKPOINT"])
    with pytest.raises(PlanError, match="use address='inline' to debug"):
        sys.__breakpointhook__()


@pytest.fixture
def below():
    """Returns a folder as Ray makes it, open to everybody, with a file and a socket in it, and ours around it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as reachable:  # as pytest's own folders are not
        inner = Path(reachable) / "ours" / "r"
        inner.mkdir(parents=True)
        for place in (Path(reachable), inner.parent, inner):
            place.chmod(0o777)
        (inner / "log").write_text("a secret")
        (inner / "log").chmod(0o644)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(inner / "socket"))
            (inner / "socket").chmod(0o777)
            listener.listen()
            yield inner


def test_a_folder_that_others_could_put_another_in_the_place_of_is_told(tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    for mode in (0o700, 0o1777):
        tmp_path.chmod(mode)
        assert Path(environment.private_folder()).stat().st_mode & 0o777 == 0o700
    assert not recwarn
    tmp_path.chmod(0o777)
    with pytest.warns(UserWarning, match=r"mode 777: other users may put files into it.* set RAY_TMPDIR"):
        environment.private_folder()


@as_root
@pytest.mark.parametrize("mode", [0o700, 0o777], ids=["private", "broken: open"])
def test_a_private_folder_keeps_other_users_from_all_below(below, mode):
    below.parent.chmod(mode)
    found = {line.split()[0] for line in reached([below, below / "log", below / "socket"])}
    assert found == (set() if mode == 0o700 else {"list", "plant", "connect", "read", "move"})
