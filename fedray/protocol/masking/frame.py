# SPDX-License-Identifier: Apache-2.0
"""What every shield that sends one vector of ring words does alike; the schemes differ in set-up and in the pad.

Knows the order in which a round is checked, encoded, padded and closed. Does not know any key.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.buffers import BufferPool
from fedray.protocol.crypto.keys import Guarded, Roster
from fedray.protocol.crypto.keystream import CHUNK_BYTES, Pad
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.masking.rounds import Rounds
from fedray.protocol.messages import Masked
from fedray.protocol.scheme import Contribution, Manifest, RoundContext, View
from fedray.types import Message, PartyName, Round


class RingShield(Guarded):
    """The contributing end of a scheme with one vector a round; not safe for use from several threads at once.

    Attributes:
        clipped: Share of the last contribution's values that were beyond the clip bound, 0 to 1.
    """

    def __init__(self, config: Config, name: PartyName, roster: Roster, *, refuse_overflow: bool = False) -> None:
        self._config, self._name, self._roster, self._refuse = config, name, roster, refuse_overflow
        self._index = roster.index(name)
        self._rounds: Rounds | None = None
        self._frames = BufferPool()
        self.clipped = 0.0

    def __repr__(self) -> str:
        """Shows the party and the round, nothing secret."""
        state = f"round {self._rounds.next}" if self._rounds else "not started"
        return f"<{type(self).__name__} of {self._name}: {state}>"

    @property
    def rounds(self) -> Rounds:
        """View, next round and last message.

        Raises:
            ProtocolError: Set-up is not finished.
        """
        if self._rounds is None:
            raise ProtocolError(f"{self._name}: set-up is not finished")
        return self._rounds

    @property
    def view(self) -> View:
        """Whose inputs the next round sums."""
        return self.rounds.view

    def join(self, view: View) -> None:
        """Moves to a smaller view.

        Raises:
            ProtocolError: V1 forbids it.
        """
        self.rounds.join(view)

    def protect(self, context: RoundContext, contribution: Contribution) -> Mapping[PartyName, Message]:
        """Returns the receiver's message; a repeated request gets the identical bytes, whatever the contribution.

        Raises:
            ProtocolError: The round is over, too far ahead, or not allowed on this model.
            EncodingError: The contribution cannot be encoded; the round is given up.
        """
        message = self.rounds.repeated(context)
        if message is None:
            ctx = self.rounds.admit(context)
            self._check(context)
            message = self._message(context, ctx, contribution)
            self._record(context)
            self.rounds.commit(context, ctx, message)
        return {self._config.receivers[0]: message}

    def reply(self, broadcast: bytes) -> bytes:
        """Refuses: one exchange is all.

        Raises:
            ProtocolError: Always.
        """
        raise ProtocolError(
            f"{self._name}: this scheme has one exchange a round, found a further one of {len(broadcast)} bytes"
        )

    def _message(self, context: RoundContext, ctx: bytes, contribution: Contribution) -> NDArray[np.uint8]:
        """Returns the frame of one round, encoded and padded stretch by stretch while it is in cache."""
        config, manifest = self._config, context.manifest
        encoder = Encoder(
            config.encoding,
            config.parties,
            manifest,
            contribution,
            owner=self._name,
            refuse_overflow=self._refuse,
        )
        bits, number = config.encoding.ring, context.number
        frame, words = Masked.frame(
            self._sid, self.rounds.vid, number, self._index, ctx, manifest.words, bits, self._frames
        )
        step = CHUNK_BYTES // words.itemsize
        try:
            pad = self._pad(number, ctx, manifest)
            for start in range(0, len(words), step):
                part = words[start : start + step]
                encoder.encode(part, start)
                if pad is not None:
                    pad.apply(part)
        finally:
            self._close(number)
            self.rounds.skip(number)
        self.clipped = encoder.clipped / manifest.size if manifest.size else 0.0
        return frame

    @property
    @abstractmethod
    def _sid(self) -> bytes:
        """Session id."""

    @abstractmethod
    def _check(self, context: RoundContext) -> None:
        """Refuses a round that the party's policy does not allow."""

    @abstractmethod
    def _record(self, context: RoundContext) -> None:
        """Remembers a round whose message is about to leave."""

    @abstractmethod
    def _pad(self, number: Round, ctx: bytes, manifest: Manifest) -> Pad | None:
        """Returns what hides the words."""

    @abstractmethod
    def _close(self, number: Round) -> None:
        """Forgets the round's keys."""
