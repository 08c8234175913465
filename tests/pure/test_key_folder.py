# SPDX-License-Identifier: Apache-2.0
"""A party's own folder: who may read it, what is refused, and a coordinator that hands out other keys."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pure.ledger_kit import install

from fedray.errors import PlanError
from fedray.party.keys import own_files
from fedray.party.keys.credentials import VARIABLE, Credentials
from fedray.party.keys.key_folder import (
    new_identity,
    read_identity,
    read_policy,
    read_public,
    read_roster,
    written_roster,
)
from fedray.party.party import LANES, Party
from fedray.protocol.crypto.keys import fingerprint, generate_identity, public_bytes
from fedray.protocol.policy import Policy
from fedray.types import Failure, PartyConfig

NAMES = ("alice", "bob", "charlie")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Returns a key folder for each party, with a roster of all."""
    publics = [new_identity(tmp_path / name, name) for name in NAMES]
    roster = written_roster(dict(read_public(path) for path in publics))
    for name in NAMES:
        (tmp_path / name / "roster.json").write_bytes(roster)
        (tmp_path / name / "roster.json").chmod(0o644)
    return {name: tmp_path / name for name in NAMES}


def config(name: str, folder: Path | str = "", **settings: object) -> PartyConfig:
    return PartyConfig(name, NAMES, 0, keys=str(folder), **settings)


def credentials(name: str, folder: Path | str = "", **settings: object) -> Credentials:
    return Credentials.of(config(name, folder, **settings), {}, patience=0.0)


def keys_of(folders: dict[str, Path]) -> dict[str, bytes]:
    return {name: public_bytes(read_identity(folder)) for name, folder in folders.items()}


class Calls:
    """Reaches nobody."""


def test_a_folder_makes_a_party_that_knows_itself_and_the_others(folders: dict[str, Path]) -> None:
    keys = keys_of(folders)
    for name, folder in folders.items():
        own = credentials(name, folder)
        assert public_bytes(own.identity) == keys[name]
        assert dict(zip(own.roster.names, own.roster.keys, strict=True)) == keys
        assert own.policy == Policy()
        own.check(keys)
        own.check({"alice": keys["alice"], "bob": keys["bob"]})
        own.close()


def test_a_new_key_is_for_its_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        public = new_identity(tmp_path / "deep" / "alice", "alice")
    finally:
        os.umask(old)
    folder = public.parent
    assert (folder / "identity.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    before = (folder / "identity.key").read_bytes()
    for name in ("alice", "bob"):
        with pytest.raises(PlanError, match=r"holds alice.pub and identity.key already; a key is never overwritten"):
            new_identity(folder, name)
    public.unlink()
    with pytest.raises(PlanError, match="never overwritten"):
        new_identity(folder, "alice")
    assert (folder / "identity.key").read_bytes() == before
    assert read_identity(folder).private_bytes_raw() not in public.name.encode()


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a\\b", " alice", "a\nb"])
def test_names_that_make_no_file_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PlanError, match="a party's name must"):
        new_identity(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610, 0o777])
def test_a_key_that_others_may_read_is_refused(folders: dict[str, Path], mode: int) -> None:
    path = folders["alice"] / "identity.key"
    path.chmod(mode)
    with pytest.raises(PlanError, match=f"identity.key has mode {mode:03o}: other users may .* chmod 600"):
        credentials("alice", folders["alice"])
    path.chmod(0o400)
    credentials("alice", folders["alice"]).close()


@pytest.mark.parametrize("file", ["roster.json", "policy.toml", "."])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_what_others_may_change_is_refused(folders: dict[str, Path], file: str, bit: int) -> None:
    (folders["bob"] / "policy.toml").touch()
    path = folders["bob"] / file
    path.chmod(path.stat().st_mode | bit)
    with pytest.raises(PlanError, match=r"other users may .* chmod go-w"):
        credentials("bob", folders["bob"])


def test_what_is_missing_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r"nowhere cannot be read: No such file .*; put it back .* make a key with 'fedray keys new'"
    ):
        credentials("alice", tmp_path / "nowhere")
    with pytest.raises(PlanError, match="is no folder"):
        credentials("alice", folders["alice"] / "identity.key")
    (folders["alice"] / "roster.json").unlink()
    with pytest.raises(PlanError, match=r"roster.json cannot be read: No such file"):
        credentials("alice", folders["alice"])
    (folders["bob"] / "identity.key").unlink()
    with pytest.raises(PlanError, match=r"identity.key cannot be read: No such file .*; put it back from your"):
        credentials("bob", folders["bob"])
    # The machine's operator has named bob's own folder, which has lost its key.
    with pytest.raises(PlanError, match=r"bob/identity.key cannot be read: No such file .*; put it back from your"):
        Credentials.of(PartyConfig("bob", ("bob",), 0), {VARIABLE: str(folders["bob"])})


