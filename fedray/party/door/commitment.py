# SPDX-License-Identifier: Apache-2.0
"""Commitments to what a party contributes to sums: in the ledger for all to see, and for the party alone to open.

An entry says that a contribution left under masks, and not which one. The commitment beside it is a keyed hash of the
contribution in clear: it tells nobody anything, two rounds look alike to nobody, and the party cannot say later that it
sent something else. So it can be asked to compute its round once more, and compare. Knows no entry and no file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

import numpy as np

from fedray.party.door.entry import canonical
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.scheme import Contribution, RoundContext

KEY_BYTES = 32


class Commitments(Guarded):
    """A party's commitments.

    Args:
        key: 32 bytes that nobody else knows; None draws one, which ends with the process.

    Attributes:
        watch: Called with session and round before each commitment, where somebody wants to know which comes next.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = os.urandom(KEY_BYTES) if key is None else key
        self._sid = bytes(32)
        self.watch: Callable[[bytes, RoundContext], None] | None = None

    def begin(self, sid: bytes) -> None:
        """Names the session that the next commitments are of."""
        self._sid = sid

    @property
    def name(self) -> str:
        """What the key goes by, 16 hexadecimal digits that tell nothing of it."""
        return hmac.new(self._key, b"fedray name of a key", hashlib.sha256).hexdigest()[:16]

    def secret(self) -> bytes:
        """Returns the key, for the party's own disk."""
        return self._key

    def of(self, context: RoundContext, contribution: Contribution) -> str:
        """Returns the commitment to a contribution, 64 hexadecimal digits.

        Args:
            context: What its round is about.
            contribution: In clear.
        """
        if self.watch is not None:
            self.watch(self._sid, context)
        return self._hash(self._sid, context, contribution)

    def opens(self, commitment: str, sid: bytes, context: RoundContext, contribution: Contribution) -> bool:
        """Returns whether this is what was committed to.

        Args:
            commitment: From an entry of this party's ledger.
            sid: The session, as the ledger names it.
            context: The round, as it was.
            contribution: What is claimed to have been contributed.
        """
        return hmac.compare_digest(commitment, self._hash(sid, context, contribution))

    def _hash(self, sid: bytes, context: RoundContext, contribution: Contribution) -> str:
        values, metrics = contribution.values, contribution.metrics
        said = {
            # The session and the round: equal contributions to two of them look alike to nobody.
            "what": "fedray contribution",
            "sid": sid.hex(),
            "round": context.number,
            "model": context.model.hex(),
            "settings": hashlib.sha256(context.settings).hexdigest(),
            "manifest": context.manifest.hash.hex(),
            "purpose": context.purpose,
            "repeats": context.repeats,
            "weight": int(contribution.weight),
            "values": [str(values.dtype), len(values)],
            "metrics": None if metrics is None else len(metrics),
        }
        told = hmac.new(self._key, canonical(said), hashlib.sha256)
        # The lengths are told above, so no word can pass for one of the other array's. In one byte order, as on every
        # machine on which the round may be computed once more.
        for array in (values, np.empty(0) if metrics is None else metrics):
            told.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return told.hexdigest()
