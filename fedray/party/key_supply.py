# SPDX-License-Identifier: Apache-2.0
"""KeySupply: keys for the rounds to come, one batch ahead of the round under way. Knows no round's data."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fedray.errors import FedRayError
from fedray.party.orders import Answer
from fedray.protocol.scheme import BatchedShield
from fedray.types import Round


class KeySupply:
    """Prepares batches through the server, the first one in front of its round and the others behind earlier rounds.

    Args:
        shield: Whose rounds need keys; None where the scheme has no batches.
        length: Rounds in a batch.
        lock: Held while the shield is used.
        relay: (batch, message) -> the server's answer; blocks until everybody has answered.
    """

    def __init__(
        self,
        shield: BatchedShield | None,
        length: int,
        lock: threading.Lock,
        relay: Callable[[int, bytes], Answer],
    ) -> None:
        self._shield = shield
        self._length = length
        self._lock = lock
        self._relay = relay
        self._batch = 0
        self._ready: Round = 0
        self._ahead: threading.Thread | None = None
        self._refusal: Answer | None = None

    def cover(self, number: Round) -> Answer | None:
        """Waits until round `number` has keys.

        Returns:
            None when it has; else the server's word that there will be none.
        """
        if self._shield is None:
            return None
        if self._ahead is not None and (number >= self._ready or not self._ahead.is_alive()):
            self._ahead.join()
            self._ahead = None
        while self._refusal is None and number >= self._ready:  # round numbers may skip a whole batch
            self._prepare()
        if number >= self._ready:
            return self._refusal
        half_used = number >= self._ready - self._length // 2
        if half_used and self._ahead is None and self._refusal is None:
            self._ahead = threading.Thread(target=self._prepare, name="fedray-keys", daemon=True)
            self._ahead.start()
        return None

    def _prepare(self) -> None:
        shield = self._shield
        if shield is None:
            return
        batch, self._batch = self._batch, self._batch + 1
        try:
            with self._lock:
                message: bytes | None = shield.prepare(batch, self._ready)
            while message is not None:
                answer = self._relay(batch, message)
                if answer.verdict != "next":
                    self._refusal = answer
                    return
                with self._lock:
                    message = shield.absorb(answer.broadcast)
        except FedRayError as error:
            self._refusal = Answer("aborted", reason=str(error))
            return
        self._ready += self._length
