# SPDX-License-Identifier: Apache-2.0
"""When the same input, or another one on the same model, may be summed again (SECAGG sections 4 and 7).

Knows tags of inputs and what became of their rounds. Does not keep inputs, and a tag says nothing without this
process's key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.crypto.keys import Guarded
from fedray.protocol.member import Member
from fedray.protocol.messages import digest, enc
from fedray.protocol.scheme import Contribution, Purpose, RoundContext
from fedray.types import PartyName, Round

_UNLIMITED = 1 << 62


@dataclass(slots=True)
class _Use:
    """One round an input was sent for.

    Attributes:
        tag: Of the input.
        opened: Under which the memory keeps over whom the model's sums were opened.
        members: Over whom this party helped to open it, once it did.
    """

    tag: bytes
    opened: bytes
    members: tuple[PartyName, ...] | None = None


class InputRules(Guarded):
    """One session's inputs at one party."""

    def __init__(self, sid: bytes, member: Member) -> None:
        self._sid, self._member = sid, member
        self._key = os.urandom(32)
        self._uses: dict[tuple[bytes, Purpose], dict[Round, _Use]] = {}

    def tag(self, context: RoundContext, contribution: Contribution) -> bytes:
        """Returns a keyed 16-byte digest of an input and its model (GMAC under a key of this object only).

        Raises:
            EncodingError: The values are no numbers.
        """
        values = np.ascontiguousarray(contribution.values)
        if values.dtype.kind not in "fiu":
            raise EncodingError(f"expected real numbers, found {values.dtype}")
        weight, metrics = contribution.rest
        stream = Cipher(algorithms.AES(self._key), modes.GCM(bytes(12))).encryptor()
        shape = (values.nbytes, len(metrics), values.dtype.str, str(weight))
        # Sizes and types are in front: without them two inputs could run into each other's bytes.
        stream.authenticate_additional_data(enc("input", context.model, context.purpose, *shape))
        stream.authenticate_additional_data(values.view(np.uint8).data)
        stream.authenticate_additional_data(metrics)
        stream.finalize()
        return stream.tag

    def admit(self, context: RoundContext, tag: bytes, *, repeat: bool) -> None:
        """Checks that an input may be sent.

        Args:
            context: The round.
            tag: Of the input.
            repeat: Whether it is the last input once more, which is no further use of the model.

        Raises:
            ProtocolError: It was sent for a round that may have been opened without this party, or its model served
                enough rounds.
        """
        uses = self._of(context)
        for number, use in uses.items():
            # Not seen to open is not the same as not opened: the answer may be what got lost.
            if use.tag == tag and use.members is None:
                raise self._member.fault(
                    f"the same input was sent for round {number}, which was not seen to open: both rounds could open "
                    "and differ by one input. Contribute freshly computed data"
                )
        if repeat:
            return
        # One more round on this model after an abort, for fresh data; not one more for each abort.
        aborted = any(use.members is None for use in uses.values())
        self._member.check_model(self._sid, context, self._member.roster.names, more=aborted, open_later=True)

    def record(self, context: RoundContext, tag: bytes, *, repeat: bool) -> None:
        """Remembers an input that is about to leave.

        Args:
            context: The round.
            tag: Of the input.
            repeat: As in `admit`.
        """
        member, use = self._member, _Use(tag, _opened(context))
        if not repeat:
            member.record(self._sid, context, member.roster.names, open_later=True)
        self._uses[context.model, context.purpose][context.number] = use

    def approve(self, context: RoundContext, members: tuple[PartyName, ...]) -> None:
        """Checks that this party may help to open a sum over these survivors.

        Raises:
            ProtocolError: The same input, or in another session its model, was already summed over others; or they are
                not all, and the party's policy allows no smaller set.
        """
        everybody = self._member.roster.names
        if self._member.policy.views == 0 and members != everybody:
            raise self._member.fault(
                f"its policy allows a sum over all parties only (views = 0), not over {members} of {everybody}"
            )
        others = self._member.policy.allow_other_members
        uses = self._of(context)
        mine = uses[context.number]
        for number, use in uses.items():
            if use.tag == mine.tag and use.members not in (None, members) and not others:
                raise ProtocolError(
                    f"the same input was summed over {use.members} in round {number}, now over {members}: the "
                    "difference would show single inputs"
                )
        memory = self._member.memory
        memory.check(
            self._sid, mine.opened, context.purpose, members, _UNLIMITED, context.rows, allow_other_members=others
        )
        self._member.check_opening(context, members)

    def released(self, context: RoundContext, members: tuple[PartyName, ...]) -> None:
        """Remembers over whom this party helped to open a sum."""
        use = self._uses[context.model, context.purpose][context.number]
        use.members = members
        memory = self._member.memory
        memory.record(self._sid, use.opened, context.purpose, members, context.rows)
        if context.rows is not None:
            memory.turnover(context.rows).record(context.rows, members)

    def _of(self, context: RoundContext) -> dict[Round, _Use]:
        return self._uses.setdefault((context.model, context.purpose), {})


def _opened(context: RoundContext) -> bytes:
    """Returns the name under which the memory keeps over whom a model's sums were opened, apart from its rounds."""
    return digest("opened", context.model, context.purpose)