def other_key() -> bytes:
    return X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "content", [b"", b"hunter2", b"\xff\xfe", other_key()], ids=["empty", "text", "bytes", "x25519"]
)
def test_what_is_no_key_is_refused_and_not_quoted(folders: dict[str, Path], content: bytes) -> None:
    (folders["alice"] / "identity.key").write_bytes(content)
    with pytest.raises(PlanError, match="is no Ed25519 private key in PEM; put it back") as caught:
        credentials("alice", folders["alice"])
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


ROSTERS = {
    "no JSON": "{",
    "a list": "[]",
    "another kind": '{"fedray": "public key", "parties": {}}',
    "no parties": '{"fedray": "roster"}',
    "an empty one": '{"fedray": "roster", "parties": {}}',
    "a short key": '{"fedray": "roster", "parties": {"alice": "00"}}',
    "a number": '{"fedray": "roster", "parties": {"alice": 7}}',
    "no hexadecimal": '{"fedray": "roster", "parties": {"alice": "' + 64 * "x" + '"}}',
    "one key twice": '{"fedray": "roster", "parties": {"alice": "' + 64 * "0" + '", "bob": "' + 64 * "0" + '"}}',
    "deep": 100_000 * "[",
    "a name twice": '{"fedray": "roster", "parties": {"alice": "' + 64 * "0" + '", "alice": "' + 64 * "1" + '"}}',
    "parties twice": '{"fedray": "roster", "parties": {"alice": "' + 64 * "0" + '"}, "parties": {}}',
    "a name that nobody sees": '{"fedray": "roster", "parties": {"alice\\ufe0f": "' + 64 * "0" + '"}}',
}


@pytest.mark.parametrize("wrong", ROSTERS)
def test_what_is_no_roster_is_refused(folders: dict[str, Path], wrong: str) -> None:
    (folders["alice"] / "roster.json").write_text(ROSTERS[wrong])
    with pytest.raises(PlanError, match=r"roster|holds '(alice|parties)' twice|characters that nobody sees"):
        credentials("alice", folders["alice"])


def test_a_folder_of_another_party_is_refused(folders: dict[str, Path]) -> None:
    keys = keys_of(folders)
    with pytest.raises(PlanError, match=rf"fingerprint {fingerprint(keys['bob'])} .* has {fingerprint(keys['alice'])}"):
        credentials("bob", folders["alice"])
    with pytest.raises(PlanError, match=r"does not name this party; add its own public key"):
        credentials("dave", folders["alice"])


def test_the_policy_of_the_folder_counts_and_the_driver_cannot_state_another(folders: dict[str, Path]) -> None:
    path = folders["alice"] / "policy.toml"
    path.write_text('n_min = 4\ntwo_party = "never"\nrings = [64]\n[rounds]\ntrain = 1\nevaluate = 2\n')
    path.chmod(0o644)
    expected = Policy(n_min=4, two_party="never", rings=(64,), rounds={"train": 1, "evaluate": 2})
    assert read_policy(folders["alice"]) == expected
    own = credentials("alice", folders["alice"])
    assert own.policy == expected
    own.close()
    for stated in (Policy(), Policy(n_min=5), expected):
        with pytest.raises(
            PlanError, match=r"policy.toml states this party's policy.*Leave 'alice' out of .* policies"
        ):
            credentials("alice", folders["alice"], policy=stated.settings())
    stated = credentials("bob", folders["bob"], policy=Policy(n_min=5).settings())
    assert stated.policy.n_min == 5
    stated.close()


@pytest.mark.parametrize("text", ["n_min = 2", "n_min =", "minimum = 3", "n_min = 3.5", "\x00"])
def test_a_policy_that_is_none_is_refused_with_its_file(folders: dict[str, Path], text: str) -> None:
    path = folders["alice"] / "policy.toml"
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(PlanError, match=r"alice/policy.toml: "):
        credentials("alice", folders["alice"])


def test_the_operator_of_the_machine_says_where_keys_are(folders: dict[str, Path], tmp_path: Path) -> None:
    alice = folders["alice"]
    for kept in (alice, tmp_path):
        for named in ("", str(alice), f"{tmp_path}/bob/../alice"):
            own = Credentials.of(config("alice", named), {VARIABLE: str(kept)}, patience=0.0)
            assert public_bytes(own.identity) == keys_of(folders)["alice"]
            own.close()
    with pytest.raises(PlanError, match=r"keeps its keys in .*alice \(FEDRAY_KEYS\), the driver named .*elsewhere"):
        Credentials.of(config("alice", tmp_path / "elsewhere"), {VARIABLE: str(alice)}, patience=0.0)
    with pytest.raises(PlanError, match="dave cannot be read"):
        Credentials.of(config("dave"), {VARIABLE: str(tmp_path)}, patience=0.0)
    for wrong in ("keys", "", "."):
        with pytest.raises(PlanError, match=rf"FEDRAY_KEYS is '{wrong}'; expected an absolute path"):
            Credentials.of(config("alice", alice), {VARIABLE: wrong}, patience=0.0)


