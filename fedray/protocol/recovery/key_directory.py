# SPDX-License-Identifier: Apache-2.0
"""What everybody knows of one batch of rounds: all parties' public keys and commitments, under one digest.

Knows signed Keys. Does not know any secret; parties and coordinator build the same directory.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Roster, verify
from fedray.protocol.messages import digest
from fedray.protocol.recovery.key_messages import Keys, ack_statement
from fedray.types import Round

_FIELD = (1 << 255) - 19
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _FIELD - 1,
        _FIELD,
        _FIELD + 1,
    }
)
"""X25519 public keys that force any shared secret to zero; found here, before they spoil the rounds they are for."""


class Directory:
    """The public side of one batch.

    Attributes:
        sid: Session id.
        batch: Number of the batch.
        rounds: The rounds it serves, strictly increasing.
        digest: D, hash of all Keys in roster order.
    """

    def __init__(self, sid: bytes, batch: int, keys: Sequence[Keys]) -> None:
        """Takes what is agreed.

        Args:
            sid: Session id.
            batch: Number of the batch.
            keys: Keys of the whole roster, in its order; checked by `check`.
        """
        self.sid, self.batch = sid, batch
        self.rounds = keys[0].rounds
        self.digest = digest("batch", *(k.statement for k in keys))
        self._place = {number: place for place, number in enumerate(self.rounds)}
        self._publics = [k.publics for k in keys]
        self._commitments = [k.commitments for k in keys]

    @classmethod
    def check(cls, roster: Roster, sid: bytes, batch: int, signed: Sequence[bytes]) -> Directory:
        """Returns the directory of the Keys of the whole roster.

        Args:
            roster: Who must have sent them.
            sid: Session id.
            batch: Number of the batch.
            signed: Wire bytes of all Keys, in roster order.

        Raises:
            ProtocolError: One is missing, not signed by its party, or for other rounds; or a key repeats.
        """
        if len(signed) != len(roster.names):
            raise ProtocolError(f"batch {batch}: expected Keys of {len(roster.names)} parties, found {len(signed)}")
        keys = [Keys.decode(data) for data in signed]
        for place, (sent, name, identity) in enumerate(zip(keys, roster.names, roster.keys, strict=True)):
            if (sent.sid, sent.batch, sent.index) != (sid, batch, place):
                raise ProtocolError(f"batch {batch}: the Keys of {name} are for another session, batch or place")
            if not verify(identity, sent.statement, sent.signature):
                raise ProtocolError(f"batch {batch}: the Keys of {name} are not signed by it")
            if sent.rounds != keys[0].rounds:
                raise ProtocolError(f"batch {batch}: the Keys of {name} are for other rounds")
            # The top bit is ignored by X25519, so it is by this comparison.
            if any(int.from_bytes(public, "little") % (1 << 255) in _SMALL_ORDER for public in sent.publics):
                raise ProtocolError(f"batch {batch}: {name} sent a public key that shares no secret")
        # A key used by two parties or in two rounds would make two pads one.
        for values in ([k.publics for k in keys], [k.commitments for k in keys]):
            if len({v for row in values for v in row}) != len(keys) * len(keys[0].rounds):
                raise ProtocolError(f"batch {batch}: a public key or a commitment repeats")
        return cls(sid, batch, keys)

    @property
    def ack_statement(self) -> bytes:
        """What every party signs when it holds its shares."""
        return ack_statement(self.sid, self.batch, self.digest)

    def public(self, party: int, number: Round) -> bytes:
        """Returns S, a party's public key of one round."""
        return self._publics[party][self._place[number]]

    def publics(self, parties: Sequence[int], number: Round) -> dict[int, bytes]:
        """Returns S of some parties, by index."""
        place = self._place[number]
        return {party: self._publics[party][place] for party in parties}

    def commitment(self, party: int, number: Round) -> bytes:
        """Returns h, a party's commitment to its seed of one round."""
        return self._commitments[party][self._place[number]]
