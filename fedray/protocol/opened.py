# SPDX-License-Identifier: Apache-2.0
"""OpenedSum: what comes of a round at the server, which adds and decides nothing. The words' sum, its set, its check.

Every party verifies it with the session's secret (`fedray/protocol/checks/judge.py`) and reads it with a manifest of
its own (`fedray/protocol/fixed_point.py`). Between nodes it travels packed. Knows no manifest, no model and no
party's words.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.packing import pack, packed_size, unpack
from fedray.types import PartyName

Packed: TypeAlias = tuple[NDArray[np.uint8], int, int, tuple[PartyName, ...], int | None]
"""A sum as it travels between nodes: its words packed, how many, of how many bits; members and check."""

_PACKING = threading.Lock()  # one for all: whoever waits for a sum to be packed would pack it once more


@dataclass(frozen=True, slots=True, eq=False)
class OpenedSum:
    """The sum of one round, as words.

    Attributes:
        words: uint32[L] or uint64[L], little-endian, the sum mod 2^l of the members' words `[values | counts | weight |
            totals | 1]`. Never changed: every party of a process may read the same memory.
        members: Whose words are in it, in roster order.
        check: The sum of the members' checks mod 2^61 - 1; None where nothing is protected.
    """

    words: NDArray[Any]
    members: tuple[PartyName, ...]
    check: int | None = None
    _data: NDArray[np.uint8] | None = field(default=None, init=False, repr=False, compare=False)
    _nbytes: int | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def unpacked(
        cls, data: NDArray[np.uint8], size: int, bits: int, members: tuple[PartyName, ...], check: int | None
    ) -> OpenedSum:
        """Returns what `packed` made of a sum.

        Args:
            data: The packed words.
            size: Words L.
            bits: Bits of a word.
            members: Whose words are in it.
            check: As in the attributes.

        Raises:
            EncodingError: The bytes are not those of so many words.
        """
        words = unpack(data, size, bits)
        words.flags.writeable = False
        found = cls(words, members, check)
        object.__setattr__(found, "_data", data)
        return found

    def packed(self) -> Packed:
        """Returns the sum as it travels between nodes. It is packed once, for however many parties that wait."""
        with _PACKING:
            data = self._data
            if data is None:
                data = pack(self.words)
                object.__setattr__(self, "_data", data)
        return data, len(self.words), 8 * self.words.itemsize, self.members, self.check

    @property
    def nbytes(self) -> int:
        """Bytes of its words as they travel between nodes, for which they need not be packed."""
        with _PACKING:
            found = self._nbytes
            if found is None:
                found = packed_size(self.words)
                object.__setattr__(self, "_nbytes", found)
        return found

    def drop_packed(self) -> None:
        """Frees the packed words, where the sum has arrived and goes nowhere else: of long ones that is much memory."""
        object.__setattr__(self, "_data", None)

    def __reduce__(self) -> tuple[type[OpenedSum], tuple[NDArray[Any], tuple[PartyName, ...], int | None]]:
        """Travels as it is where it is pickled: so long ones do on one machine, in memory that is shared."""
        return OpenedSum, (self.words, self.members, self.check)

    def check_count(self) -> None:
        """Checks that the last word, the sum of everybody's 1, says how many words were added.

        Raises:
            ProtocolError: It does not. Where pads did not cancel every word is noise, and saying so is more use than a
                wrong range.
        """
        signed = self.words.view(f"<i{self.words.itemsize}")
        if not len(signed) or int(signed[-1]) != len(self.members):
            raise ProtocolError(
                f"the sum over {self.members} is noise or was altered: the check word is not {len(self.members)}. The "
                "parties differ in view, model, settings or history, or a vector was changed on its way; nothing is "
                "published"
            )
