# SPDX-License-Identifier: Apache-2.0
"""Promises to release nothing for a round, and how many of them make sure that it never opens (SECAGG section 7).

Knows counts and signatures. Does not know shares; whoever signs has erased its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Roster, sign, verify
from fedray.protocol.recovery.member import Member
from fedray.protocol.recovery.round_messages import Closed
from fedray.protocol.recovery.thresholds import Thresholds
from fedray.types import Round


def promise(place: Member, number: Round) -> bytes:
    """Returns the signed promise of a party that has erased its shares."""
    unsigned = Closed(place.sid, number, place.index, bytes(64))
    return Closed(place.sid, number, place.index, sign(place.identity, unsigned.statement)).encode()


def least_promises(thresholds: Thresholds) -> int:
    """Returns how many parties must promise: n + T - t_share + 1.

    At most T of them lie, so what the others may still release and what the liars hold stays below t_share.

    Raises:
        ProtocolError: The graph is sparse; a few neighbours would be enough to open a secret.
    """
    if not thresholds.graph.complete:
        raise ProtocolError("a closure certificate needs the complete graph: contribute freshly computed data instead")
    return thresholds.graph.parties + thresholds.colluders - thresholds.graph.share_threshold + 1


def check_certificate(
    thresholds: Thresholds, roster: Roster, sid: bytes, number: Round, promises: Sequence[bytes]
) -> None:
    """Checks that a round can never open.

    Args:
        thresholds: Thresholds of the session.
        roster: All parties.
        sid: Session id.
        number: The round.
        promises: Signed promises of different parties.

    Raises:
        ProtocolError: One is not valid, a signer repeats, or there are too few.
    """
    least, signers = least_promises(thresholds), set[int]()
    for data in promises:
        closed = Closed.decode(data)
        if (closed.sid, closed.number) != (sid, number) or closed.index >= len(roster.names):
            raise ProtocolError(f"a promise is for another session, round or party than round {number}")
        if closed.index in signers or not verify(roster.keys[closed.index], closed.statement, closed.signature):
            raise ProtocolError(f"the promise of {roster.names[closed.index]} repeats or is not signed by it")
        signers.add(closed.index)
    if len(signers) < least:
        raise ProtocolError(f"{len(signers)} promises to release nothing for round {number}, expected at least {least}")
