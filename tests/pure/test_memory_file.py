# SPDX-License-Identifier: Apache-2.0
"""What a party remembers of its models is there after a restart, a crash, a full disk; and is used by one at a time."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure.masking_kit import context_of, identities, manifest_of, plain_values, session

from fedray.errors import PlanError, ProtocolError
from fedray.party.keys import memory_file
from fedray.party.keys.memory_file import MemoryFile
from fedray.protocol.memory import ModelMemory, Served, SetUp

MANIFEST = manifest_of(2)
MODEL = b"m" * 32
ZEROS = plain_values(np.zeros(2))
FOUR = ("alice", "bob", "carol", "dave")
THREE = FOUR[:3]


def opened(path: Path) -> MemoryFile:
    return MemoryFile(path, "alice", patience=0.0)


def used(memory: ModelMemory, members: tuple[str, ...], session: bytes = b"s1", model: bytes = MODEL) -> None:
    memory.check(session, model, "train", members, 1)
    memory.record(session, model, "train", members)


def test_other_parties_on_the_same_model_are_refused_after_a_restart(tmp_path: Path) -> None:
    """The protocol's own rounds, with a memory on disk at one party only."""
    keys = identities(4)
    kept = MemoryFile(tmp_path / "models.log", "p00")
    before = session(4, keys=keys, memories={"p00": kept.memory})
    for name in before.names:
        before.send(name, context_of(0, MANIFEST, MODEL), ZEROS)
    kept.close()

    again = MemoryFile(tmp_path / "models.log", "p00")
    three = {name: keys[name] for name in before.names[:3]}
    after = session(3, keys=three, memories={"p00": again.memory})
    with pytest.raises(ProtocolError, match=r"p00: this model was already summed over .*'p03'.* another random_seed"):
        after.send("p00", context_of(0, MANIFEST, MODEL), ZEROS)
    after.send("p01", context_of(0, MANIFEST, MODEL), ZEROS)  # whose memory ended with its process
    after.send("p00", context_of(1, MANIFEST, b"n" * 32), ZEROS)
    again.close()


def test_the_same_parties_may_repeat_a_run_after_a_restart(tmp_path: Path) -> None:
    for number in range(3):
        file = opened(tmp_path / "models.log")
        used(file.memory, FOUR, session=bytes([number]))
        file.close()
    assert len((tmp_path / "models.log").read_bytes().splitlines()) == 2, "the members, and the model with them"


def test_a_memory_that_is_not_kept_lets_the_difference_through(tmp_path: Path) -> None:
    """The broken variant: what a process without a folder remembers ends with it."""
    used(ModelMemory(), FOUR)
    used(ModelMemory(), THREE, session=b"s2")
    file = opened(tmp_path / "models.log")
    used(file.memory, FOUR)
    file.close()
    file = opened(tmp_path / "models.log")
    with pytest.raises(ProtocolError, match="already summed over"):
        used(file.memory, THREE, session=b"s2")
    file.close()


def test_unfinished_set_ups_are_counted_over_restarts(tmp_path: Path) -> None:
    for _ in range(2):
        file = opened(tmp_path / "models.log")
        file.memory.begin(b"roster", 3)
        file.close()
    file = opened(tmp_path / "models.log")
    file.memory.begin(b"roster", 3)
    file.memory.finish(b"roster")
    file.memory.begin(b"roster", 3)
    with pytest.raises(ProtocolError, match="3 set-ups with this roster were started and not finished"):
        file.memory.begin(b"roster", 3)
    file.close()


def memos_of(path: Path) -> list[object]:
    """Returns what a file holds, as a memory is told it."""
    kept: list[object] = []
    original = memory_file.ModelMemory
    try:
        memory_file.ModelMemory = lambda memos, store: kept.extend(memos) or original(memos, store)
        opened(path).close()
    finally:
        memory_file.ModelMemory = original
    return kept


NAMES = st.text(min_size=1, max_size=5)
MEMOS = st.one_of(
    st.builds(Served, st.binary(min_size=32, max_size=32), st.lists(NAMES, max_size=3).map(tuple)),
    st.builds(SetUp, st.binary(min_size=32, max_size=32), st.sampled_from(["begun", "finished"])),
)


@given(memos=st.lists(MEMOS, max_size=8), data=st.data())
def test_whatever_was_written_comes_back_and_a_cut_off_end_is_dropped(tmp_path_factory, memos, data) -> None:
    path = tmp_path_factory.mktemp("memory") / "models.log"
    ends = [0]
    file = opened(path)
    for memo in memos:
        file._append(memo)
        ends.append(path.stat().st_size)
    file.close()
    assert memos_of(path) == memos
    cut = data.draw(st.integers(0, ends[-1]))
    with path.open("rb+") as content:
        content.truncate(cut)
    whole = max(number for number, end in enumerate(ends) if end <= cut)
    assert memos_of(path) == memos[:whole]
    file = opened(path)
    file._append(Served(MODEL, ("after",)))
    file.close()
    assert memos_of(path) == [*memos[:whole], Served(MODEL, ("after",))]


