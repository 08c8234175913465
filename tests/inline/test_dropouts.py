# SPDX-License-Identifier: Apache-2.0
"""Parties that drop out of sums of values at any step, in one process; `tests/cluster/test_dropouts.py` ends real ones.

A sum is that of the parties that were there, or there is none; nobody waits for a dead one, and the user is told.
"""

import os
import threading
import time

import pytest
from inline.dropouts import (
    ABANDONED,
    KEYS,
    PATCHED,
    RECOVERED,
    amounts,
    at,
    ending,
    happening,
    lets_end,
    sleeping,
    total,
)
from inline.turned_clock import turn_clock

import fedray as sf
from fedray.errors import PartyLost, ProtocolError
from fedray.party.rounds.server_rounds import ServerRounds
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.recovery import opening
from fedray.security.aggregation import SecureAggregator

NAMES = ("alice", "bob", "carol", "dave", "erin")
PATIENCE = 60.0
"""Deadline of a round that nobody may come near, seconds: a dead party is not waited for."""


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Puts back what the steps replace in this process."""
    for cls, name in PATCHED:
        monkeypatch.setattr(cls, name, getattr(cls, name))


@pytest.fixture
def parties(start):
    def begin(count=4):
        start("inline", (*NAMES[:count], "server"), seed=1)
        return [sf.PYU(name) for name in NAMES[:count]], sf.PYU("server")

    return begin


MATRIX = [("abandon", step, there) for step, there in ABANDONED.items()]
MATRIX += [("recover", step, there) for step, there in RECOVERED.items()]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("count", [4, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("mode", "step", "there"), MATRIX)
def test_a_party_that_ends_at_any_step(parties, caplog, mode, step, there, number, count):
    devices, server = parties(count)
    bob = devices[1]
    aggregator = SecureAggregator(server, devices, on_dropout=mode, round_timeout=PATIENCE)
    values = amounts(devices)
    lets_end(bob, server, step, number)
    for _ in range(number):
        assert aggregator.sum(values) == total(devices)
    if there:
        assert aggregator.sum(values) == total(devices)
        assert aggregator.dropouts == ()
        assert not caplog.records
    elif mode == "recover":
        assert aggregator.sum(values) == total(devices, but=bob)
        (missing,) = aggregator.dropouts
        assert (missing.number, missing.party, missing.abandoned) == (number, "bob", False)
        (record,) = caplog.records
        others = ", ".join(device.name for device in devices if device != bob)
        assert record.message == f"the sum is over {others} only; missing: bob (its process has ended)"
    else:
        with pytest.raises(PartyLost, match="nothing was opened: the process of party 'bob' has ended") as caught:
            aggregator.sum(values)
        assert caught.value.party == "bob"
        (missing,) = aggregator.dropouts
        assert (missing.number, missing.party, missing.abandoned) == (number, "bob", True)
    with pytest.raises(PartyLost, match=r"'bob' has ended, and its value is gone with it\. Sum the others'"):
        aggregator.sum(values)
    assert aggregator.dropouts == ()
    rest = [device for device in devices if device != bob]
    assert SecureAggregator(server, rest, on_dropout=mode).sum(amounts(rest)) == total(rest)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("step", KEYS)
def test_a_party_that_ends_while_keys_are_prepared(parties, step):
    devices, server = parties()
    aggregator = SecureAggregator(server, devices, on_dropout="recover", round_timeout=PATIENCE)
    lets_end(devices[1], server, step)
    with pytest.raises(PartyLost, match="nothing was opened: the process of party 'bob' has ended"):
        aggregator.sum(amounts(devices))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("mode", ["abandon", "recover"])
def test_of_three_parties_none_may_drop_out(parties, mode):
    devices, server = parties(3)
    aggregator = SecureAggregator(server, devices, on_dropout=mode, round_timeout=PATIENCE)
    lets_end(devices[1], server, "before its input leaves")
    with pytest.raises(PartyLost, match=r"'bob' has ended.*cannot go on: .*at least 3") as caught:
        aggregator.sum(amounts(devices))
    assert caught.value.party == "bob"


@pytest.mark.timeout(30)
def test_two_that_end_are_one_too_many_of_five(parties):
    devices, server = parties(5)
    aggregator = SecureAggregator(server, devices, on_dropout="recover", round_timeout=PATIENCE)
    assert aggregator.sum(amounts(devices)) == total(devices)
    values = amounts(devices)
    for one in devices[1:3]:
        lets_end(one, server, "before its input leaves", 1)
    with pytest.raises(PartyLost, match=r"cannot go on: .*3 survivors, expected at least 4"):
        aggregator.sum(values)


SERVER_ENDS = [("abandon", "before its input leaves")]
SERVER_ENDS += [("recover", step) for step in ("before its keys", *list(RECOVERED)[1:2], *list(RECOVERED)[3:])]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("mode", "step"), SERVER_ENDS)
def test_a_server_that_ends(parties, mode, step):
    """Nothing is opened, the error names the server and what to do, and a new session works."""
    devices, server = parties()
    aggregator = SecureAggregator(server, devices, on_dropout=mode, round_timeout=PATIENCE)
    at(devices[1], happening("bob", step, 0, ending("server", sf.reveal(server(os.getpid)()))))
    for _ in range(2):
        with pytest.raises(PartyLost, match=r"'server' has ended.* sf\.shutdown\(\) and sf\.init") as caught:
            aggregator.sum(amounts(devices))
        assert caught.value.party == "server"
    sf.shutdown()
    devices, server = parties()
    assert SecureAggregator(server, devices).sum(amounts(devices)) == total(devices)


@pytest.mark.timeout(60)
def test_a_late_party_is_left_out_and_comes_back(parties, tmp_path, caplog, monkeypatch):
    devices, server = parties()
    gate = tmp_path / "open"
    turn_clock(monkeypatch, "bob", gate)
    aggregator = SecureAggregator(server, devices, on_dropout="recover", round_timeout=PATIENCE)
    at(devices[1], happening("bob", "before its input leaves", 1, sleeping(str(gate))))
    assert aggregator.sum(amounts(devices)) == total(devices)
    assert aggregator.sum(amounts(devices)) == total(devices, but=devices[1])
    assert [(one.party, one.reason) for one in aggregator.dropouts] == [("bob", "no message within 60 s")]
    assert "missing: bob (no message within 60 s)" in caplog.text
    gate.touch()
    assert aggregator.sum(amounts(devices)) == total(devices), "in a new session it takes part again"
    assert aggregator.dropouts == ()


@pytest.mark.timeout(60)
def test_a_party_that_is_late_after_its_input_counts(parties, tmp_path, monkeypatch):
    devices, server = parties()
    gate = tmp_path / "open"
    turn_clock(monkeypatch, "bob", gate)
    aggregator = SecureAggregator(server, devices, on_dropout="recover", round_timeout=PATIENCE)
    at(devices[1], happening("bob", "before it signs", 0, sleeping(str(gate))))
    assert aggregator.sum(amounts(devices)) == total(devices)
    gate.touch()
    assert aggregator.sum(amounts(devices)) == total(devices)


@pytest.mark.timeout(60)
def test_a_late_party_where_rounds_are_abandoned(parties, tmp_path, monkeypatch):
    devices, server = parties()
    gate = tmp_path / "open"
    turn_clock(monkeypatch, "bob", gate)
    aggregator = SecureAggregator(server, devices, on_dropout="abandon", round_timeout=PATIENCE)
    at(devices[1], happening("bob", "before its input leaves", 0, sleeping(str(gate))))
    with pytest.raises(
        ProtocolError, match=r"nothing was opened; missing: bob \(no message within 60 s\).*on_dropout="
    ):
        aggregator.sum(amounts(devices))
    threading.Timer(0.2, gate.touch).start()
    assert aggregator.sum(amounts(devices)) == total(devices), "the next sum waits for the party and works"


@pytest.mark.timeout(30)
def test_pads_that_stay_in_the_sum_are_found(parties, monkeypatch):
    """A broken server takes the survivors' own pads away, and not those that they share with a dropped party."""
    devices, server = parties()
    aggregator = SecureAggregator(server, devices, on_dropout="recover", round_timeout=PATIENCE)
    assert aggregator.sum(amounts(devices)) == total(devices)

    def own_pads(plus, minus):
        return Pad([], minus[: len(devices) - 1])

    monkeypatch.setattr(opening, "Pad", own_pads)
    lets_end(devices[1], server, "before its input leaves", 1)
    with pytest.raises(PartyLost, match=r"'bob' has ended.* cannot go on: "):
        aggregator.sum(amounts(devices))


