# SPDX-License-Identifier: Apache-2.0
"""Parties with keys and policies of their own: what they refuse the driver, on every transport, and what they keep."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fedray as sf
from fedray.errors import FedRayError, PlanError, ProtocolError
from fedray.party.door.own_ledger import read
from fedray.party.keys.key_folder import new_identity, read_identity, read_public, read_roster, written_roster
from fedray.protocol.crypto.keys import fingerprint, public_bytes
from fedray.runtime import session as sessions
from fedray.runtime.session import current, running
from fedray.security.aggregation import PlainAggregator, SecureAggregator

NAMES = ("alice", "bob", "carol", "charlie")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Returns a folder with a key folder for each party, in which each knows all others."""
    known = dict(read_public(new_identity(tmp_path / name, name)) for name in NAMES)
    for name in NAMES:
        (tmp_path / name / "roster.json").write_bytes(written_roster(known))
        (tmp_path / name / "roster.json").chmod(0o600)
    return tmp_path


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Leaves no session behind."""
    sf.shutdown()
    yield
    sf.shutdown()


def total(names: tuple[str, ...] = NAMES[:3], kind: type = SecureAggregator) -> float:
    """Returns the sum of ones over parties."""
    aggregator = kind(sf.PYU("charlie"), [sf.PYU(name) for name in names])
    return float(aggregator.sum([sf.PYU(name)(np.ones)(2) for name in names])[0])


def state_policy(keys: Path, name: str, text: str) -> None:
    (keys / name / "policy.toml").write_text(text)
    (keys / name / "policy.toml").chmod(0o600)


def test_keys_on_disk_are_those_of_the_session_and_of_its_ledger(address: str, keys: Path) -> None:
    expected = read_roster(keys / "alice" / "roster.json")
    sessions_of = (("alice", "carol", "charlie"), ("alice", "bob", "charlie"))
    for names in sessions_of if address == "inline" else sessions_of[:1]:  # on Ray, three processes each
        sf.init(list(names), address, keys=keys)
        assert current().roster == {name: expected.keys[expected.index(name)] for name in names}
        assert total(names[:-1]) == len(names) - 1
        assert sf.ledger().verify() == []
        sf.shutdown()
        own = max((keys / "alice" / "ledger").iterdir()).read_bytes()
        assert (read(own).closed, read(own).problems(), read(own).roster["alice"]) == (True, [], expected.keys[0])
        assert f'["members","{NAMES[0]}"'.encode() in (keys / "alice" / "models.log").read_bytes()


def test_a_driver_that_puts_its_own_key_in_place_of_a_party_s_is_refused(
    address: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack that a roster is against: whoever hands keys round hands round its own."""
    false, real = bytes.fromhex("ab" * 32), public_bytes(read_identity(keys / "bob"))
    call = sessions.Session.call

    def substituting(session: sessions.Session, party: str, method: str, *args: object, label: str | None = None):
        if method == "install_roster" and party != "bob":
            args = (args[0] | {"bob": false}, args[1])
        return call(session, party, method, *args, label=label)

    monkeypatch.setattr(sessions.Session, "call", substituting)
    with pytest.raises(PlanError, match="party 'alice'") as caught:
        sf.init(["alice", "bob"], address, keys=keys)
    for part in ("the key of 'bob'", fingerprint(false), fingerprint(real), "fedray keys show"):
        assert part in str(caught.value)
    assert running() is None


