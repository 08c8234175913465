# SPDX-License-Identifier: Apache-2.0
"""A party that breaks the protocol is named to the user, with what it signed; the round goes on without its lie."""

import logging
from contextlib import suppress
from dataclasses import replace

import pytest
from inline.dropouts import amounts, total
from inline.federated import world

import fedray as sf
from fedray.errors import EncodingError, ProtocolError
from fedray.ml.nn import FaultRecord
from fedray.party.records import Answer, RoundMessage, ShareMessage
from fedray.party.rounds.contributor import Contributor
from fedray.party.rounds.conversation import Post
from fedray.party.rounds.server import RoundServer
from fedray.party.rounds.server_rounds import ServerRounds
from fedray.party.rounds.share_owner import ShareOwner
from fedray.protocol.crypto.keys import sign
from fedray.protocol.messages import HASH_BYTES, dec, enc, purpose_of
from fedray.protocol.recovery.evidence import TwoInputs
from fedray.protocol.recovery.round_messages import Survive, pack_indices
from fedray.protocol.scheme import Fault
from fedray.security.aggregation import SecureAggregator, SPUAggregator
from fedray.utils.testing import cluster_def

LIAR = "bob"


def lying(monkeypatch, lie):
    """Lets one party send, before each message that `lie` makes another of, that other one."""
    dispatch = Contributor._dispatch

    def dispatched(self, post):
        other = lie(self._context, post.message) if self._context.name == LIAR else None
        if other is not None:
            with suppress(ProtocolError):
                self._context.get(dispatch(self, Post(post.call, other, post.kind)), None)
        return dispatch(self, post)

    monkeypatch.setattr(Contributor, "_dispatch", dispatched)


def another_set(context, message):
    """Returns a signature under another set of survivors, in round 1."""
    if not isinstance(message, RoundMessage) or message.number != 1 or purpose_of(message.body) != "signed-survive":
        return None
    survive = Survive.decode(message.body)
    shape = (HASH_BYTES, int, HASH_BYTES, bytes, HASH_BYTES)
    sid, number, ctx, _, hashes = dec("survive", survive.statement, shape)
    statement = enc("survive", sid, number, ctx, pack_indices((0, 1, 2)), hashes)
    body = Survive(statement, survive.index, sign(context.identity, statement)).encode()
    return RoundMessage(message.session, message.number, body)


def garbage(context, message):
    return RoundMessage(message.session, message.number, b"x" * 100) if isinstance(message, RoundMessage) else None


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if "is at fault" in record.getMessage()]


def test_what_a_party_signed_against_the_protocol_is_in_the_history_with_its_proof(start, monkeypatch, caplog):
    fed = world(start, rows=(20, 20, 20, 20), backend="numpy")
    lying(monkeypatch, another_set)
    aggregator = SecureAggregator(fed.server, fed.devices, on_dropout="recover")
    with caplog.at_level(logging.WARNING, "fedray"):
        history = fed.model(aggregator=aggregator).fit(fed.x, fed.y, epochs=2, batch_size=10, verbose=0)
    assert history.epoch == [0, 1], "the round opened with its right signature"
    assert history.dropouts == []
    (fault,) = history.faults
    assert (fault.epoch, fault.round, fault.party, fault.proven) == (0, 1, LIAR, True)
    assert fault.what == "it signed another set of survivors"
    roster = sf.ledger().roster
    found = fault.proves(roster[LIAR])
    assert found == "it signed that round 1 is opened over the parties at the places 0, 1, 2 of the roster"
    with pytest.raises(ProtocolError, match="signed with the party's key"):
        fault.proves(roster["alice"])
    assert warnings(caplog) == [
        "round 1: party 'bob' is at fault: it signed another set of survivors; its signature proves: it signed that "
        "round 1 is opened over the parties at the places 0, 1, 2 of the roster"
    ]
    survive = Survive.decode(fault.evidence)  # nothing is in it but numbers of parties, hashes and a signature
    assert survive.encode() == fault.evidence
    assert [len(part) for part in dec("survive", survive.statement, (32, int, 32, bytes, 32))[::2]] == [32, 32, 32]


