# SPDX-License-Identifier: Apache-2.0
"""What keeps Ray from starting for good is named at once, each by its own sentence, and not tried again."""

import os
import sys
from pathlib import Path

import pytest

from fedray.errors import PlanError
from fedray.runtime import obstacles
from fedray.runtime.local_cluster import LocalCluster, RayProcess


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps Ray from being imported."""
    monkeypatch.setattr("fedray.runtime.local_cluster.reread_authentication", lambda: None)


def started(error: Exception | None = None) -> list[str]:
    """Starts a cluster whose Ray fails with an error; returns one word for each time that Ray was started."""
    begun: list[str] = []

    def init(*_: object, **__: object) -> None:
        begun.append("init")
        if error is not None:
            raise error

    cluster = LocalCluster(RayProcess(init, lambda: None, lambda: False, list, str))
    try:
        cluster.start({}, 1, show_output=False)
        cluster.stop()
    except PlanError as refused:
        begun.append(str(refused))
    return begun


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (said,) = started()
    assert "the working directory of this program has been deleted" in said


def test_a_path_that_is_too_long_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 60)
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (said,) = started()
    assert "characters for the sockets that Ray keeps in it; set RAY_TMPDIR to a folder with a shorter path" in said
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("number", "name"), [(1, "output"), (2, "error")])
def test_a_stream_that_is_closed(monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> None:
    said = f"the standard {name} of this program is closed.*{number}>/dev/null"
    with monkeypatch.context() as patch:
        # Before Python began: by now another file may have the number.
        patch.setattr(sys, {1: "__stdout__", 2: "__stderr__"}[number], None)
        with pytest.raises(PlanError, match=said):
            obstacles.check_process()
    obstacles.check_process()
    fstat = os.fstat

    def closed(asked: int) -> os.stat_result:
        if asked == number:
            raise OSError(9, "Bad file descriptor")
        return fstat(asked)

    monkeypatch.setattr(obstacles.os, "fstat", closed)
    with pytest.raises(PlanError, match=said):
        obstacles.check_process()


@pytest.mark.parametrize(("error", "tries"), [(PermissionError(13, "no"), 1), (ValueError("bad"), 1), (Exception(), 3)])
def test_only_what_may_pass_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(obstacles, "MOST_PATH", 1000)
    *begun, said = started(error)
    assert begun == ["init"] * tries
    assert ("cannot start" if tries == 1 else "did not start") in said
    assert list(tmp_path.iterdir()) == []