def test_damage_before_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.log"
    file = opened(path)
    for number in range(3):
        used(file.memory, FOUR, model=bytes([number]) * 32)
    file.close()
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for place in range(len(content) - 1):
        if content[place : place + 1] == b"\n":
            continue
        changed = bytes([content[place] ^ 1])
        path.write_bytes(content[:place] + (b"?" if changed == b"\n" else changed) + content[place + 1 :])
        with pytest.raises(PlanError, match=r"party 'alice': line \d of .*models.log is damaged"):
            opened(path)
    for first in range(len(lines)):
        refused = [[*lines[:first], *lines[first + 1 :]]] if first < len(lines) - 1 else []  # the last: see below
        refused += [[*lines[: first + 1], *lines[first:]]]
        for second in range(first):
            swapped = list(lines)
            swapped[first], swapped[second] = lines[second], lines[first]
            refused.append(swapped)
        for wrong in refused:
            path.write_bytes(b"".join(wrong))
            with pytest.raises(PlanError, match=r"line \d of .* is damaged"):
                opened(path)
    path.write_bytes(content)
    with pytest.raises(PlanError, match=r"party 'bob': line 1 of .* is damaged"):
        MemoryFile(path, "bob", patience=0.0)
    opened(path).close()
    path.write_bytes(b"".join(lines[:-1]))
    opened(path).close()  # as SECURITY.md says: whole lines that are missing at the end alone are not found


def test_lines_that_are_not_chained_would_hide_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken variant: each line with a hash of itself, so that the file allows what it refused."""

    def alone(_chain: object, body: bytes) -> bytes:
        return hashlib.sha256(body).hexdigest()[:32].encode()

    monkeypatch.setattr(memory_file._Chain, "mark", alone)
    path = tmp_path / "models.log"
    file = opened(path)
    used(file.memory, THREE, model=b"x" * 32)
    used(file.memory, FOUR)
    file.memory.begin(b"roster", 3)
    file.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if MODEL.hex().encode() not in line))
    file = opened(path)
    used(file.memory, THREE, session=b"s2")
    file.close()


def test_what_cannot_be_written_does_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "models.log"
    file = opened(path)
    kit = session(3, keys=identities(3), memories={"p00": file.memory})

    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory_file.os, "write", full)
    with pytest.raises(ProtocolError, match=r"cannot write to .*models.log \(.*No space left.*so nothing was sent"):
        kit.send("p00", context_of(0, MANIFEST, MODEL), ZEROS)
    monkeypatch.undo()
    with pytest.raises(ProtocolError, match="cannot write"):
        kit.send("p00", context_of(1, MANIFEST, MODEL), ZEROS)
    assert path.read_bytes() == b""


def test_a_line_written_in_part_ends_the_use_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "models.log", os.write
    file = opened(path)
    monkeypatch.setattr(memory_file.os, "write", lambda descriptor, content: write(descriptor, content[:-5]))
    with pytest.raises(ProtocolError, match="bytes were written"):
        used(file.memory, FOUR)
    monkeypatch.undo()
    with pytest.raises(ProtocolError, match="cannot write"):
        used(file.memory, FOUR)
    mended = opened(path)
    used(mended.memory, THREE)
    mended.close()
    assert memos_of(path) == [Served(MODEL, THREE)]


def hold(path: str) -> None:
    """Uses the file until told to crash."""
    file = MemoryFile(Path(path), "alice")
    used(file.memory, FOUR)
    print("holding", flush=True)
    sys.stdin.readline()
    os._exit(1)


def test_one_process_at_a_time_and_a_crash_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "models.log"
    source = f"from pure.test_memory_file import hold; hold({str(path)!r})"
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    with subprocess.Popen(
        [sys.executable, "-c", source],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "holding\n"
            with pytest.raises(PlanError, match=r"party 'alice': another process uses .*models.log; one identity"):
                opened(path)
            assert other.stdin is not None
            print("crash", file=other.stdin, flush=True)
            file = MemoryFile(path, "alice", patience=60.0)
            with pytest.raises(ProtocolError, match="already summed over"):
                used(file.memory, THREE, session=b"s2")
            file.close()
        finally:
            other.kill()


def test_the_file_is_its_owner_s(tmp_path: Path) -> None:
    path = tmp_path / "models.log"
    opened(path).close()
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o640)
    with pytest.raises(PlanError, match=r"models.log has mode 640: other users may read or write it"):
        opened(path)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for there in (False, True):
        (tmp_path / "models.log").symlink_to(victim)
        with pytest.raises(PlanError, match=r"models.log is a link"):
            opened(tmp_path / "models.log")
        assert victim.exists() == there
        (tmp_path / "models.log").unlink()
        victim.touch()
