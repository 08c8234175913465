# SPDX-License-Identifier: Apache-2.0
"""A run repeated in new processes: allowed with the same parties, refused with others on the same model."""

from pathlib import Path

import pytest
from inline.federated import PARTIES, weights_of, world
from inline.kept_runs import fit, killed, same

import fedray as sf
from fedray.errors import ProtocolError
from fedray.party.keys.key_folder import new_identity, read_public, written_roster


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    names = (*PARTIES[:4], "server")
    known = dict(read_public(new_identity(tmp_path / name, name)) for name in names)
    for name in names:
        (tmp_path / name / "roster.json").write_bytes(written_roster(known))
        (tmp_path / name / "roster.json").chmod(0o644)
    return tmp_path


def run(start, rows, **settings):
    """Trains two epochs in a session of its own; returns the weights."""
    fed = world(start, rows=rows, backend="numpy", **settings)
    model = fed.model(random_seed=settings.pop("seed", 3))
    model.fit(fed.x, fed.y, epochs=2, batch_size=5, verbose=0)
    weights = weights_of(model)
    sf.shutdown()
    return weights


def test_a_party_is_not_left_out_of_a_run_that_is_repeated(start, keys):
    first = run(start, (20, 20, 20, 20), keys=keys)
    again = run(start, (20, 20, 20, 20), keys=keys)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    with pytest.raises(ProtocolError, match=r"already summed over .*'dave'.* another random_seed"):
        run(start, (20, 20, 20), keys=keys)
    sf.shutdown()
    run(start, (20, 20, 20), keys=keys, seed=4)


def test_without_a_folder_a_restart_forgets(start):
    """The broken variant, which is what a local simulation is."""
    run(start, (20, 20, 20, 20))
    run(start, (20, 20, 20))


@pytest.mark.parametrize("on_dropout", ["abandon", pytest.param("recover", marks=pytest.mark.slow)])
def test_a_run_that_was_killed_goes_on_from_the_key_folders(monkeypatch, start, keys, tmp_path, on_dropout):
    """What the memory of models has from before the end, the same rows over the same parties, is summed once more."""
    arguments = {"rows": (20, 20, 20, 20), "session": {"keys": keys}, "on_dropout": on_dropout}
    expected = fit(start, None, **(arguments | {"session": {}}))
    sf.shutdown()
    kept = sf.Checkpoint(tmp_path / "runs")
    assert killed(monkeypatch, start, kept, {45: "all"}, **arguments) is None
    same(fit(start, kept, **arguments), expected)
    assert not (tmp_path / "runs" / "parties").exists()
    (folder,) = (keys / "alice" / "checkpoints").iterdir()
    assert {one.name.lstrip("0123456789") for one in folder.iterdir()} == {
        ".json",
        "-round.json",
        ".safetensors",
        "passes.log",
    }
    assert all(one.stat().st_mode & 0o077 == 0 for one in folder.iterdir())
