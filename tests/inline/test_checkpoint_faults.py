# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with checkpoints: who is behind, disks that are full, files that are torn, another experiment."""

import errno
import json
import os
import shutil
import threading
import time

import pytest
from inline.federated import regression
from inline.kept_runs import Killed, fit, killed, on_disk, same

import fedray as sf
from fedray.commands.cli import main
from fedray.errors import PartyLost, PlanError
from fedray.ml.nn.checkpoints.parts import PartyParts
from fedray.ml.nn.fitting import FitRun
from fedray.party.house.in_force import VARIABLE
from fedray.party.house.turns import HOME
from fedray.party.kept import kept_file
from fedray.party.kept.pass_log import PassLog
from fedray.runtime.session import running

EPOCHS = 3
SLOW = pytest.mark.slow


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


def whole(start, tmp_path):
    """A run that nobody kills."""
    found = fit(start, sf.Checkpoint(tmp_path / "whole"), epochs=EPOCHS)
    sf.shutdown()
    return found


def left(monkeypatch, start, path, step=45):
    """Leaves a run that was killed in its last epoch but one, or as the step says."""
    assert killed(monkeypatch, start, sf.Checkpoint(path), {step: "driver"}, epochs=EPOCHS) is None
    rest()


def rest():
    """Waits for what parties are writing: it goes on when their session has ended, and would meet what is done here."""
    for thread in threading.enumerate():
        if thread.name == "fedray-keeping":
            thread.join(60)


def parts(path, party):
    """The folder of a party's part."""
    (folder,) = (path / "parties" / party).iterdir()
    return folder


def numbers(folder):
    return sorted(int(one.stem) for one in folder.glob("0?????.json"))


@SLOW
def test_a_party_that_is_behind_takes_all_back(monkeypatch, start, tmp_path, path):
    expected = whole(start, tmp_path)
    left(monkeypatch, start, path)
    newest = numbers(parts(path, "bob"))[-1]
    kept_file.remove(parts(path, "bob"), f"{newest:06d}")
    found = fit(start, sf.Checkpoint(path), epochs=EPOCHS)
    same(found, expected)
    assert found[0].notices[-1] == f"went back to checkpoint {newest - 1}: 'bob' lacks number {newest}"


@pytest.mark.parametrize(
    ("whose", "ending"),
    [
        ("bob", "safetensors"),
        *(pytest.param(*one, marks=SLOW) for one in [("bob", "json"), ("driver", "json"), ("driver", "safetensors")]),
    ],
)
def test_a_torn_file_is_found_and_the_one_before_serves(monkeypatch, start, tmp_path, path, whose, ending):
    expected = whole(start, tmp_path)
    left(monkeypatch, start, path)
    folder = path / "0001" if whose == "driver" else parts(path, "bob")
    torn = folder / f"{numbers(folder)[-1]:06d}.{ending}"
    torn.write_bytes(torn.read_bytes()[:-40])
    found = fit(start, sf.Checkpoint(path), epochs=EPOCHS)
    same(found, expected)
    assert any("is damaged: it was cut off or altered" in text for text in found[0].notices)


def test_a_party_that_has_lost_its_part_is_named_before_training(monkeypatch, start, path):
    left(monkeypatch, start, path)
    shutil.rmtree(path / "parties" / "carol")
    with pytest.raises(
        PlanError, match=r"there is no checkpoint that all have.*'alice' has numbers .*'carol' has none\. Restore"
    ):
        fit(start, sf.Checkpoint(path), epochs=EPOCHS)
    sf.shutdown()
    assert fit(start, sf.Checkpoint(path), epochs=EPOCHS, resume=False)[0].epoch == [0, 1, 2]
    assert (path / "0002").is_dir()


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("whose", ["alice", pytest.param("driver", marks=SLOW)])
def test_a_disk_that_is_full_is_told_and_ends_no_run(monkeypatch, start, tmp_path, path, whose):
    expected = whole(start, tmp_path)
    write, count = kept_file.write, []

    def watched(folder, name, *rest):
        theirs = (whose in str(folder)) if whose == "alice" else folder.name == "0001"
        if theirs and name.isdigit():
            count.append(name)
            if len(count) > 2:
                full()
        write(folder, name, *rest)

    monkeypatch.setattr(kept_file, "write", watched)
    history, weights = fit(start, sf.Checkpoint(path), epochs=EPOCHS)
    sf.shutdown()
    assert weights == expected[1]
    (text,) = [text for text in history.notices if "No space left on device" in text][:1]
    assert "The run goes on" in text
    assert numbers(path / "0001" if whose == "driver" else parts(path, "alice"))[-2:] == [1, 2]


