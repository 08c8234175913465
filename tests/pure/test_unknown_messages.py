# SPDX-License-Identifier: Apache-2.0
"""What a server, a compute party or a vault does not take: it says who sent it, and shows no value of it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedray.errors import ProtocolError
from fedray.party import records
from fedray.party.rounds.compute_party import ComputeParty
from fedray.party.rounds.server import RoundServer
from fedray.party.spu.vault import Vault
from fedray.protocol.spu.form import Layout

SECRET = 424242
CONTEXT: Any = SimpleNamespace(name="carol")
RECEIVERS = {
    "the server": lambda: RoundServer(CONTEXT, 10.0),
    "compute party 'carol'": lambda: ComputeParty(CONTEXT, "server", "round_server", 10.0),
    "the vault of 'carol'": lambda: Vault(CONTEXT, Layout(64, 2, 18), None),
}
STRANGE: dict[str, Any] = {
    "a tuple, as it once was": ("sum", 1, SECRET, b""),
    "nothing": None,
    "an array": np.full(3, SECRET),
    "a record that nobody sends": records.Progress(SECRET),
    "a record whose round is text": records.RoundMessage(1, str(SECRET), b""),  # type: ignore[arg-type]
    "a record whose body is a list": records.RoundMessage(1, 2, [SECRET]),  # type: ignore[arg-type]
    "a share that waits for 1": records.ShareMessage(1, b"", SECRET),  # type: ignore[arg-type]
    "a class": records.RoundMessage,
}


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("message", STRANGE.values(), ids=STRANGE)
def test_it_is_refused_by_name_and_no_value_is_shown(receiver, message):
    with pytest.raises(ProtocolError) as refusal:
        RECEIVERS[receiver]().deliver("alice", message)
    text = str(refusal.value)
    assert text.startswith(f"alice sent a message that {receiver} does not take: expected one of ")
    assert str(SECRET) not in text
    assert "same version of fedray" in text


def test_the_types_of_the_fields_are_told():
    with pytest.raises(ProtocolError, match=r"found RoundMessage\(session: int, number: str, body: bytes, "):
        RECEIVERS["the server"]().deliver("alice", STRANGE["a record whose round is text"])


def test_only_a_peer_may_end_the_segment():
    made: Any = RECEIVERS["compute party 'carol'"]()
    with pytest.raises(ProtocolError, match="alice sent a message that compute party 'carol' does not take"):
        made.deliver("alice", records.RoundFailure(0, 0, "I do not like it"))
