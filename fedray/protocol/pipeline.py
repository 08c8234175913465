# SPDX-License-Identifier: Apache-2.0
"""What becomes of a vector between its values and its message, one stretch at a time.

A contribution is encoded, then hidden, then hashed: three passes over memory, if each were done for the whole vector.
Done for one stretch after another, the words are still in the core's cache when the next stage wants them, and only the
first pass reads memory and only the last one leaves something there. So a stage is handed one stretch, works on it in
place, and is called again for the next one.

The order of stages is the meaning: a stage between the encoder and the pad sees the integers that are summed, as the
check of a sum has to; one after the pad sees what leaves the party.

Knows how long a stretch is. Does not know what any stage does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fedray.protocol.crypto.keystream import CHUNK_BYTES
from fedray.protocol.messages import Words

WordStage: TypeAlias = Callable[[Words, int], None]
"""(words of one stretch, place of the first one in the vector); changes them in place, or only looks at them."""


def run(words: Words, *stages: WordStage) -> None:
    """Takes a vector through all stages, stretch by stretch.

    Args:
        words: uint32[L] or uint64[L], little-endian; changed in place.
        *stages: What is done to each stretch, in this order. Each stage sees all stretches, from first to last.

    Raises:
        EncodingError: A stage found something that it cannot work on. The stages after it have not seen that stretch.
    """
    step = CHUNK_BYTES // words.itemsize
    for start in range(0, len(words), step):
        stretch = words[start : start + step]
        for stage in stages:
            stage(stretch, start)