@SLOW
def test_a_folder_that_cannot_be_made_is_told_and_ends_no_run(monkeypatch, start, tmp_path, path):
    expected = whole(start, tmp_path)
    path.write_text("a file")
    history, weights = fit(start, sf.Checkpoint(path), epochs=EPOCHS)
    assert weights == expected[1]
    assert any("cannot be written" in text and "nothing of this run is kept" in text for text in history.notices)


def test_parties_that_cannot_keep_theirs_are_told(start, tmp_path, path):
    expected = whole(start, tmp_path)
    path.mkdir()
    (path / "parties").write_text("a file")
    history, weights = fit(start, sf.Checkpoint(path), epochs=EPOCHS)
    assert weights == expected[1]
    assert any("party 'alice' cannot write to" in text for text in history.notices)


def test_a_part_lies_where_the_operator_of_the_party_says(monkeypatch, start, tmp_path, path):
    expected = whole(start, tmp_path)
    for name in ("alice", "bob", "carol", "server"):
        (tmp_path / name).mkdir(mode=0o700)
        line = 'checkpoints = "deep/kept"' * (name == "alice")
        (tmp_path / name / "party.toml").write_text(f'name = "{name}"\n{line}\n')
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    left(monkeypatch, start, path)
    (folder,) = (tmp_path / "alice" / "deep" / "kept").iterdir()
    assert numbers(folder)
    assert sorted(one.name for one in (path / "parties").iterdir()) == ["bob", "carol"]
    same(fit(start, sf.Checkpoint(path), epochs=EPOCHS), expected)
    told = {party: rules["checkpoints"] for party, rules in sf.in_force().items()}
    assert told == {"alice": True, "bob": False, "carol": False, "server": False}


CHANGES = {
    "epochs": ({"epochs": 4}, "epochs: 3 then, 4 now"),
    "batch_size": ({"batch_size": 9}, "batch_size: 8 then, 9 now"),
    "strategy": ({"strategy": "fed_prox"}, 'strategy of name: "fed_avg_w" then, "fed_prox" now'),
    "rows": ({"rows": (30, 24, 28)}, "rows of carol: 27 then, 28 now"),
    "model": ({"builder": regression(momentum=0.5)}, "party 'alice' has another model: its layers, optimizer"),
    "weights": ({"class_weight": {0: 2.0}}, 'class_weight: null then, {"0": 2.0} now'),
    "seed": ({"random_seed": 9}, "random_seed of fit: null then, 9 now"),
    "shuffle": ({"shuffle": False}, "shuffle: true then, false now"),
}


def test_another_experiment_is_refused_with_the_difference_in_words(monkeypatch, start, path):
    left(monkeypatch, start, path)
    for change, said in CHANGES.values():
        with pytest.raises(PlanError, match="is unfinished and of another experiment") as caught:
            fit(start, sf.Checkpoint(path), **({"epochs": EPOCHS} | change))
        assert said in str(caught.value)
        sf.shutdown()


def test_other_rows_are_found_by_their_party_alone(monkeypatch, start, path):
    left(monkeypatch, start, path)
    import inline.kept_runs as kept_runs

    world = kept_runs.world
    monkeypatch.setattr(kept_runs, "world", lambda start, **more: world(start, x=kept_runs_x() * 2, **more))
    with pytest.raises(PlanError, match="party 'bob' has other rows, labels or weights"):
        fit(start, sf.Checkpoint(path), epochs=EPOCHS)


def kept_runs_x():
    from inline.keras_models import X

    return X


