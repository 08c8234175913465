# SPDX-License-Identifier: Apache-2.0
"""Commitments to contributions: the party alone opens them, and to nothing else."""

import dataclasses
import hashlib
import pickle

import numpy as np
import pytest

from fedray.errors import PlanError
from fedray.party.door import commitment as module
from fedray.party.door.commitment import Commitments
from fedray.party.keys.credentials import Credentials
from fedray.party.keys.key_folder import new_identity, read_public, replay_key, written_roster
from fedray.party.training.replaying import in_own_ledger
from fedray.protocol.manifest import Manifest, Tensor
from fedray.protocol.scheme import Contribution, RoundContext
from fedray.types import PartyConfig

SID = bytes(range(32))
MANIFEST = Manifest((Tensor("w", (3,), "float32"),))
CONTEXT = RoundContext(7, b"m" * 32, b"settings", MANIFEST)
GIVEN = Contribution(np.array([1, -2, 0.5], np.float32), 4, np.array([3.0, 2.0]))


def committed(key=b"k" * 32):
    made = Commitments(key)
    made.begin(SID)
    return made, made.of(CONTEXT, GIVEN)


def test_it_opens_to_what_was_contributed():
    made, hidden = committed()
    assert len(hidden) == 64
    assert made.opens(hidden, SID, CONTEXT, GIVEN)
    # As a later process of the party would, which has the key and computes the round once more.
    again = Contribution(GIVEN.values.copy().astype(">f4"), 4, GIVEN.metrics.copy())
    assert not Commitments(b"k" * 32).opens(hidden, SID, CONTEXT, again), "the type is part of it"
    again = dataclasses.replace(again, values=np.asfortranarray(GIVEN.values))
    assert Commitments(b"k" * 32).opens(hidden, SID, CONTEXT, again)


CHANGES = [
    {"values": np.array([1, -2, 0.5000001], np.float32)},
    {"values": np.array([1, -2, 0.5], np.float64)},
    {"values": np.array([1, -2], np.float32)},
    {"weight": 5},
    {"metrics": np.array([3.0, 2.5])},
    {"metrics": None},
    {"metrics": np.empty(0)},
    {"values": np.concatenate([GIVEN.values, np.array([3.0, 2.0]).view(np.float32)]), "metrics": np.empty(0)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_it_opens_to_no_other_contribution(change):
    made, hidden = committed()
    assert not made.opens(hidden, SID, CONTEXT, dataclasses.replace(GIVEN, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"number": 8},
        {"model": b"n" * 32},
        {"settings": b"other"},
        {"purpose": "sum"},
        {"repeats": 6},
        {"manifest": Manifest((Tensor("v", (3,), "float32"),))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_it_opens_in_no_other_round_or_session(change):
    made, hidden = committed()
    assert not made.opens(hidden, SID, dataclasses.replace(CONTEXT, **change), GIVEN)
    assert not made.opens(hidden, bytes(32), CONTEXT, GIVEN)


def guessed(hidden, key=None):
    """Returns which of a few contributions somebody without the key finds behind a commitment by trying them."""
    guesses = [dataclasses.replace(GIVEN, weight=weight) for weight in range(10)]
    keys = [bytes(32), SID, b"", b"fedray", *([key] if key else [])]
    return [g.weight for g in guesses for one in keys if Commitments(one).opens(hidden, SID, CONTEXT, g)]


def test_who_has_no_key_cannot_try_guesses():
    assert guessed(committed()[1]) == []
    assert guessed(committed()[1], b"k" * 32) == [4]


def test_a_hash_without_a_key_opens_to_whoever_guesses(monkeypatch):
    """The broken variant: few contributions are possible, and their hashes are soon tried."""

    def new(_, told, digest):
        del digest
        return hashlib.sha256(told)

    monkeypatch.setattr(module.hmac, "new", new)
    assert 4 in guessed(committed()[1])


def test_equal_contributions_look_alike_to_nobody():
    made, hidden = committed()
    others = [made.of(dataclasses.replace(CONTEXT, number=number), GIVEN) for number in range(8, 12)]
    made.begin(bytes(32))
    assert len({hidden, *others, made.of(CONTEXT, GIVEN), Commitments().of(CONTEXT, GIVEN)}) == 7


def folder_of(tmp_path):
    folder = tmp_path / "alice"
    new_identity(folder, "alice")
    (folder / "roster.json").write_bytes(written_roster(dict([read_public(folder / "alice.pub")])))
    (folder / "roster.json").chmod(0o600)
    return folder


def test_the_key_stays_in_the_folder_and_is_the_party_s_alone(tmp_path):
    folder = folder_of(tmp_path)
    config = PartyConfig("alice", ("alice",), 0, keys=str(folder))
    hidden = []
    for _ in range(2):
        own = Credentials.of(config, {})
        own.commitments.begin(SID)
        hidden.append(own.commitments.of(CONTEXT, GIVEN))
        own.close()
    assert hidden[0] == hidden[1]
    assert (folder / "replay.key").stat().st_mode & 0o777 == 0o600
    secret = (folder / "replay.key").read_bytes()
    assert Commitments(secret).opens(hidden[0], SID, CONTEXT, GIVEN)
    assert secret.hex() not in repr(own) + repr(vars(own.commitments).keys()) + repr(own.commitments)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(own.commitments)
    for mode, match in ((0o644, "other users may read or write"), (0o600, "expected 32 bytes, found 3")):
        (folder / "replay.key").write_bytes(b"abc")
        (folder / "replay.key").chmod(mode)
        with pytest.raises(PlanError, match=match):
            Credentials.of(config, {})
    (folder / "replay.key").unlink()
    (folder / "replay.key").symlink_to(folder / "identity.key")
    with pytest.raises(PlanError, match="is a link"):
        replay_key(folder)


def test_another_file_beside_the_ledgers_is_none_of_them(tmp_path):
    folder = folder_of(tmp_path)
    Credentials.of(PartyConfig("alice", ("alice",), 0, keys=str(folder)), {}).close()
    (folder / "ledger" / "notes.txt").write_text("mine")
    assert in_own_ledger(folder) == {}
