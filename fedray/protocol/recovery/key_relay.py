# SPDX-License-Identifier: Apache-2.0
"""The coordinator's side of the set-up of a batch: collects one message from each party, hands on what each needs.

Knows public keys and sealed shares. Cannot open a share. Like a collector it has stages, and its messages may travel in
exchanges of their own or beside those of the rounds under way.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import Roster, verify
from fedray.protocol.messages import enc_list
from fedray.protocol.recovery.key_directory import Directory
from fedray.protocol.recovery.key_messages import Ack, Dealt
from fedray.types import PartyName

_STAGES = ("keys", "dealt", "ack")


class KeyRelay:
    """One batch's set-up at the coordinator: `add` every party's message, `advance`, three times.

    Attributes:
        batch: Number of the batch.
        directory: The public side, after the first stage.
    """

    def __init__(self, roster: Roster, sid: bytes, batch: int) -> None:
        """Takes what is agreed.

        Args:
            roster: All parties.
            sid: Session id.
            batch: Number of the batch.
        """
        self.batch = batch
        self.directory: Directory | None = None
        self._roster, self._sid = roster, sid
        self._stage = 0
        self._received: dict[PartyName, bytes] = {}
        self._before: dict[PartyName, bytes] = {}

    @property
    def done(self) -> bool:
        """Whether every party has acknowledged and the batch may be used."""
        return self._stage == len(_STAGES)

    def add(self, sender: PartyName, message: bytes) -> None:
        """Takes one message of the current stage; the same one again, or that of the stage before, changes nothing.

        Raises:
            ProtocolError: The sender is unknown or sent something else before; or an acknowledgement is wrong, which
                names its sender.
        """
        place = self._roster.index(sender)
        # Its answer was lost on the way and it asks again: that is no fault.
        if self._before.get(sender) == message:
            return
        if self.done:
            raise ProtocolError(f"{sender}: the set-up of batch {self.batch} is over")
        if self._received.get(sender, message) != message:
            raise ProtocolError(f"{sender}: a second, different message in the set-up of batch {self.batch}")
        if self._stage == 1:
            dealt = Dealt.decode(message)
            if (dealt.sid, dealt.batch, dealt.index, len(dealt.sealed)) != (
                self._sid,
                self.batch,
                place,
                len(self._roster.names),
            ):
                raise ProtocolError(f"{sender}: its shares are for another session, batch or roster")
        if self._stage == 2:
            self._check_ack(place, message)
        self._received[sender] = message

    def missing(self) -> frozenset[PartyName]:
        """Returns whose message of the current stage is still awaited."""
        return frozenset() if self.done else frozenset(self._roster.names) - frozenset(self._received)

    def advance(self) -> Mapping[PartyName, bytes]:
        """Closes the current stage and returns what each party gets next.

        Raises:
            ProtocolError: A message is missing, or the Keys do not belong together. The set-up has failed; another one
                needs a new batch number.
        """
        if self.done or self.missing():
            awaited = ", ".join(sorted(self.missing())) or "nobody"
            raise ProtocolError(f"the set-up of batch {self.batch} cannot go on: {awaited} did not answer")
        messages = [self._received[name] for name in self._roster.names]
        names = self._roster.names
        if self._stage == 0:
            self.directory = Directory.check(self._roster, self._sid, self.batch, messages)
            answers = dict.fromkeys(names, enc_list("keys-list", tuple(messages)))
        elif self._stage == 1:
            answers = self._turned([Dealt.decode(message) for message in messages])
        else:
            answers = dict.fromkeys(names, enc_list("ack-list", tuple(messages)))
        self._before, self._received = self._received, {}
        self._stage += 1
        return answers

    def _turned(self, dealt: list[Dealt]) -> dict[PartyName, bytes]:
        """Returns for each holder what all owners sealed for it."""
        return {
            name: Dealt(self._sid, self.batch, holder, tuple(d.sealed[holder] for d in dealt)).encode()
            for holder, name in enumerate(self._roster.names)
        }

    def _check_ack(self, place: int, message: bytes) -> None:
        ack, name = Ack.decode(message), self._roster.names[place]
        expected = self.directory.ack_statement if self.directory else b""
        if ack.index != place or ack.statement != expected:
            raise ProtocolError(f"{name} acknowledged other Keys for batch {self.batch}")
        if not verify(self._roster.keys[place], expected, ack.signature):
            raise ProtocolError(f"{name}: its acknowledgement of batch {self.batch} is not signed by it")
