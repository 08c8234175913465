# SPDX-License-Identifier: Apache-2.0
"""The door and the ledger broken on purpose: what leaves unseen, and which lie a ledger no longer shows."""

import dataclasses
import hashlib
import re

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pure.ledger_kit import SID, page_of
from pure.test_egress import EVERY_CALL, Noting, party

from fedray.party.door import journal, ledger_page
from fedray.party.door.entry import Entry, Total
from fedray.party.door.journal import Journal
from fedray.party.door.ledger_page import LedgerPage, check_page, check_together
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
    monkeypatch.setattr(Party, "_depart", lambda *given: getattr(given[-1], "value", given[-1]))
    assert unrecorded() >= {"export", "describe", "ledger", "introduce", "watch", "deliver"}


def test_an_error_beside_the_door_is_found(monkeypatch):
    monkeypatch.setattr(Party, "fail", lambda *given: given[2])
    assert unrecorded() >= {"run", "ask", "export", "settle"}


def book():
    key = Ed25519PrivateKey.generate()
    journal = Journal("alice", key)
    for number in range(3):
        journal.append(Entry("driver", "raw", None, "int", number, f"{number}:reveal", True))
    roster = {"alice": key.public_key().public_bytes_raw()}
    journal.begin(SID, {})
    return page_of(journal, roster), roster


def reordered(page):
    """Swaps two entries and numbers them anew."""
    first, second, *rest = page.lines
    second, first = second.replace(b'"index":1', b'"index":0'), first.replace(b'"index":0', b'"index":1')
    return LedgerPage(page.head, (second, first, *rest))


def test_a_chain_that_forgets_what_came_before_hides_a_reordering(monkeypatch):
    page, roster = book()
    assert check_page(page, roster) is None
    assert "reordered" in check_page(reordered(page), roster)

    def forgetful(head, line):
        own = hashlib.sha256(re.sub(rb'"index":[0-9]+', b"", line)).digest()
        return bytes(a ^ b for a, b in zip(head, own, strict=True))

    monkeypatch.setattr(journal, "link", forgetful)
    page, roster = book()
    assert check_page(reordered(page), roster) is None


def test_a_head_that_nobody_signed_hides_a_truncation(monkeypatch):
    page, roster = book()
    head = dataclasses.replace(page.head, count=2, head=journal.chain(journal.start("alice"), page.lines[:2]))
    shorter = LedgerPage(dataclasses.replace(head, totals={("driver", "raw"): Total(2, 1)}), page.lines[:2])
    assert "signature does not fit" in check_page(shorter, roster)
    trusting = type("Trusting", (), {"verify": lambda *_: None})
    monkeypatch.setattr(ledger_page, "Ed25519PublicKey", type("Keys", (), {"from_public_bytes": lambda _: trusting()}))
    assert check_page(shorter, roster) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"count": 2},
        {"sid": bytes(32)},
        {"reading": 2},
        {"closed": True},
        {"totals": {}},
        {"head": bytes(32)},
        {"party": "bob"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_the_signature_is_over_all_that_a_head_says(changed):
    page, roster = book()
    key = Ed25519PublicKey.from_public_bytes(roster["alice"])
    key.verify(page.head.signature, page.head.statement(roster))
    with pytest.raises(InvalidSignature):
        key.verify(page.head.signature, dataclasses.replace(page.head, **changed).statement(roster))
    with pytest.raises(InvalidSignature):
        key.verify(page.head.signature, page.head.statement(roster | {"bob": bytes(32)}))


@pytest.mark.parametrize(("field", "other"), [("sid", bytes(32)), ("reading", 2), ("closed", True)])
def test_a_head_that_does_not_sign_where_it_stands_lets_a_page_move(field, other, monkeypatch):
    """The broken variant: whoever keeps the file writes another session, another reading or a closing mark over it."""
    page, roster = book()
    moved = LedgerPage(dataclasses.replace(page.head, **{field: other}), page.lines)
    assert "the signature does not fit" in check_page(moved, roster)
    statement = journal.Head.statement

    def unplaced(head, keys):
        return statement(dataclasses.replace(head, sid=bytes(32), reading=0, closed=False), keys)

    monkeypatch.setattr(journal.Head, "statement", unplaced)
    page, roster = book()
    moved = LedgerPage(dataclasses.replace(page.head, **{field: other}), page.lines)
    assert check_page(moved, roster) is None


def test_a_reader_that_does_not_compare_pages_takes_one_of_another_session():
    """The broken variant of `check_together`: every page by itself is as its party signed it."""
    page, roster = book()
    assert check_page(page, roster) is None
    assert check_together({"alice": page}, SID, 1) == []
    assert "another session" in check_together({"alice": page}, bytes(32), 1)[0]
    assert "reading 1 among those of reading 2" in check_together({"alice": page}, SID, 2)[0]