@pytest.mark.timeout(30)
def test_a_server_that_is_not_told_waits_out_the_deadline(parties, monkeypatch):
    """A broken server does not hear of the dead: then the sums of the other tests here would come too late."""
    devices, server = parties()

    def ignored(self, party, reason, now):
        pass

    monkeypatch.setattr(ServerRounds, "lost", ignored)
    aggregator = SecureAggregator(server, devices, on_dropout="recover", round_timeout=2)
    lets_end(devices[1], server, "before its input leaves")
    began = time.monotonic()
    assert aggregator.sum(amounts(devices)) == total(devices, but=devices[1])
    assert time.monotonic() - began >= 2


def test_by_default_sums_of_values_survive_a_dropout_where_the_policy_tolerates_one(parties):
    devices, server = parties()
    aggregator = SecureAggregator(server, devices, round_timeout=PATIENCE)
    lets_end(devices[1], server, "before its input leaves")
    assert aggregator.sum(amounts(devices)) == total(devices, but=devices[1])


def test_an_average_is_over_those_that_remain(parties):
    devices, server = parties()
    aggregator = SecureAggregator(server, devices, round_timeout=PATIENCE)
    values = [device(lambda v: v)(v) for device, v in zip(devices, (1.0, 100.0, 3.0, 8.0), strict=True)]
    weights = [device(lambda v: v)(v) for device, v in zip(devices, (2, 7, 1, 1), strict=True)]
    lets_end(devices[1], server, "before its input leaves")
    assert aggregator.average(values, weights, largest_weight=8) == pytest.approx((2 + 3 + 8) / 4, abs=1e-7)
    assert [one.party for one in aggregator.dropouts] == ["bob"]