def test_the_driver_s_word_is_all_there_is_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken variant of the test above: a generated roster, in which a substituted key is not noticed by others."""
    seen: dict[str, bytes] = {}
    call = sessions.Session.call

    def substituting(session: sessions.Session, party: str, method: str, *args: object, label: str | None = None):
        if method == "install_roster":
            false = {name: key if name == party else bytes([i]) * 32 for i, (name, key) in enumerate(args[0].items())}
            args = (false, args[1])
            seen.update(false)
        return call(session, party, method, *args, label=label)

    monkeypatch.setattr(sessions.Session, "call", substituting)
    sf.init(list(NAMES), "inline")
    assert running() is not None
    assert bytes(32) in seen.values()


def test_a_key_folder_that_is_not_in_order_is_said_at_the_start(address: str, keys: Path) -> None:
    (keys / "carol" / "identity.key").chmod(0o644)
    with pytest.raises(PlanError, match=r"party 'carol': .*identity.key has mode 644: other users may"):
        sf.init(["carol"], address, keys=keys)
    assert running() is None


def test_each_party_keeps_to_its_own_policy(address: str, keys: Path) -> None:
    """Two of the four accept sums of fewer than four; bob, by his folder, and carol, by the driver, do not."""
    state_policy(keys, "bob", "n_min = 4")
    sf.init(list(NAMES), address, keys=keys, policies={"carol": sf.Policy(n_min=4)})
    assert current().policies["bob"] == current().policies["carol"] == sf.Policy(n_min=4)
    assert current().policies["alice"] == sf.Policy()
    assert total(NAMES) == 4, "what is proposed satisfies everybody"
    for name in ("bob", "carol"):
        refusal = rf"party '{name}': Config refused: n_min is 3, this party requires at least 4"
        with pytest.raises(ProtocolError, match=refusal):
            total(("alice", name, "charlie"))
    assert total(("alice", "charlie")) == 2, "without them"


def test_a_policy_of_the_folder_cannot_be_replaced_by_the_driver(keys: Path) -> None:
    state_policy(keys, "bob", "n_min = 4")
    with pytest.raises(PlanError, match=r"party 'bob': .*policy.toml states this party's policy"):
        sf.init(list(NAMES), "inline", keys=keys, policies={"bob": sf.Policy(n_min=2, two_party="always")})
    assert running() is None


def test_a_party_may_refuse_what_hides_too_little() -> None:
    sf.init(list(NAMES), "inline", policies={"bob": sf.Policy(two_party="never", unprotected=False)})
    with pytest.raises(ProtocolError, match=r"'bob'.* n_min"):
        total(("alice", "bob"))
    with pytest.raises(ProtocolError, match=r"party 'bob': .*no sum without protection"):
        total(("alice", "bob"), PlainAggregator)
    assert total(("alice", "carol")) == 2
    assert total(("alice", "carol"), PlainAggregator) == 2


def test_compute_parties_and_vaults_keep_to_their_policies() -> None:
    sf.init(list(NAMES), "inline", policies={"carol": sf.Policy(least_roster=9)})
    cluster = sf.utils.testing.cluster_def(["alice", "bob"])
    with pytest.raises(FedRayError, match=r"'carol'.* roster size"):
        sf.reveal(sf.PYU("alice")(np.ones)(2).to(sf.SPU(cluster)))
    sf.shutdown()
    sf.init(list(NAMES[:3]), "inline", policies={"carol": sf.Policy(least_roster=9)})
    from fedray.security.aggregation import SPUAggregator

    spu = sf.SPU(sf.utils.testing.cluster_def(["bob", "carol"]))
    with pytest.raises(ProtocolError, match=r"'carol'.* roster size"):
        SPUAggregator(spu).sum([sf.PYU(name)(np.ones)(2) for name in ("alice", "bob")])


def test_one_identity_takes_part_in_one_session_at_a_time(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedray.party.keys.memory_file import MemoryFile

    other = MemoryFile(keys / "bob" / "models.log", "bob")
    monkeypatch.setattr(MemoryFile.__init__, "__defaults__", (0.0,))
    monkeypatch.setattr("fedray.party.keys.credentials.Credentials.of.__func__.__defaults__", (None, 0.0))
    with pytest.raises(PlanError, match=r"party 'bob': another process uses"):
        sf.init(list(NAMES), "inline", keys=keys)
    other.close()
