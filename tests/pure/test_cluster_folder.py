# SPDX-License-Identifier: Apache-2.0
"""What a killed program's cluster has left behind goes at the next start, and nothing else does."""

import os
import subprocess
import warnings
from pathlib import Path

import pytest

from fedray.runtime import cluster_folder, environment
from fedray.runtime.cluster_folder import ClusterFolder, sweep

MARK = "0123456789abcdef"


@pytest.fixture
def above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder in which those of clusters are made."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path


def killed(mark: str) -> None:
    """Makes a folder in a process that ends without tidying up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork beside threads
        child = os.fork()
    if child == 0:
        ClusterFolder(mark)
        os._exit(0)
    os.waitpid(child, 0)


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
    agent = subprocess.Popen(["sleep", "600"], env=os.environ | {environment.MARK: MARK})
    try:
        sweep()
        assert agent.wait(10) == -9
        assert list(above.iterdir()) == []
    finally:
        agent.kill()


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
