# SPDX-License-Identifier: Apache-2.0
"""What a killed program's cluster has left behind goes at the next start, and nothing else does."""

import os
import signal
import subprocess
import time
import warnings
from pathlib import Path

import pytest

from fedray.runtime import cluster_folder, leftovers
from fedray.runtime.cluster_folder import ClusterFolder, sweep

MARK = "0123456789abcdef"


@pytest.fixture
def above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder in which those of clusters are made."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path


def killed(mark: str, *, watched: bool = False, fork: bool = False) -> int:
    """Makes a folder in a process that ends without tidying up; returns the number of a fork that it left, or 0."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside threads
        child = os.fork()
    if child == 0:
        if not watched:
            cluster_folder.watch = lambda _path: None  # type: ignore[assignment, return-value]
        ClusterFolder(mark)
        left = os.fork() if fork else 1
        if left == 0:
            time.sleep(600)
        os.write(writing, str(left if fork else 0).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    told = os.read(reading, 20)
    os.close(reading)
    return int(told)


def test_a_folder_that_is_held_stays_and_goes_with_its_owner(above: Path) -> None:
    folder = ClusterFolder(MARK)
    sweep()
    assert [str(path) for path in above.iterdir()] == [folder.path]
    folder.remove()
    assert list(above.iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_what_a_killed_program_left_is_swept(above: Path) -> None:
    killed(MARK)
    (left,) = above.iterdir()
    (left / "r").mkdir()
    agent = subprocess.Popen(["sleep", "600"], env=os.environ | {leftovers.MARK: MARK})
    try:
        sweep()
        assert agent.wait(10) == -9
        assert list(above.iterdir()) == []
    finally:
        agent.kill()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_what_a_killed_program_left_goes_by_itself(above: Path) -> None:
    agent = subprocess.Popen(["sleep", "600"], env=os.environ | {leftovers.MARK: MARK})
    try:
        killed(MARK, watched=True)
        assert agent.wait(30) == -9
        deadline = time.monotonic() + 30
        while list(above.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert list(above.iterdir()) == []
    finally:
        agent.kill()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_process_that_has_lost_its_mark_is_known_by_its_files(above: Path) -> None:
    """As Ray's agents do now and then, whose name is written over the variables; by the mark alone they stayed."""
    killed(MARK)
    (left,) = above.iterdir()
    agents = []
    for title, folder in (("ray::Agent", left), ("ray::Agent", above), ("Agent", left)):
        with (folder / f"{title}.log").open("w") as log:
            agents.append(subprocess.Popen([title, "600"], executable="/bin/sleep", stdout=log))
    try:
        for agent in agents:
            while not Path(f"/proc/{agent.pid}/cmdline").read_bytes().startswith((b"ray::", b"Agent")):
                time.sleep(0.01)
        sweep()
        assert agents[0].wait(10) == -9
        assert [agent.poll() for agent in agents[1:]] == [None, None]
        assert not left.exists()
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()


def test_a_watch_ends_with_its_folder(above: Path) -> None:
    folder = ClusterFolder(MARK)
    assert folder._watch is not None
    assert folder._watch.poll() is None
    folder.remove()
    assert folder._watch.poll() is not None


def test_a_fork_does_not_hold_what_its_parent_left(above: Path) -> None:
    fork = killed(MARK, fork=True)
    try:
        sweep()
        assert list(above.iterdir()) == []
    finally:
        os.kill(fork, signal.SIGKILL)


def test_what_is_not_known_to_be_left_stays(above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (above / "fedray-older").mkdir()  # without a word of whose it is
    (above / "fedray-begun").mkdir()
    (above / "fedray-begun" / "owner").touch()  # not yet locked
    (above / "fedray-strange").mkdir()
    (above / "fedray-strange" / "owner").write_text("../..")
    (above / "fedray-linked").symlink_to(above / "elsewhere")
    (above / "elsewhere").mkdir()
    (above / "elsewhere" / "owner").write_text(MARK)
    before = sorted(above.rglob("*"))
    sweep()
    assert sorted(above.rglob("*")) == before
    killed(MARK)
    with monkeypatch.context() as patch:
        patch.setattr(cluster_folder.os, "geteuid", lambda: os.getuid() + 1)
        sweep()
    assert len(list(above.iterdir())) == 6
    sweep()
    assert sorted(above.rglob("*")) == before
