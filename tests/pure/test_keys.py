# SPDX-License-Identifier: Apache-2.0
"""Rosters, key derivation, and that secrets stay where they are."""

import copy
import hashlib
import hmac
import pickle

import cloudpickle
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pure.masking_kit import context_of, manifest_of, plain_values, session

from fedray.errors import PlanError, ProtocolError
from fedray.protocol.crypto.keys import Roster, exchange, generate_identity, kdf, public_bytes, sign, verify
from fedray.protocol.crypto.keystream import Keystream, Pad

A, B, C = (bytes([i]) * 32 for i in range(3))


def test_the_order_is_that_of_the_utf8_bytes():
    roster = Roster.of({"č": A, "b": B, "Z": C})
    assert roster.names == ("Z", "b", "č")
    assert roster.keys == (C, B, A)
    assert [roster.index(n) for n in roster.names] == [0, 1, 2]
    assert Roster.of({"Z": C, "č": A, "b": B}).hash == roster.hash
    assert roster.subset(["č", "b"]) == Roster.of({"b": B, "č": A})


def test_every_name_and_key_is_in_the_hash():
    rosters = [
        {"a": A, "b": B},
        {"a": B, "b": A},
        {"a": A, "c": B},
        {"a": A, "b": C},
        {"a": A},
        {"a": A, "b": B, "c": C},
    ]
    assert len({Roster.of(r).hash for r in rosters}) == len(rosters)


@pytest.mark.parametrize(
    "keys",
    [{}, {"": A}, {"a": A[:31]}, {"a": A, "b": A}, {"e\u0301": A}, {"\ud800": A}, {3: A}, {"a": bytearray(32)}],
    ids=repr,
)
def test_unacceptable_rosters_are_refused(keys):
    with pytest.raises(PlanError):
        Roster.of(keys)


def test_a_roster_out_of_order_is_refused():
    with pytest.raises(PlanError, match="order"):
        Roster(("b", "a"), (A, B))
    with pytest.raises(ProtocolError, match="not in the roster"):
        Roster.of({"a": A}).index("b")


def test_the_derivation_is_hkdf_sha256():
    secret, salt, info = b"secret" * 5, b"salt", b"info"
    extracted = hmac.digest(salt, secret, hashlib.sha256)
    assert kdf(secret, salt, info) == hmac.digest(extracted, info + b"\1", hashlib.sha256)


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31), bytes(31)], ids=["zero", "one", "short"])
def test_a_key_that_forces_the_secret_is_refused(public):
    with pytest.raises(ProtocolError, match="invalid"):
        exchange(X25519PrivateKey.generate(), public)


def test_signatures():
    key = generate_identity()
    signature = sign(key, b"statement")
    assert verify(public_bytes(key), b"statement", signature)
    assert not verify(public_bytes(key), b"statement.", signature)
    assert not verify(public_bytes(generate_identity()), b"statement", signature)
    assert not verify(public_bytes(key), b"statement", bytes(64))
    assert not verify(bytes(31), b"statement", signature)


def holders():
    """Every object that holds a secret."""
    kit = session(3)
    shield = kit.shields["p00"]
    kit.send("p00", context_of(0, manifest_of(2)), plain_values([1.0, 2.0]))
    return {
        "shield": shield,
        "joining": kit.joining("p00"),
        "member": shield._member,
        "pair keys": shield._pair_keys,
        "rounds": shield.rounds,
        "identity": kit.keys["p00"],
        "keystream": Keystream(b"k" * 32),
        "pad": Pad([b"k" * 32], []),
        "contribution": plain_values([987654321.0]),
    }


@pytest.mark.parametrize("name", holders())
def test_holders_of_secrets_are_never_pickled_or_copied(name):
    holder = holders()[name]
    for attempt in (pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy):
        if name == "identity" and attempt in (copy.copy, copy.deepcopy):
            continue  # a key object of the cryptography package: a copy stays in the process
        with pytest.raises(TypeError):
            attempt(holder)


@pytest.mark.parametrize("name", holders())
def test_a_repr_shows_no_secret(name):
    holder = holders()[name]
    text = f"{holder!r} {holder}"
    assert len(text) < 300
    assert "987654321" not in text
    for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
        if isinstance(value, bytes) and len(value) >= 16:
            assert value.hex() not in text
            assert repr(value) not in text


def test_errors_show_no_value_and_no_key():
    kit = session(3)
    with pytest.raises(ProtocolError) as failure:
        kit.send("p00", context_of(0, manifest_of(2)), plain_values([987654321.0, np.nan]))
    assert "987654321" not in str(failure.value)
    assert "p00" in str(failure.value)
    assert "'w'" in str(failure.value)
