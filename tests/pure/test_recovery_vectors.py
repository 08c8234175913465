# SPDX-License-Identifier: Apache-2.0
"""Every intermediate value of one round with recovery, against a slow implementation that shares no code with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pure.recovery_reference import aes256, vectors, x25519

from fedray.protocol.checks.judge import OwnCheck
from fedray.protocol.checks.secret import GroupSecret
from fedray.protocol.crypto import shamir
from fedray.protocol.crypto.graph import Graph
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.pipeline import run
from fedray.protocol.recovery.key_directory import Directory
from fedray.protocol.recovery.key_messages import Keys
from fedray.protocol.recovery.pads import PadScope, RoundSecrets, self_commitment
from fedray.protocol.recovery.round_messages import MaskedInput, Survivors, masked_statement
from fedray.protocol.recovery.thresholds import ring_of

SAVED = json.loads((Path(__file__).parent / "vectors" / "recovery.json").read_text())


def pad_of(scope: PadScope, secrets: list[RoundSecrets], party: int) -> Pad:
    """The pad of one party: its own, and one with each other; the lower index adds."""
    publics = {other: secrets[other].public for other in range(3) if other != party}
    keys = scope.pair_keys(secrets[party].private, publics, party)
    plus = [scope.self_key(secrets[party].seed, party), *(key for other, key in keys.items() if other > party)]
    return Pad(plus, [key for other, key in keys.items() if other < party])


def test_the_slow_implementation_meets_published_values() -> None:
    # FIPS 197, appendix C.3; RFC 7748, section 5.2.
    assert aes256(bytes(range(32)), bytes.fromhex("00112233445566778899aabbccddeeff")).hex() == (
        "8ea2b7ca516745bfeafc49904b496089"
    )
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert x25519(scalar, point).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


@pytest.mark.parametrize("saved", SAVED, ids=lambda v: f"ring of {v['bits']} bits")
def test_the_saved_vectors_are_those_of_the_slow_implementation(saved: dict[str, Any]) -> None:
    assert vectors(saved["bits"]) == saved


@pytest.mark.parametrize("v", SAVED, ids=lambda v: f"ring of {v['bits']} bits")
def test_every_value_of_a_round(v: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sid, ctx, number, bits = bytes.fromhex(v["sid"]), bytes.fromhex(v["ctx"]), v["number"], v["bits"]
    secrets = [RoundSecrets() for _ in range(3)]
    for i, own in enumerate(secrets):
        own.private = X25519PrivateKey.from_private_bytes(bytes.fromhex(v["private"][i]))
        own.seed = bytes.fromhex(v["seed"][i])
    assert [own.public.hex() for own in secrets] == v["public"]
    committed = [self_commitment(sid, number, i, own.seed) for i, own in enumerate(secrets)]
    assert [h.hex() for h in committed] == v["commitment"]
    keys = [Keys(sid, v["batch"], i, (number,), (own.public,), (committed[i],)) for i, own in enumerate(secrets)]
    directory = Directory(sid, v["batch"], keys)
    assert directory.digest.hex() == v["digest"]
    assert directory.ack_statement.hex() == v["ack_statement"]
    scope = PadScope(sid, directory.digest, number, ctx, 4, bits)
    for names, key in v["pair_keys"].items():
        low, high = map(int, names.split("-"))
        assert scope.pair_keys(secrets[low].private, {high: secrets[high].public}, low)[high].hex() == key
        assert scope.pair_keys(secrets[high].private, {low: secrets[low].public}, high)[low].hex() == key
    assert [scope.self_key(own.seed, i).hex() for i, own in enumerate(secrets)] == v["self_keys"]

    group = GroupSecret(bytes.fromhex(v["group"]), sid, 3)
    checks = group.checks("recovery", directory.digest, number, ctx, 4, bits)
    assert checks._key.hex() == v["check_key"]
    hashes = []
    for i in range(3):
        words = np.array(v["inputs"][i], f"<u{bits // 8}")
        own, pad = OwnCheck(checks, i), pad_of(scope, secrets, i)
        run(words, own.product.take, pad.apply)
        assert own.result() == v["checks"][i]
        assert pad.cover(own.result()) == v["covered"][i]
        assert words.tolist() == v["masked"][i]
        hashes.append(MaskedInput(sid, number, i, ctx, b"", b"", words, v["covered"][i]).hash())
        assert masked_statement(sid, number, i, ctx, words, hashes[i]).hex() == v["masked_statements"][i]
    survivors = Survivors(sid, number, ctx, (0, 1), (hashes[0], hashes[1]))
    assert survivors.statement.hex() == v["survive_statement"]

    coefficients = iter([int(c, 16) for c in v["coefficients"]])
    monkeypatch.setattr("fedray.protocol.crypto.shamir.secrets.randbelow", lambda _: next(coefficients))
    assert [s.hex() for s in shamir.split(bytes.fromhex(v["private"][0]), 3, [1, 2, 3])] == v["shares_of_s0"]
    ring = ring_of(Graph(10, 4, 2, 1, chosen=True), bytes.fromhex(v["gseed"]), sid, number)
    assert list(ring) == v["ring_of_ten"]


@pytest.mark.parametrize("v", SAVED, ids=lambda v: f"ring of {v['bits']} bits")
def test_the_sum_of_the_survivors(v: dict[str, Any]) -> None:
    expected = [(a + b) % 2 ** v["bits"] for a, b in zip(v["inputs"][0], v["inputs"][1], strict=True)]
    assert v["sum"] == expected
    assert v["sum"][-1] == 2
    group = GroupSecret(bytes.fromhex(v["group"]), bytes.fromhex(v["sid"]), 3)
    place = (bytes.fromhex(v["digest"]), v["number"], bytes.fromhex(v["ctx"]), 4, v["bits"])
    checks = group.checks("recovery", *place)
    run(np.array(v["sum"], f"<u{v['bits'] // 8}"), (product := checks.product()).take)
    assert checks.check(product, (0, 1)) == v["check_sum"]
