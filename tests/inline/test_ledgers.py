# SPDX-License-Identifier: Apache-2.0
"""A session's ledger, from its first entry to its closing mark."""

import threading

import numpy as np
import pytest

import fedray as sf
from fedray.errors import EgressDenied, NotInitialized
from fedray.party.door import journal
from fedray.party.door.commitment import Commitments
from fedray.party.door.ledger_file import Book, check, from_bytes, to_bytes
from fedray.runtime.inline import InlineTransport
from fedray.runtime.session import current
from fedray.security.aggregation import PlainAggregator, SecureAggregator, SPUAggregator

PARTIES = ["alice", "bob", "charlie"]


def begin():
    sf.shutdown()
    sf.init(PARTIES, "inline", seed=1)
    return sf.PYU("alice")


def test_the_ledger_that_shutdown_saves_is_closed(tmp_path):
    alice = begin()
    sf.reveal(alice(np.ones)(3))
    sf.ledger().save(tmp_path / "open.jsonl")
    sid = current().sid
    sf.shutdown(ledger=tmp_path / "closed.jsonl")
    read = {name: from_bytes((tmp_path / f"{name}.jsonl").read_bytes()) for name in ("open", "closed")}
    assert [book.problems() for book in read.values()] == [[], []]
    assert [book.open() for book in read.values()] == [PARTIES, []]
    assert {book.sid for book in read.values()} == {sid}
    # alice's early page in the place of her last one.
    mixed = Book(read["closed"].pages | {"alice": read["open"].pages["alice"]}, read["closed"].roster, sid, 2)
    assert check(to_bytes(mixed)) == ["alice: a page of reading 1 among those of reading 2"]
    with pytest.raises(NotInitialized, match="no ledger to save"):
        sf.shutdown(ledger=tmp_path / "none.jsonl")


def test_no_two_sessions_have_the_same_name():
    names = set()
    for _ in range(3):
        begin()
        names.add(current().sid)
    assert len(names) == 3


def test_nothing_leaves_a_party_after_its_closing_mark():
    alice = begin()
    held = alice(np.ones)(3)
    sf.wait(held)
    ledger = current().ledger(close=True)
    assert (ledger.verify(), ledger.book.open()) == ([], [])
    with pytest.raises(EgressDenied, match="lets nothing leave"):
        sf.reveal(held)
    party = current().transport._hosts["alice"]._party
    assert len(party._journal._lines) == ledger.pages["alice"].head.count
    sf.shutdown()


def test_a_party_that_goes_on_after_it_is_found(monkeypatch):
    """The broken variant: a closing mark that shuts nothing."""
    alice = begin()
    held = alice(np.ones)(3)
    sf.wait(held)
    sign = journal.Journal._sign

    def half(self, roster, reading, *, closed):
        head = sign(self, roster, reading, closed=closed)
        self._closed = False
        return head

    monkeypatch.setattr(journal.Journal, "_sign", half)
    current().ledger(close=True)
    assert sf.reveal(held).tolist() == [1, 1, 1]
    sf.shutdown()


def test_a_command_under_way_does_not_keep_a_session_from_its_end(tmp_path):
    begin()
    started, released = threading.Event(), threading.Event()
    current().transport._hosts["alice"]._lanes["command"].put(lambda: (started.set(), released.wait(20)))
    assert started.wait(5)
    sf.shutdown(ledger=tmp_path / "ledger.jsonl")
    released.set()
    assert from_bytes((tmp_path / "ledger.jsonl").read_bytes()).open() == []


def test_a_party_that_has_died_is_missing_and_the_others_close(tmp_path):
    begin()
    current().transport.lose("bob")
    sf.shutdown(ledger=tmp_path / "ledger.jsonl")
    book = from_bytes((tmp_path / "ledger.jsonl").read_bytes())
    assert (book.problems(), book.open()) == (["bob: missing"], [])


def test_totals_are_read_without_entries():
    alice = begin()
    sf.reveal(alice(np.ones)(3))
    totals = sf.ledger(entries=False)
    assert totals.totals()["alice", "driver", "raw"].nbytes == 24
    assert totals.verify() == []
    assert "raw" in repr(totals)
    assert "open: the session had not ended" in totals.state()
    assert totals.pages["alice"].lines is None
    sf.shutdown()


@pytest.mark.parametrize("kind", [SecureAggregator, PlainAggregator, "shares"])
def test_every_contribution_has_a_commitment_that_its_party_opens(kind, monkeypatch):
    begin()
    seen = []
    of = Commitments.of

    def noting(self, context, contribution):
        seen.append((self, self._sid, context, contribution, of(self, context, contribution)))
        return seen[-1][-1]

    monkeypatch.setattr(Commitments, "of", noting)
    devices = [sf.PYU("alice"), sf.PYU("bob")]
    if kind == "shares":
        aggregator = SPUAggregator(sf.SPU(sf.utils.testing.cluster_def(["alice", "charlie"])))
    else:
        aggregator = kind(sf.PYU("charlie"), devices)
    assert aggregator.sum([device(np.array)([1.5, 2.5]) for device in devices]).tolist() == [3, 5]
    entries = [row.entry for row in sf.ledger().rows if row.entry.commitment]
    assert {entry.commitment for entry in entries} == {hidden for *_, hidden in seen}
    assert {entry.kind for entry in entries} <= {"masked", "share", "raw"}
    assert len(seen) == 2
    for own, sid, context, contribution, hidden in seen:
        assert sid == current().sid
        assert own.opens(hidden, sid, context, contribution)
        assert not any(other.opens(hidden, sid, context, contribution) for other, *_ in seen if other is not own)
    sf.shutdown()


def test_every_party_is_asked_to_close_before_it_ends(start, monkeypatch):
    """A party in a process of its own is killed at the end, and closes nothing by itself."""
    session, asked, call = start("inline"), [], InlineTransport.call

    def watched(self, party, method, *args):
        asked.append((party, method))
        return call(self, party, method, *args)

    monkeypatch.setattr(InlineTransport, "call", watched)
    sf.shutdown()
    assert asked == [(party, "close_ledger") for party in session.parties]
