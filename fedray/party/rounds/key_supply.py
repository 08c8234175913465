# SPDX-License-Identifier: Apache-2.0
"""KeySupply: keys for the rounds of one party's session, a batch at a time, the later ones behind rounds under way.

Knows a shield and the messages of a set-up. Knows no round's content.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from fedray.errors import FedRayError
from fedray.party.door.egress import Kind
from fedray.party.records import Answer, KeyMessage
from fedray.party.rounds.conversation import Conversation, Errand, Post, answer_of
from fedray.protocol.scheme import BatchedShield
from fedray.types import Round


class KeySupply:
    """Prepares batches through the server, the first one in front of its round and the others behind earlier rounds.

    Args:
        shield: Whose rounds need keys; None where the scheme has no batches.
        length: Rounds in a batch.
        lock: Held while the shield is used.
        session: Number of the session.
        beside: Begins a conversation that goes on beside the round.
    """

    def __init__(
        self,
        shield: BatchedShield | None,
        length: int,
        lock: threading.Lock,
        session: int,
        beside: Callable[[Conversation[None]], Errand],
    ) -> None:
        self._shield, self._length, self._lock = shield, length, lock
        self._session, self._beside = session, beside
        self._batch = 0
        self._ready: Round = 0
        self._ahead: Errand | None = None
        self._refusal: Answer | None = None

    def cover(self, number: Round) -> Conversation[Answer | None]:
        """Waits until round `number` has keys.

        Returns:
            None when it has; else the server's word that there will be none.
        """
        if self._shield is None:
            return None
        if self._ahead is not None and (number >= self._ready or not self._ahead.is_alive()):
            yield self._ahead
            self._ahead = None
        while self._refusal is None and number >= self._ready:  # round numbers may skip a whole batch
            yield from self._prepare(self._shield)
        if number >= self._ready:
            return self._refusal
        # Half a batch ahead: late enough not to prepare what is never used, early enough to hide behind training.
        half_used = number >= self._ready - self._length // 2
        if half_used and self._ahead is None and self._refusal is None:
            self._ahead = self._beside(self._prepare(self._shield))
        return None

    def _prepare(self, shield: BatchedShield) -> Conversation[None]:
        batch, self._batch = self._batch, self._batch + 1
        try:
            with self._lock:
                message: bytes | None = shield.prepare(batch, self._ready)
            while message is not None:
                step = KeyMessage(self._session, batch, message)
                answer = answer_of((yield Post(f"keys of batch {batch}", step, Kind.SHARE)))
                if answer.verdict != "next":
                    self._refusal = answer
                    return
                with self._lock:
                    message = shield.absorb(answer.broadcast)
        except FedRayError as error:  # it may happen beside a round that has its keys: the next one without is told
            self._refusal = Answer("aborted", reason=str(error))
            return
        self._ready += self._length
