# SPDX-License-Identifier: Apache-2.0
"""The door and the ledger broken on purpose: what leaves unseen, and which lie a ledger no longer shows."""

import dataclasses
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pure.test_egress import EVERY_CALL, Noting, party

from fedray.party.door import journal
from fedray.party.door.journal import Entry, Journal, canonical, check_page
from fedray.party.party import Party


def unrecorded():
    """Returns the methods whose answers came out of a party without an entry in its ledger."""
    found = set()
    for method, args in EVERY_CALL:
        policy = Noting()
        tried = party(policy)
        before = len(policy.asked)
        out = tried.handle(method, f"4:{method}", *args)
        if out is not None and len(policy.asked) == before:
            found.add(method)
    return found


def test_an_answer_beside_the_door_is_found(monkeypatch):
    assert unrecorded() == set()
    monkeypatch.setattr(Party, "_depart", lambda *given: given[-1].value)
    assert unrecorded() >= {"export", "describe", "ledger", "identity_key", "watch", "deliver"}


def test_an_error_beside_the_door_is_found(monkeypatch):
    monkeypatch.setattr(Party, "_fail", lambda *given: given[2])
    assert unrecorded() >= {"run", "ask", "export", "settle"}


def book():
    key = Ed25519PrivateKey.generate()
    journal = Journal("alice", key)
    for number in range(3):
        journal.append(Entry("driver", "raw", None, "int", number, f"{number}:reveal", True))
    roster = {"alice": key.public_key().public_bytes_raw()}
    return journal.page(roster), roster


def reordered(page):
    first, second, *rest = page.entries
    return dataclasses.replace(page, entries=(second, first, *rest))


def test_a_chain_that_forgets_what_came_before_hides_a_reordering(monkeypatch):
    page, roster = book()
    assert check_page(page, roster) is None
    assert "reordered" in check_page(reordered(page), roster)

    def forgetful(head, entry):
        own = hashlib.sha256(canonical(dataclasses.asdict(entry))).digest()
        return bytes(a ^ b for a, b in zip(head, own, strict=True))

    monkeypatch.setattr(journal, "link", forgetful)
    page, roster = book()
    assert check_page(reordered(page), roster) is None


def test_a_head_that_nobody_signed_hides_a_truncation(monkeypatch):
    page, roster = book()
    shorter = dataclasses.replace(page, entries=page.entries[:2], head=journal.chain("alice", page.entries[:2]))
    assert "signature does not fit" in check_page(shorter, roster)
    trusting = type("Trusting", (), {"verify": lambda *_: None})
    monkeypatch.setattr(journal, "Ed25519PublicKey", type("Keys", (), {"from_public_bytes": lambda _: trusting()}))
    assert check_page(shorter, roster) is None


def test_the_signature_is_over_the_number_of_entries_too():
    page, roster = book()
    said = journal.statement("alice", roster, 3, page.head)
    Ed25519PublicKey.from_public_bytes(roster["alice"]).verify(page.signature, said)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(roster["alice"]).verify(
            page.signature, journal.statement("alice", roster, 2, page.head)
        )
