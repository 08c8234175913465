# SPDX-License-Identifier: Apache-2.0
"""A party that is lost for want of memory is told as such, from what the system counts and Ray says."""

from pathlib import Path

import pytest

from fedray.errors import PartyLost
from fedray.runtime.environment import services
from fedray.runtime.memory import MemoryWatch, blamed
from fedray.runtime.ray_errors import translate

WHERE = {
    "unified": ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.events"),
    "by kind": ("8:pids:/\n4:memory:/c\n0::/\n", "sys/fs/cgroup/memory/c/memory.oom_control"),
    "no groups": ("", "proc/vmstat"),
}


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("kind", WHERE)
def test_what_the_system_counts(tmp_path: Path, kind: str) -> None:
    groups, file = WHERE[kind]
    assert MemoryWatch(tmp_path).since() == 0
    write(tmp_path / "proc/self/cgroup", groups)
    write(tmp_path / "proc/vmstat", "oom_kill 70\n")
    write(tmp_path / file, "low 0\noom_kill 7\n")
    watch = MemoryWatch(tmp_path)
    assert watch.since() == 0
    write(tmp_path / file, "low 0\noom_kill 9\n")
    assert watch.since() == 2


class ActorDiedError(Exception):
    """Stands for Ray's."""


def test_a_lost_party_says_that_it_was_memory() -> None:
    lost = translate(ActorDiedError("The actor died.\nadvice"), "bob", "run", 1)
    assert type(lost) is PartyLost
    assert str(lost).startswith(
        "party 'bob' has ended or cannot be reached (run): since the session began this machine"
    )
    assert "1 process for want of memory, most likely this one; give it fewer rows" in str(lost)
    assert "memory" not in str(translate(ActorDiedError("The actor died."), "bob", "run", 0))
    by_ray = translate(ActorDiedError("The actor died.\nThe node was running low on memory."), "bob", "run")
    assert "Ray has ended it for want of memory on its machine" in str(by_ray)
    assert blamed("anything", 2).count("2 processes") == 1


def test_ray_itself_ends_nobody() -> None:
    assert services("mark")["RAY_memory_monitor_refresh_ms"] == "0"
