# SPDX-License-Identifier: Apache-2.0
"""Scheme sharing, the opening end: adds the compute parties' sums of one round, and reads the total.

Knows what the compute parties signed and published. Knows no share of one owner, and no key of anybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fedray.errors import ProtocolError
from fedray.protocol.config import Config
from fedray.protocol.crypto.field import PRIME
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.manifest import Manifest
from fedray.protocol.messages import Hello, Words, digest
from fedray.protocol.opened import OpenedSum
from fedray.protocol.scheme import View
from fedray.protocol.sharing.agreement import Agreement, Partial
from fedray.protocol.sharing.roles import Roles, names_of
from fedray.protocol.sharing.split import add_share
from fedray.types import Message, PartyName, Round


class SharingCollector:
    """The opening end of one round."""

    def __init__(self, config: Config, roster: Roster, sid: bytes, number: Round, manifest: Manifest) -> None:
        """Prepares an empty sum.

        Args:
            config: Agreed settings.
            roster: Owners and compute parties.
            sid: Session id.
            number: The round.
            manifest: What the words mean.

        Raises:
            ProtocolError: The Config is not for scheme sharing or does not fit the roster.
        """
        self._roles = Roles.of(config, roster)
        self._config, self._roster, self._sid = config, roster, sid
        self._number = number
        self._size = manifest.words(config.contributors)
        self._digests: dict[PartyName, bytes] = {}
        self._agreed: Agreement | None = None
        self._total: Words | None = None
        self._check_sum = 0

    def add(self, sender: PartyName, message: Message) -> None:
        """Adds one compute party's sum; the same one again is ignored.

        Raises:
            ProtocolError: The sender computes nothing here, the sum is of another round, not all compute parties signed
                whose inputs are in it, or it differs from the sender's first one. The total is unchanged.
        """
        known = hashlib.sha256(message if isinstance(message, bytes) else message.data).digest()
        if sender in self._digests:
            if self._digests[sender] != known:
                raise ProtocolError(f"{sender}: a second, different sum for round {self._number}")
            return
        # All is checked before it is added: what is in the total cannot be taken out.
        partial = Partial.decode(message)
        self._check(sender, partial)
        if self._total is None:
            self._total = np.zeros(self._size, partial.words.dtype)
        self._check_sum = (self._check_sum + add_share(self._total, (partial.words, partial.check))) % PRIME
        self._agreed, self._digests[sender] = partial.proof.agreement, known

    def missing(self) -> frozenset[PartyName]:
        """Returns whose sum is still awaited."""
        return frozenset(self._config.receivers) - frozenset(self._digests)

    def sufficient(self) -> bool:
        """Returns whether all sums are in: every compute party holds a part of the result."""
        return not self.missing()

    def advance(self) -> bytes | None:
        """Returns None: one exchange is all."""
        return None

    def open(self) -> OpenedSum:
        """Returns the sum, once all compute parties have published theirs; it is handed out once.

        Raises:
            ProtocolError: A sum is missing, the total is noise, or it was opened before. Nothing of it is given out.
        """
        if self._agreed is None or self.missing():
            raise ProtocolError(f"round {self._number}: no sum yet from {', '.join(sorted(self.missing()))}")
        total, self._total = self._total, None
        if total is None:
            raise ProtocolError(f"round {self._number}: its sum was opened before")
        opened = OpenedSum(total, names_of(self._agreed.members, self._roster), self._check_sum)
        opened.check_count()
        return opened

    def _check(self, sender: PartyName, partial: Partial) -> None:
        computing, agreed, bits = self._config.receivers, partial.proof.agreement, self._config.encoding.ring
        if partial.compute_party >= len(computing) or computing[partial.compute_party] != sender:
            raise ProtocolError(f"{sender}: a sum that says it is another compute party's")
        if agreed.sid != self._sid or agreed.number != self._number:
            raise ProtocolError(f"{sender}: expected its sum of round {self._number}, found another round or session")
        if len(partial.words) != self._size or partial.words.itemsize * 8 != bits:
            raise ProtocolError(
                f"{sender}: expected {self._size} words of {bits} bits, found {len(partial.words)} of "
                f"{partial.words.itemsize * 8}"
            )
        partial.proof.check([self._roster.keys[place] for place in self._roles.compute_parties])
        self._roles.check_members(agreed.members, self._roster)
        if self._agreed is not None and self._agreed != agreed:
            raise ProtocolError(f"{sender}: its sum is over other owners or another context than the first one")


class SharingCoordinator:
    """The server's side of one session: makes the opening ends of its rounds.

    Attributes:
        recovers: True: whose inputs are opened is settled among the compute parties, which leave out who is gone.
    """

    recovers = True

    def __init__(self, config: Config, roster: Roster, hellos: Sequence[bytes], confirms: Sequence[bytes]) -> None:
        """Takes what set-up has agreed.

        Args:
            config: Agreed settings.
            roster: Owners and compute parties.
            hellos: Everybody's Hello, in roster order.
            confirms: Not needed: the compute parties have checked them.

        Raises:
            ProtocolError: The Config is not for scheme sharing or does not fit the roster.
            EncodingError: A Hello is none.
        """
        del confirms
        Roles.of(config, roster)
        self._config, self._roster = config, roster
        self.sid = digest("sid", config.encode(), *(Hello.decode(hello).statement for hello in hellos))

    def collector(self, view: View, number: Round, manifest: Manifest) -> SharingCollector:
        """Returns the opening end of one round; whose inputs it has is in what the compute parties signed.

        Args:
            view: Not needed: whose inputs are opened is in what the compute parties signed.
            number: The round.
            manifest: What the words mean.
        """
        del view
        return SharingCollector(self._config, self._roster, self.sid, number, manifest)

    def check_view(self, members: Sequence[PartyName]) -> None:
        """Refuses: without one compute party nothing can be opened.

        Raises:
            ProtocolError: Always.
        """
        lost = ", ".join(name for name in self._config.receivers if name not in members) or "nobody"
        raise ProtocolError(f"shares cannot be added up without every compute party; missing: {lost}")
