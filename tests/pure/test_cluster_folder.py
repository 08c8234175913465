# SPDX-License-Identifier: Apache-2.0
"""What a killed program's cluster has left behind goes at the next start, and nothing else does."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pure.forks_kit import Forks

from fedray.runtime import cluster_folder, leftovers
from fedray.runtime.cluster_folder import ClusterFolder, sweep

MARK = "0123456789abcdef"


@pytest.fixture
def above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder in which those of clusters are made."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path


DIES = """
import os, time
from fedray.runtime import cluster_folder

if not watched:
    cluster_folder.watch = lambda path: None
cluster_folder.ClusterFolder(mark)
reading, writing = os.pipe()
left = os.fork() if fork else 0
if fork and left == 0:
    os.write(writing, b".")
    time.sleep(600)
if fork:
    os.read(reading, 1)  # until the fork has done what it does as it begins
print(left, flush=True)
os._exit(0)
"""


@pytest.fixture
def killed(above: Path, forks: Forks) -> Callable[..., int]:
    """Returns a function that makes a folder in a process that ends without tidying up.

    It returns the number of a fork that the process left, or 0.
    """

    def killed(*, watched: bool = False, fork: bool = False) -> int:
        given = {"mark": MARK, "watched": watched, "fork": fork}
        ran = forks.run(DIES, given, {"RAY_TMPDIR": str(above)})
        assert ran.code == 0, ran.stderr
        return int(ran.stdout)

    return killed


def test_a_folder_that_is_held_stays_and_goes_with_its_owner(above: Path) -> None:
    folder = ClusterFolder(MARK)
    sweep()
    assert [str(path) for path in above.iterdir()] == [folder.path]
    folder.remove()
    assert list(above.iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_what_a_killed_program_left_is_swept(above: Path, killed: Callable[..., int]) -> None:
    killed()
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
def test_what_a_killed_program_left_goes_by_itself(above: Path, killed: Callable[..., int]) -> None:
    agent = subprocess.Popen(["sleep", "600"], env=os.environ | {leftovers.MARK: MARK})
    try:
        killed(watched=True)
        assert agent.wait(30) == -9
        deadline = time.monotonic() + 30
        while list(above.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert list(above.iterdir()) == []
    finally:
        agent.kill()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_process_that_has_lost_its_mark_is_known_by_its_files(above: Path, killed: Callable[..., int]) -> None:
    """As Ray's agents do now and then, whose name is written over the variables; by the mark alone they stayed."""
    killed()
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


def test_a_fork_does_not_hold_what_its_parent_left(above: Path, killed: Callable[..., int]) -> None:
    fork = killed(fork=True)
    try:
        sweep()
        assert list(above.iterdir()) == []
    finally:
        os.kill(fork, signal.SIGKILL)


def test_what_is_not_known_to_be_left_stays(
    above: Path, killed: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
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
    killed()
    with monkeypatch.context() as patch:
        patch.setattr(cluster_folder.os, "geteuid", lambda: os.getuid() + 1)
        sweep()
    assert len(list(above.iterdir())) == 6
    sweep()
    assert sorted(above.rglob("*")) == before
