# SPDX-License-Identifier: Apache-2.0
"""Scheme sharing where the sum is opened, and where an owner learns whether its input was in it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from pure.masking_kit import context_of
from pure.sharing_kit import MANIFEST, ONES, ready, session

from fedray.errors import ProtocolError
from fedray.protocol.sharing.agreement import Partial, Proof


def test_the_opener_wants_every_compute_party():
    kit = ready()
    kit.agree(kit.owners)
    collector = kit.collector(0, MANIFEST)
    sums = {name: adder.publish() for name, adder in kit.adders.items()}
    with pytest.raises(ProtocolError, match="no sum yet"):
        collector.open()
    for name, message in itertools.islice(sums.items(), 2):
        collector.add(name, message)
        collector.add(name, message)
    assert collector.missing() == {kit.config.receivers[2]}
    with pytest.raises(ProtocolError, match="no sum yet from " + kit.config.receivers[2]):
        collector.open()
    with pytest.raises(ProtocolError, match="second, different sum"):
        collector.add(kit.config.receivers[0], sums[kit.config.receivers[1]])
    with pytest.raises(ProtocolError, match="another compute party's"):
        collector.add(kit.config.receivers[2], sums[kit.config.receivers[1]])
    collector.add(kit.config.receivers[2], sums[kit.config.receivers[2]])
    assert kit.read(collector.open(), MANIFEST).values.tolist() == [4.0] * 4
    with pytest.raises(ProtocolError, match="opened before"):
        collector.open()


def test_an_altered_sum_is_noise():
    kit = ready()
    kit.agree(kit.owners)
    collector = kit.collector(0, MANIFEST)
    for name, adder in kit.adders.items():
        partial = Partial.decode(adder.publish())
        wrong = partial.words + np.uint64(1 << 60)
        collector.add(name, replace(partial, words=wrong).encode() if partial.compute_party == 1 else partial.encode())
    with pytest.raises(ProtocolError, match="nothing is published"):
        collector.open()


@pytest.mark.parametrize(
    "change",
    [
        {"signatures": ()},
        {"signatures": (bytes(64),) * 3},
        {"agreement": {"members": (0, 1, 2)}},
        {"agreement": {"number": 1}},
        {"agreement": {"sid": bytes(32)}},
        {"agreement": {"ctx": bytes(32)}},
    ],
)
def test_a_sum_without_everybodys_signature_is_refused(change):
    kit = ready()
    kit.agree(kit.owners)
    name, adder = next(iter(kit.adders.items()))
    partial = Partial.decode(adder.publish())
    proof = partial.proof
    agreement = replace(proof.agreement, **change.get("agreement", {}))
    forged = Proof(agreement, change.get("signatures", proof.signatures))
    with pytest.raises(ProtocolError):
        kit.collector(0, MANIFEST).add(name, replace(partial, proof=forged).encode())
    with pytest.raises(ProtocolError):
        kit.shields[kit.owners[0]].certify(forged.encode())
    assert kit.shields[kit.owners[0]].certify(proof.encode()) == kit.owners


def test_an_owner_that_was_left_out_puts_its_round_back():
    kit = session(4, 3)
    kit.expect(MANIFEST)
    for name in kit.owners[:3]:
        kit.send(name, context_of(0, MANIFEST), ONES)
    kit.shields[kit.owners[3]].protect(context_of(0, MANIFEST), ONES)
    kit.agree(kit.owners[:3])
    kit.open(0, MANIFEST)
    proof = next(iter(kit.adders.values())).proof(0)
    with pytest.raises(ProtocolError, match="without its input"):
        kit.shields[kit.owners[3]].certify(proof)
    with pytest.raises(ProtocolError, match="not the last one"):
        next(iter(kit.adders.values())).proof(1)


def test_secrets_are_never_pickled():
    import pickle

    kit = ready()
    adder = next(iter(kit.adders.values()))
    for secret in (kit.shields[kit.owners[0]], adder, next(iter(adder._current.piles.values()))):
        with pytest.raises(TypeError, match="holds secrets"):
            pickle.dumps(secret)
        assert "0x" not in repr(secret)
