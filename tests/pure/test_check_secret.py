# SPDX-License-Identifier: Apache-2.0
"""How the secret of the checks gets to all who contribute and to nobody else, and what a false one leads to."""

import dataclasses

import numpy as np
import pytest
from pure.masking_kit import Kit, context_of, identities, manifest_of, plain_values, roster_of
from pure.sharing_kit import session as sharing_session

from fedray.errors import ProtocolError
from fedray.protocol import handshake
from fedray.protocol.checks.secret import SEALED_BYTES
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import sign
from fedray.protocol.messages import Confirm

KEYS = identities(4)
ROSTER = roster_of(KEYS)


def confirmed():
    """Returns four parties' joinings and their Confirms."""
    kit = Kit(Config.propose("masking", ROSTER, ["server"], Encoding()), ROSTER, KEYS)
    joinings = [kit.joining(name) for name in kit.names]
    hellos = [joining.hello() for joining in joinings]
    return kit, joinings, [joining.confirm(hellos) for joining in joinings]


def changed(confirm, name, **fields):
    """Returns a Confirm that its sender signed anew."""
    other = dataclasses.replace(Confirm.decode(confirm), **fields)
    return dataclasses.replace(other, signature=sign(KEYS[name], other.statement)).encode()


def test_all_parties_hold_one_secret_and_the_server_sees_ciphertext_only():
    _, joinings, confirms = confirmed()
    shields = [joining.start(confirms) for joining in joinings]
    (secret,) = {shield._judge._group._secret for shield in shields}
    assert [len(Confirm.decode(confirm).dealt) for confirm in confirms] == [3 * SEALED_BYTES, 0, 0, 0]
    assert len(secret) == 32
    assert not any(secret[:8] in confirm for confirm in confirms)
    assert len({shield._judge.confirm for shield in shields}) == 1


def test_each_session_has_its_own():
    secrets = set()
    for _ in range(2):
        _, joinings, confirms = confirmed()
        secrets.add(joinings[0].start(confirms)._judge._group._secret)
    assert len(secrets) == 2


def test_a_second_request_brings_the_identical_bytes():
    kit, _, _ = confirmed()
    joinings = [kit.joining(name) for name in kit.names]
    hellos = [joining.hello() for joining in joinings]
    assert joinings[0].confirm(hellos) == joinings[0].confirm(hellos)


@pytest.mark.parametrize("change", ["a bit", "another's copy", "too short", "of another party", "missing"])
def test_what_was_not_dealt_like_this_is_refused_by_name(change):
    _, joinings, confirms = confirmed()
    dealt = Confirm.decode(confirms[0]).dealt
    copies = [dealt[at : at + SEALED_BYTES] for at in range(0, len(dealt), SEALED_BYTES)]
    match = "p02: p00: the secret for the checks of sums is not from its dealer, or was altered"
    if change == "a bit":
        copies[1] = bytes([copies[1][0] ^ 1]) + copies[1][1:]
    elif change == "another's copy":
        copies[1] = copies[0]
    elif change == "too short":
        copies[2], match = b"", "the Confirm of p00 brings 96 bytes for the checks of sums, expected 144"
    elif change == "missing":
        copies, match = [], "brings 0 bytes for the checks of sums, expected 144"
    else:
        confirms[1] = changed(confirms[1], "p01", dealt=dealt)
        match = "the Confirm of p01 brings 144 bytes for the checks of sums, expected 0"
    confirms[0] = changed(confirms[0], "p00", dealt=b"".join(copies))
    with pytest.raises(ProtocolError, match=match):
        joinings[2].start(confirms)


def test_the_server_alters_nothing_of_it_unseen():
    _, joinings, confirms = confirmed()
    first = Confirm.decode(confirms[0])
    confirms[0] = dataclasses.replace(first, dealt=first.dealt[::-1]).encode()
    with pytest.raises(ProtocolError, match="the Confirm of p00 is not signed by it"):
        joinings[1].start(confirms)


def test_a_dealer_of_two_secrets_gives_noise(monkeypatch):
    """It would make checks that fit for some parties only; their pads do not cancel either."""
    given = iter(bytes([place]) * 32 for place in range(3))
    real = handshake.deal

    def deal(secret, sid, channels, owners):
        joined = b""
        for place in owners[1:]:
            whole = real(next(given), sid, channels, owners)
            joined += whole[SEALED_BYTES * (place - 1) : SEALED_BYTES * place]
        return joined

    monkeypatch.setattr(handshake, "deal", deal)
    kit, joinings, confirms = confirmed()
    kit.shields |= {name: joining.start(confirms) for name, joining in zip(kit.names, joinings, strict=True)}
    manifest = manifest_of(2)
    inputs = {name: plain_values(np.zeros(2)) for name in kit.names}
    with pytest.raises(ProtocolError, match="took part with another model, settings or history than the other parties"):
        kit.round(context_of(0, manifest), inputs)


def test_a_compute_party_without_data_does_not_hold_it():
    kit = sharing_session(owners=3, computing=2, apart=2)
    held = {name: shield._judge._group is not None for name, shield in kit.shields.items()}
    assert held == {name: name in kit.owners for name in kit.roster.names}
    apart = next(name for name in kit.roster.names if name not in kit.owners)
    with pytest.raises(ProtocolError, match="it contributes nothing to this session"):
        kit.shields[apart]._judge.begin(b"", 0, bytes(32), 3)