@SLOW
def test_other_versions_are_a_warning_or_an_error(monkeypatch, start, tmp_path, path):
    expected = whole(start, tmp_path)
    left(monkeypatch, start, path)
    monkeypatch.setattr("fedray.ml.nn.checkpoints.said.version", lambda _: "0.0.1")
    with pytest.raises(PlanError, match=r"resume='must': .* other versions.*numpy: .* then, \"0\.0\.1\" now"):
        fit(start, sf.Checkpoint(path), epochs=EPOCHS, resume="must")
    sf.shutdown()
    found = fit(start, sf.Checkpoint(path), epochs=EPOCHS)
    same(found, expected)
    assert any("begun with other versions" in text for text in found[0].notices)


@SLOW
def test_a_finished_run_is_followed_by_a_new_one_and_must_is_an_error(start, path):
    with pytest.raises(PlanError, match=r"expected an unfinished run in .*, found no run"):
        fit(start, sf.Checkpoint(path), resume="must")
    sf.shutdown()
    for _ in range(2):
        fit(start, sf.Checkpoint(path))
        sf.shutdown()
    assert sorted(one.name for one in path.iterdir()) == ["0001", "0002", "parties"]
    with pytest.raises(PlanError, match="found run 0002, which is finished"):
        fit(start, sf.Checkpoint(path), resume="must")


def test_the_last_ones_are_kept_and_nothing_secret_is_in_them(start, path):
    fit(start, sf.Checkpoint(path, keep=2), epochs=6)
    assert kept_everywhere(path) == [[6, 7]] * 4
    assert {one.rpartition(".")[2] for one in on_disk(path / "0001")} == {"json", "safetensors"}
    kinds = {one.rpartition("/")[2].lstrip("0123456789").partition(".key.")[0] for one in on_disk(path / "parties")}
    assert kinds == {".json", "-round.json", ".safetensors", "passes.log", "replay"}


def during(monkeypatch, epoch, act):
    """Lets something happen at the end of the rounds of an epoch, counted from 0."""
    segments = FitRun._segments

    def watched(self, number, over, bar):
        found = segments(self, number, over, bar)
        if number == epoch:
            act()
        return found

    monkeypatch.setattr(FitRun, "_segments", watched)


def lose_when_kept(path, party):
    """Loses a party once the driver has its first checkpoint; without, there is nothing to go on from."""
    while not (path / "0001" / "000001.json").exists():
        time.sleep(0.001)
    running().transport.lose(party)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_when_it_is_broken_off_no_more_are_kept_and_the_newest_that_all_have_is(monkeypatch, start, path, error):
    def broken_off():
        raise error

    monkeypatch.setattr("fedray.ml.nn.checkpoints.parts._SOON_SECONDS", 120.0)
    with monkeypatch.context() as patch:
        during(patch, 4, broken_off)
        with pytest.raises(error):
            fit(start, sf.Checkpoint(path, keep=2), epochs=6)
    assert kept_everywhere(path) == [[4, 5]] * 4
    sf.shutdown()
    fit(start, sf.Checkpoint(path, keep=1), epochs=6)
    assert kept_everywhere(path) == [[7]] * 4


def test_of_a_party_that_is_lost_nothing_waits_in_a_run_that_is_over(monkeypatch, start, path):
    """As long as it goes on, what the lost party has as well may be needed still."""
    during(monkeypatch, 3, lambda: running().transport.lose("dave"))
    fit(start, sf.Checkpoint(path, keep=2), epochs=7, rows=(24,) * 4, on_dropout="abandon")
    assert kept_everywhere(path) == [[7, 8]] * 4
    rest()
    assert max(numbers(parts(path, "dave"))) <= 4


def test_the_one_that_a_party_has_which_was_lost_early_stays_while_the_others_go_on(monkeypatch, start, path):
    during(monkeypatch, 0, lambda: lose_when_kept(path, "dave"))

    def killed_then():
        raise Killed

    with monkeypatch.context() as patch:
        during(patch, 5, killed_then)
        with pytest.raises(Killed):
            fit(start, sf.Checkpoint(path, keep=1), epochs=7, rows=(24,) * 4, on_dropout="abandon")
    sf.shutdown()
    rest()
    have = kept_everywhere(path, ("alice", "bob", "carol", "dave"))
    assert set.intersection(*map(set, have)) == {1}
    assert max(map(len, have)) <= 4, "and not all"