@pytest.mark.parametrize("name", ["{elsewhere}", "../elsewhere/alice", ".."])
def test_a_name_that_is_a_path_leads_past_no_operator(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    """The driver puts a folder of its own, for a party of that name, where every user may write."""
    kept, elsewhere = tmp_path / "kept", tmp_path / "elsewhere" / "alice"
    kept.mkdir()
    named = name.format(elsewhere=elsewhere)
    shutil.copytree(folders["alice"], elsewhere)
    for folder in (elsewhere, tmp_path):
        (folder / "roster.json").write_bytes(written_roster({"a": public_bytes(read_identity(elsewhere))}))
        (folder / "roster.json").write_text((folder / "roster.json").read_text().replace('"a"', json.dumps(named)))
    (tmp_path / "identity.key").write_bytes((elsewhere / "identity.key").read_bytes())
    (tmp_path / "identity.key").chmod(0o600)
    with pytest.raises(PlanError, match=r"a party's name (must not hold '/'|has at most 64 bytes)"):
        Credentials.of(config(named), {VARIABLE: str(kept)}, patience=0.0)
    with pytest.raises(PlanError, match=r"a party's name (must not hold '/'|has at most 64 bytes)"):
        read_roster(elsewhere / "roster.json")


def impostor(keys: dict[str, bytes], victim: str) -> dict[str, bytes]:
    return keys | {victim: public_bytes(generate_identity())}


def test_a_substituted_key_is_refused_with_both_fingerprints(folders: dict[str, Path]) -> None:
    keys = keys_of(folders)
    false = impostor(keys, "bob")
    party = Party(config("alice", folders["alice"]), Calls())
    refused = install(party, false)
    assert isinstance(refused, Failure)
    for part in ("party 'alice'", "the key of 'bob'", fingerprint(false["bob"]), fingerprint(keys["bob"])):
        assert part in refused.message
    assert "fedray keys show" in refused.message
    assert isinstance(install(party, keys | {"mallory": bytes(32)}), Failure)
    assert not isinstance(install(party, keys), Failure)
    again = install(party, false, "2:init")
    assert isinstance(again, Failure), "a good roster before does not let a bad one pass"
    assert party._context.roster == keys
    party.close()


def test_a_party_that_believes_the_driver_takes_a_substituted_key(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken variant: without the comparison the server's key stands for bob's, and nobody notices."""
    false = impostor(keys_of(folders), "bob")
    monkeypatch.setattr(Credentials, "check", lambda *_: None)
    party = Party(config("alice", folders["alice"]), Calls())
    assert not isinstance(install(party, false), Failure)
    assert party._context.roster["bob"] == false["bob"]
    party.close()


@pytest.mark.parametrize("method", sorted(LANES))
def test_a_party_whose_folder_is_not_in_order_refuses_every_call(folders: dict[str, Path], method: str) -> None:
    (folders["alice"] / "identity.key").chmod(0o644)
    party = Party(config("alice", folders["alice"], egress="strict"), Calls())
    for _ in range(2):
        answer = party.handle(method, "1:call", "x", "x", "x")
        assert isinstance(answer, Failure)
        assert "party 'alice'" in answer.message
        assert "identity.key has mode 644" in answer.message


def test_the_private_key_is_nowhere_to_be_seen(folders: dict[str, Path]) -> None:
    secret = read_identity(folders["alice"]).private_bytes_raw()
    own = credentials("alice", folders["alice"])
    party = Party(config("alice", folders["alice"].parent / "nowhere"), Calls())
    shown = [repr(own), repr(vars(own)), repr(party), repr(party._context), str(config("alice", folders["alice"]))]
    pem = (folders["alice"] / "identity.key").read_text().splitlines()[1]
    for text in shown:
        assert secret.hex() not in text
        assert pem not in text
    assert secret not in pickle.dumps(config("alice", folders["alice"]))
    for holder in (own, own.identity):
        with pytest.raises(TypeError):
            pickle.dumps(holder)
    own.close()
    assert isinstance(own.identity, Ed25519PrivateKey)


def test_without_posix_modes_there_are_no_folders(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_files, "check_system", lambda: (_ for _ in ()).throw(PlanError("POSIX")))
    with pytest.raises(PlanError, match="POSIX"):
        read_roster(folders["alice"] / "roster.json")