def test_a_message_that_is_none_is_a_fault_without_proof(start, monkeypatch, caplog):
    fed = world(start, rows=(20, 20, 20))
    lying(monkeypatch, garbage)
    aggregator = SecureAggregator(fed.server, fed.devices, on_dropout="abandon")
    with caplog.at_level(logging.WARNING, "fedray"):
        assert aggregator.sum(amounts(fed.devices)) == total(fed.devices)
    (fault,) = aggregator.faults
    assert (fault.number, fault.party, fault.evidence) == (0, LIAR, b"")
    assert len(warnings(caplog)) == 1
    assert warnings(caplog)[0].startswith("round 0: party 'bob' is at fault: ")
    assert warnings(caplog)[0].endswith("; nothing proves it to others")
    monkeypatch.undo()
    assert aggregator.sum(amounts(fed.devices)) == total(fed.devices)
    assert aggregator.faults == (), "of the last sum alone"


def test_faults_of_an_evaluation_are_in_the_log_and_not_in_the_next_history(start, monkeypatch, caplog):
    fed = world(start, rows=(20, 20, 20), backend="numpy")
    model = fed.model(aggregator=SecureAggregator(fed.server, fed.devices, on_dropout="abandon"))
    lying(monkeypatch, garbage)
    with caplog.at_level(logging.WARNING, "fedray"):
        model.evaluate(fed.x, fed.y, verbose=0)
    assert len(warnings(caplog)) == 1
    monkeypatch.undo()
    history = model.fit(fed.x, fed.y, batch_size=10, verbose=0)
    assert history.faults == []


def test_a_wrong_share_is_told_by_the_compute_party(start, monkeypatch):
    fed = world(start, rows=(20, 20, 20))
    send = ShareOwner._send

    def sent(self, call, commitment, to, message):
        if self._context.name == LIAR:
            with suppress(ProtocolError):
                self._context.get(
                    send(self, call, commitment, to, ShareMessage(message.number, b"x" * 100, False)), None
                )
        return send(self, call, commitment, to, message)

    monkeypatch.setattr(ShareOwner, "_send", sent)
    aggregator = SPUAggregator(sf.SPU(cluster_def(["alice", "carol"])))
    assert aggregator.sum(amounts(fed.devices)) == total(fed.devices)
    assert {(fault.number, fault.party, fault.evidence) for fault in aggregator.faults} == {(0, LIAR, b"")}


def test_what_a_server_makes_up_is_no_proof(start, monkeypatch, caplog):
    fed = world(start, rows=(20, 20, 20), backend="numpy")
    progress = ServerRounds.progress
    two = TwoInputs(b"first", bytes(64), b"second", bytes(64)).encode()
    made_up = (
        Fault(0, LIAR, "it lied", b"garbage"),
        Fault(0, LIAR, "it lied", two),
        Fault(0, "nobody", "it lied", two),
    )
    monkeypatch.setattr(ServerRounds, "progress", lambda self: replace(progress(self), faults=made_up))
    with caplog.at_level(logging.WARNING, "fedray"):
        history = fed.model().fit(fed.x, fed.y, batch_size=10, verbose=0)
    assert [(fault.proven, fault.evidence) for fault in history.faults] == [(False, b"")] * 3
    assert len(warnings(caplog)) == 3
    assert all(
        told.endswith("; what is shown as signed by it proves nothing, and is left out") for told in warnings(caplog)
    )


def test_a_record_without_evidence_proves_nothing():
    fault = FaultRecord(0, 1, "bob", "it sent another session's message")
    assert not fault.proven
    with pytest.raises(EncodingError):
        fault.proves(bytes(32))


ESCAPES = "late\x1b[2K\x1b[1A\nround 0: party 'bob' is at fault; its signature proves: everything \ud800"


def test_what_a_server_writes_is_one_line_of_plain_text(start, monkeypatch, caplog, capsys):
    """An escape could wipe out the line that says what a fault's evidence proves, and make up another."""
    progress, deliver = ServerRounds.progress, RoundServer.deliver
    fault = Fault(1, LIAR, ESCAPES + "x" * 5000, b"")
    monkeypatch.setattr(ServerRounds, "progress", lambda self: replace(progress(self), faults=(fault,)))

    def told(self, sender, message):
        reply = deliver(self, sender, message)
        given_up = isinstance(message, RoundMessage) and message.number == 2
        return replace(reply, value=Answer("aborted", reason=ESCAPES)) if given_up else reply

    fed = world(start, rows=(16,) * 4, backend="numpy")
    model = fed.model()
    monkeypatch.setattr(RoundServer, "deliver", told)
    with pytest.raises(ProtocolError) as caught:
        model.fit(fed.x, fed.y, batch_size=4, verbose=2)
    for text in (str(caught.value), caplog.text, capsys.readouterr().out):
        assert "\x1b" not in text
        assert "\nround 0" not in text
    assert r"late\x1b[2K\x1b[1A\nround 0" in caplog.text
    assert "more characters)" in caplog.text
