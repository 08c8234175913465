# SPDX-License-Identifier: Apache-2.0
"""Who could change a party's key folder: owners, modes and links, of its files and of every folder above it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedray.errors import PlanError
from fedray.party.keys import credentials, key_folder, ledger_log, own_files
from fedray.party.keys.credentials import Credentials
from fedray.party.keys.key_folder import new_identity, read_policy, read_public, written_roster
from fedray.party.keys.own_files import real_folder
from fedray.protocol.policy import Policy
from fedray.types import PartyConfig

NOBODY = 65534
FILES = ("identity.key", "roster.json", "policy.toml", "models.log")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns alice's key folder, two below the test's own, with every file there is."""
    made = tmp_path / "above" / "alice"
    public = new_identity(made, "alice")
    (made / "roster.json").write_bytes(written_roster(dict([read_public(public)])))
    (made / "policy.toml").write_text("least_roster = 5")
    (made / "models.log").touch()
    for name in FILES:
        (made / name).chmod(0o600)
    return made


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Returns what makes a file or link another user's; where only root could, this process becomes another user."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        else:
            here = os.geteuid()
            stat = os.lstat
            monkeypatch.setattr(own_files.os, "geteuid", lambda: here)
            monkeypatch.setattr(own_files.os, "lstat", lambda p: _of(stat(p), Path(p) == path))
            fstat = os.fstat
            inode = stat(path).st_ino
            monkeypatch.setattr(own_files.os, "fstat", lambda d: _of(fstat(d), fstat(d).st_ino == inode))

    return give


def _of(found: os.stat_result, another: bool) -> os.stat_result:
    return os.stat_result((*found[:4], NOBODY, *found[5:])) if another else found


def start(folder: Path) -> Policy:
    """Returns the policy of a party that starts with a folder."""
    own = Credentials.of(PartyConfig("alice", ("alice",), 0, keys=str(folder)), {}, patience=0.0)
    own.close()
    return own.policy


def test_a_folder_of_one_s_own_is_taken(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(folder) == Policy(least_roster=5)
    (tmp_path / "way").symlink_to("above")
    (tmp_path / "way2").symlink_to(tmp_path / "way")
    for path in (folder, tmp_path / "way" / "alice", tmp_path / "way2" / ".." / "above" / "alice"):
        assert real_folder(path) == folder.resolve(), "the way may lead over links of one's own"
        assert start(path) == Policy(least_roster=5)
    monkeypatch.chdir(tmp_path)
    assert real_folder(Path("above/alice")) == folder.resolve()


@pytest.mark.parametrize("name", [*FILES, "."])
def test_what_belongs_to_another_user_is_refused(folder: Path, give_away: Callable[[Path], None], name: str) -> None:
    give_away(folder / name)
    with pytest.raises(PlanError, match=r"belongs to another user \(number 65534\).*chown \d+ "):
        start(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("leads", ["to a copy", "nowhere"])
def test_links_are_refused(folder: Path, tmp_path: Path, name: str, leads: str) -> None:
    """A policy that leads nowhere is no missing one, in whose place the default would stand."""
    moved = tmp_path / "moved"
    (folder / name).rename(moved)
    (folder / name).symlink_to(moved)
    if leads == "nowhere":
        moved.unlink()
    with pytest.raises(PlanError, match=rf"{name} is a link; put the file itself there"):
        start(folder)


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name, 0o600)
    with pytest.raises(PlanError, match=rf"{name} is no regular file"):
        start(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(PlanError, match=rf"{name} (cannot be (read|used): Is a directory|is no regular file)"):
        start(folder)


def test_only_what_is_not_there_at_all_is_no_policy(folder: Path) -> None:
    (folder / "policy.toml").unlink()
    assert start(folder) == Policy()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_folder_above_that_others_may_write_is_refused(folder: Path, mode: int) -> None:
    folder.parent.chmod(mode)
    with pytest.raises(PlanError, match=rf"above has mode {mode:03o}: other users may put files .* chmod go-w"):
        start(folder)
    folder.parent.chmod(0o1777)
    assert start(folder) == Policy(least_roster=5), "with the sticky bit nobody can take the folder away"
    folder.chmod(0o1777)
    with pytest.raises(PlanError, match=r"alice has mode 1777"):
        start(folder)


def test_a_folder_above_of_another_user_is_refused(folder: Path, give_away: Callable[[Path], None]) -> None:
    give_away(folder.parent)
    with pytest.raises(PlanError, match=r"above belongs to another user"):
        start(folder)


def test_a_link_in_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    for target in (folder, tmp_path / "nowhere"):
        link = tmp_path / "link"
        link.symlink_to(target)
        with pytest.raises(PlanError, match="link is a link; name the folder that it leads to"):
            start(link)
        link.unlink()
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(PlanError, match="is a link"):
        start(tmp_path / "a" / "alice")


def test_another_user_s_link_on_the_way_is_refused(
    folder: Path, tmp_path: Path, give_away: Callable[[Path], None]
) -> None:
    """In a folder such as /tmp: today it leads to the right one."""
    way = tmp_path / "way"
    way.symlink_to(folder.parent)
    tmp_path.chmod(0o1777)
    assert start(way / "alice") == Policy(least_roster=5)
    give_away(way)
    with pytest.raises(PlanError, match="way belongs to another user"):
        start(way / "alice")


def test_a_key_is_not_made_where_others_could_change_it(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for place in ("open", "open/inner"):
        with pytest.raises(PlanError, match="open has mode 777"):
            new_identity(tmp_path / place, "alice")
    assert not list(tmp_path.glob("**/*.key"))


def test_a_reader_that_follows_links_and_asks_nobody_is_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken variant: a policy of another user's making, put there through a folder that he may write."""
    for reader in (credentials, ledger_log):
        monkeypatch.setattr(reader, "real_folder", lambda path, *_: path)
    monkeypatch.setattr(key_folder, "read_own", lambda path, _forbidden: path.read_bytes())
    folder.parent.chmod(0o777)
    shutil.copytree(folder, tmp_path / "false")
    (tmp_path / "false" / "policy.toml").write_text("least_roster = 2")
    folder.rename(tmp_path / "away")
    folder.symlink_to(tmp_path / "false")
    assert start(folder) == Policy(least_roster=2)
    (tmp_path / "false" / "policy.toml").unlink()
    (tmp_path / "false" / "policy.toml").symlink_to("nowhere")
    assert read_policy(folder) is None
