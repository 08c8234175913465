# SPDX-License-Identifier: Apache-2.0
"""One party's batches of a session: the one in use, the next one being prepared, and the order of rounds.

Knows which round has keys and which are over. Does not know what a round sums.
"""

from __future__ import annotations

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.recovery.key_batch import KeyBatch, KeyBatchSetUp
from fedray.protocol.recovery.session import RecoverySession
from fedray.protocol.recovery.thresholds import SESSION_ROUNDS
from fedray.types import Round

MOST_READY = 2
"""KeyBatches that are ready at one time: the one in use, and the next."""


class KeyBatches(Guarded):
    """The keys of a session's rounds; rounds only go forward.

    Attributes:
        next: Smallest number of the next round.
    """

    def __init__(self, session: RecoverySession, length: int) -> None:
        """Begins without any batch.

        Args:
            session: The party in its session.
            length: Rounds of one batch.
        """
        self.next: Round = 0
        self._session, self._length = session, length
        self._set_up: KeyBatchSetUp | None = None
        self._ready: list[KeyBatch] = []
        self._end: Round = 0
        self._served = 0

    def prepare(self, number: int, first: Round) -> bytes:
        """Returns this party's signed Keys for a new batch; the same request again gets the identical bytes.

        Raises:
            ProtocolError: The number or a round was used before, or the session has served enough rounds.
        """
        last, graph = self._set_up, self._session.thresholds.graph
        if last is not None and (last.number, last.rounds[0]) == (number, first):
            return last.keys()
        if last is not None and number <= last.number:
            raise self._fault(f"batch numbers only grow: {number} after {last.number}")
        # A round has keys of one batch only: with two, two inputs could be sent for it.
        if first < max(self.next, self._end):
            raise self._fault(f"batch {number} begins at round {first}, expected {max(self.next, self._end)} or later")
        if not graph.complete and self._served + self._length > SESSION_ROUNDS:
            raise self._fault(f"the graph is safe for {SESSION_ROUNDS} rounds a session: start a new session")
        while len(self._ready) >= MOST_READY:
            # The others have begun the batch after this one: its rounds are over, and this party missed their end.
            self._pass_over(self._ready.pop(0))
        rounds = tuple(range(first, first + self._length))
        self._set_up = KeyBatchSetUp(self._session, number, rounds)
        return self._set_up.keys()

    def absorb(self, message: bytes) -> bytes | None:
        """Answers what the coordinator relays of the set-up; None when the batch is ready.

        Raises:
            ProtocolError: No set-up is under way, or it has failed.
        """
        if self._set_up is None:
            raise self._fault("no batch is being prepared")
        answer = self._set_up.step(message)
        batch = self._set_up.collect()
        if batch is not None:
            self._ready.append(batch)
            self._end = batch.directory.rounds[-1] + 1
            self._served += self._length
            # Rounds that went by while the batch was set up need no keys any more.
            batch.erase_before(self.next)
        return answer

    def find(self, number: Round) -> KeyBatch:
        """Returns the batch of a coming round.

        Raises:
            ProtocolError: There is none.
        """
        for batch in self._ready:
            if number in batch.directory.rounds:
                return batch
        raise self._fault(f"round {number} has no keys: prepare a batch first")

    def enter(self, number: Round) -> KeyBatch:
        """Moves to a round and returns its batch; everything about earlier rounds is erased.

        Raises:
            ProtocolError: The round is over or has no keys.
        """
        if number < self.next:
            raise self._fault(f"round {number} is over, the next one is {self.next} or later")
        found, known = self.find(number), self._ready
        self.next, self._ready = number + 1, [batch for batch in known if batch.directory.rounds[-1] >= number]
        for batch in known:
            batch.erase_before(number)
        return found

    def _pass_over(self, batch: KeyBatch) -> None:
        last = batch.directory.rounds[-1]
        batch.erase_before(last + 1)
        self.next = max(self.next, last + 1)

    def _fault(self, message: str) -> ProtocolError:
        return self._session.member.fault(message)
