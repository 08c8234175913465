# SPDX-License-Identifier: Apache-2.0
"""A coordinator of recovery that lies: each lie is refused, and nothing is signed or released for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

import pytest
from pure.recovery_kit import ALL, ENCODING, Stage, context, contribution, held, propose_small

from fedray.errors import EncodingError, PlanError, ProtocolError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.graph import CHOSEN_UP_TO
from fedray.protocol.crypto.keys import Roster, sign
from fedray.protocol.messages import enc
from fedray.protocol.policy import RANDOM_GRAPH_NOTICE, Policy, notice
from fedray.protocol.recovery.rehearsal import Rehearsal
from fedray.protocol.recovery.round_messages import Quorum, Survivors
from fedray.protocol.recovery.thresholds import propose


@pytest.fixture(scope="module")
def stages() -> Stage:
    return Stage()


@pytest.fixture
def stage(stages: Stage) -> Stage:
    return stages


WEAKER = {
    "t_sig": {"t_sig": 2},
    "t_share": {"t_share": 1},
    "colluders": {"colluders": 0, "t_sig": 3},
    "n_min": {"n_min": 2},
    "scheme": {"scheme": "masking"},
    "degree": {"degree": 2},
    "batch": {"batch": 4096},
    "dropouts": {"dropouts": 2},
    "a sparse graph of 4": {"graph": "chosen", "degree": 3},
    "degree 2 is too small": {"graph": "chosen", "degree": 2, "t_share": 2},
    "expected 'recovery'": {"scheme": "sharing"},
}


@pytest.mark.parametrize("word", WEAKER)
def test_a_weakened_config_is_refused(word: str) -> None:
    with pytest.raises(ProtocolError, match=word):
        Rehearsal(4, lambda roster: replace(propose_small(roster), **WEAKER[word]))


def test_a_graph_against_random_dropouts_only_is_refused_unless_the_party_allows_it() -> None:
    def configure(roster: Roster) -> Config:
        return propose(roster, ["server"], ENCODING, chosen=False, batch=1)

    for policy in (Policy(), Policy(random_graph="never")):
        with pytest.raises(ProtocolError, match=r"graph is random, .* \(random_graph\)"):
            Rehearsal(33, configure, policy)
    Rehearsal(33, configure, Policy(random_graph="always"))


def test_above_200_parties_a_random_graph_is_proposed_accepted_and_labelled() -> None:
    roster = Roster.of({f"p{i:03}": i.to_bytes(32, "big") for i in range(CHOSEN_UP_TO + 1)})
    config = propose(roster, ["server"], ENCODING)
    assert (config.graph, notice(config)) == ("random", RANDOM_GRAPH_NOTICE)
    Policy().accept(config, roster)
    Policy(random_graph="always").accept(config, roster)
    with pytest.raises(ProtocolError, match=r"graph is random, .* \(random_graph\)"):
        Policy(random_graph="never").accept(config, roster)
    safe = propose(roster, ["server"], ENCODING, chosen=True)
    assert (safe.graph, notice(safe)) == ("chosen", None)
    assert safe.degree > config.degree
    Policy(random_graph="never").accept(safe, roster)


def test_a_ring_of_one_bit_does_not_exist() -> None:
    with pytest.raises(PlanError, match="ring must be 32 or 64"):
        Encoding(1)


def test_a_party_signs_one_set_of_survivors(stage: Stage) -> None:
    survivors = stage.survivors()
    shield = stage.shields[ALL[0]]
    first = shield.reply(survivors.encode())
    assert shield.reply(survivors.encode()) == first
    other = replace(survivors, members=survivors.members[:3], hashes=survivors.hashes[:3])
    with pytest.raises(
        ProtocolError, match=r"already signed for the survivors \(0, 1, 2, 3\), now asked for \(0, 1, 2\)"
    ):
        shield.reply(other.encode())
    with pytest.raises(ProtocolError, match="already signed"):
        shield.reply(stage.quorum(other))
    swapped = replace(survivors, hashes=(*survivors.hashes[:3], secrets.token_bytes(32)))
    with pytest.raises(ProtocolError, match="or other inputs"):
        shield.reply(stage.quorum(swapped))


LIES: dict[str, Callable[[Survivors], Survivors]] = {
    "another session": lambda s: replace(s, sid=secrets.token_bytes(32)),
    "session or round": lambda s: replace(s, number=s.number + 1),
    "another model or settings": lambda s: replace(s, ctx=secrets.token_bytes(32)),
    "another masked input than": lambda s: replace(s, hashes=(secrets.token_bytes(32), *s.hashes[1:])),
    "2 survivors, expected at least 3": lambda s: replace(s, members=s.members[:2], hashes=s.hashes[:2]),
    "not in the roster": lambda s: replace(s, members=(*s.members[:3], 9)),
    "closed without this party": lambda s: replace(s, members=s.members[1:], hashes=s.hashes[1:]),
}


@pytest.mark.parametrize("word", LIES)
@pytest.mark.parametrize("asked", ["survive", "unmask"])
def test_a_false_set_of_survivors_is_neither_signed_nor_unmasked(stage: Stage, word: str, asked: str) -> None:
    lie = LIES[word](stage.survivors())
    signed = {i: sign(stage.rehearsal.identities[ALL[i]], lie.statement) for i in lie.members if i < 4}
    message = lie.encode() if asked == "survive" else stage.quorum(lie, signed)
    before = len(stage.shields[ALL[0]].decisions)
    with pytest.raises(ProtocolError, match=word):
        stage.shields[ALL[0]].reply(message)
    assert len(stage.shields[ALL[0]].decisions) == before


def test_a_party_listed_twice_or_out_of_order_is_not_even_parsed(stage: Stage) -> None:
    survivors = stage.survivors()
    for members in ((0, 0, 1, 2), (1, 0, 2, 3)):
        with pytest.raises(EncodingError, match="strictly increasing"):
            stage.shields[ALL[0]].reply(replace(survivors, members=members).encode())


def test_a_party_that_was_left_out_stops_and_erases(stage: Stage) -> None:
    survivors = stage.survivors()
    shield = stage.shields[ALL[0]]
    with pytest.raises(ProtocolError, match="without this party"):
        shield.reply(replace(survivors, members=(1, 2, 3), hashes=survivors.hashes[1:]).encode())
    assert held(shield._round._batch, stage.number) == ()
    with pytest.raises(ProtocolError, match="without this party"):
        shield.reply(survivors.encode())
    with pytest.raises(ProtocolError, match="without this party"):
        shield.reply(stage.quorum(survivors))
    assert shield.survivors(stage.number) is None


def test_a_quorum_needs_enough_valid_signatures_of_different_survivors(stage: Stage) -> None:
    survivors = stage.survivors(but=ALL[3])
    shield, good = stage.shields[ALL[0]], stage.signatures(survivors)
    forged = good | {2: secrets.token_bytes(64)}
    stranger = good | {3: sign(stage.rehearsal.identities[ALL[3]], survivors.statement)}
    for signed, word in [
        ({0: good[0], 1: good[1]}, "2 signatures on the survivors, expected at least 3"),
        (forged, "the signature of p0002 is not valid"),
        (stranger, "of place 3, which is not among the survivors"),
        (good | {1: good[0]}, "the signature of p0001 is not valid"),
    ]:
        with pytest.raises(ProtocolError, match=word):
            shield.reply(stage.quorum(survivors, signed))
    doubled = Quorum(survivors, (0, 1, 1), (good[0], good[1], good[1]))
    with pytest.raises(EncodingError, match="strictly increasing"):
        shield.reply(doubled.encode())
    assert shield.reply(stage.quorum(survivors))


def test_old_rounds_and_repeated_requests(stage: Stage) -> None:
    survivors = stage.survivors()
    quorum, shield = stage.quorum(survivors), stage.shields[ALL[1]]
    first = shield.reply(quorum)
    assert shield.reply(quorum) == first
    fewer = {i: s for i, s in stage.signatures(survivors).items() if i != 0}
    assert shield.reply(stage.quorum(survivors, fewer)) == first
    stage.begin()
    for message in (survivors.encode(), quorum):
        with pytest.raises(ProtocolError, match="another session or round"):
            shield.reply(message)
    with pytest.raises(ProtocolError, match=f"round {stage.number - 1} is over"):
        shield.protect(context(stage.number - 1), contribution())


def test_what_is_no_request_is_refused(stage: Stage) -> None:
    stage.begin()
    for message in (enc("unmask", b""), enc("hello"), enc("survivors"), enc("quorum", b"", b"", b""), b"", b"\0" * 40):
        with pytest.raises(ProtocolError):
            stage.shields[ALL[0]].reply(message)


def test_a_masked_input_is_sent_once(stage: Stage) -> None:
    stage.begin(but=ALL[0])
    shield, here = stage.shields[ALL[0]], context(stage.number)
    message = shield.protect(here, contribution())["server"]
    assert shield.protect(here, contribution())["server"].tobytes() == message.tobytes()
    with pytest.raises(ProtocolError, match="used for other data"):
        shield.protect(here, contribution(5))
    with pytest.raises(ProtocolError, match="used for other data"):
        shield.protect(context(stage.number), contribution())


def test_parties_told_different_things_are_not_summed(stage: Stage) -> None:
    stage.begin(but=ALL[2])
    (message,) = stage.shields[ALL[2]].protect(context(stage.number, settings=b"rate 0"), contribution()).values()
    stage.collector.add(ALL[2], message)
    broadcast = stage.collector.advance()
    assert Survivors.decode(broadcast).members == (0, 1, 3)
    assert [f.party for f in stage.collector.faults] == [ALL[2]]


def test_a_late_input_is_dropped_unread(stage: Stage) -> None:
    stage.begin(but=ALL[2])
    broadcast = stage.collector.advance()
    (message,) = stage.shields[ALL[2]].protect(context(stage.number), contribution()).values()
    stage.collector.add(ALL[2], message)
    assert stage.collector.late == [ALL[2]]
    for name in (ALL[0], ALL[1], ALL[3]):
        stage.collector.add(name, stage.shields[name].reply(broadcast))
    assert Quorum.decode(stage.collector.advance()).survivors.members == (0, 1, 3)