def test_when_a_party_is_lost_nothing_is_removed_that_it_may_have_as_well(monkeypatch, start, path):
    """It was lost before its answer came that it has the first one: to the driver it has none."""
    during(monkeypatch, 0, lambda: lose_when_kept(path, "carol"))
    with pytest.raises(PartyLost):
        fit(start, sf.Checkpoint(path, keep=1), epochs=3)
    rest()
    assert {1} <= set.intersection(*map(set, kept_everywhere(path)))


def test_a_driver_without_a_first_one_has_no_later_one_that_not_all_have(monkeypatch, start, path):
    """Else there would be something to go on from, which a party lacks, and the same program would be refused."""
    capture, gate = PartyParts.capture, threading.Event()

    def late(self, there, number, stay, **more):
        wait = capture(self, there, number, stay, **more)
        return (lambda: gate.wait(30) and wait()) if number == 1 else wait

    def lose():
        running().transport.lose("carol")
        gate.set()

    with monkeypatch.context() as patch:
        patch.setattr(PartyParts, "capture", late)
        during(patch, 0, lose)
        with pytest.raises(PartyLost):
            fit(start, sf.Checkpoint(path), on_dropout="abandon", validation_data=None)
    sf.shutdown()
    assert (numbers(path / "0001"), 1 in numbers(parts(path, "alice"))) == ([], True)
    assert fit(start, sf.Checkpoint(path), on_dropout="abandon", validation_data=None)[0].epoch == [0, 1]


def kept_everywhere(path, parties=("alice", "bob", "carol")):
    """Returns the numbers that the driver has, and those of each party."""
    return [numbers(path / "0001"), *(numbers(parts(path, party)) for party in parties)]


def test_runs_are_listed_and_shown(monkeypatch, start, path, capsys):
    fit(start, sf.Checkpoint(path))
    sf.shutdown()
    left(monkeypatch, start, path)
    capsys.readouterr()
    assert main(["runs", str(path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "0001" in first
    assert "finished, epoch 2 of 2" in first
    assert "loss:" in first
    assert "unfinished" in second
    assert "alice, bob, carol" in second
    assert main(["runs", str(path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in listed] == ["finished", "unfinished"]
    assert main(["runs", "show", str(path / "0001"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["experiment"]["batch_size"] == 8
    assert shown["checkpoints"][-1]["epoch"] == 2
    assert main(["runs", "show", str(path / "0002")]) == 0
    assert "checkpoint " in capsys.readouterr().out
    assert main(["runs", str(path.parent)]) == 0
    assert capsys.readouterr().out == f"{path.parent} holds no run; 'fedray runs {path}' lists those in there\n"
    assert main(["runs", str(path / "0001")]) == 0
    assert capsys.readouterr().out.endswith(f"is one; 'fedray runs show {path}/0001' shows it\n")
    assert main(["runs", "show", str(path)]) == 1
    assert f"is no run; 'fedray runs {path}' lists those in there" in capsys.readouterr().err
    torn = path / "0001" / "run.json"
    torn.write_bytes(torn.read_bytes()[:50])
    assert main(["runs", str(path)]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert main(["runs", "show", str(path / "9")]) == 1


def test_killed_is_no_error_of_ours():
    assert not issubclass(Killed, Exception)


def test_what_a_party_keeps_is_open_to_nobody_else(start, tmp_path):
    before = os.umask(0o002)
    try:
        fit(start, sf.Checkpoint(tmp_path / "run", parts=tmp_path / "own" / "parts"), epochs=1)
    finally:
        os.umask(before)
    made = [tmp_path / "own", *(tmp_path / "own").rglob("*")]
    assert len(made) > 10
    assert {one.name: one.stat().st_mode & 0o077 for one in made if one.stat().st_mode & 0o077} == {}


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "passes.log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        PassLog(tmp_path / "passes.log", "alice").make()
    assert (tmp_path / "precious").read_text() == "kept"
