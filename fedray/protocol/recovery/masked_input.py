# SPDX-License-Identifier: Apache-2.0
"""R1: one contribution, encoded, double-masked, hashed and signed, stretch by stretch while it is in cache.

Knows the keys of one round's pads for as long as it takes. Does not know rounds' order nor what was sent before.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedray.errors import ProtocolError
from fedray.protocol.crypto.keys import sign
from fedray.protocol.crypto.keystream import CHUNK_BYTES, Pad
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.recovery.key_batch import KeyBatch
from fedray.protocol.recovery.member import Member
from fedray.protocol.recovery.pads import PadScope, RoundSecrets
from fedray.protocol.recovery.round_messages import fill_header, masked_frame, masked_statement


def double_pad(place: Member, batch: KeyBatch, own: RoundSecrets, scope: PadScope) -> Pad:
    """Returns what hides one party's words: its own pad, and one with each neighbour; the lower index adds.

    Raises:
        ProtocolError: A neighbour's public key is invalid; the message names it.
    """
    me, plus, minus = place.index, [scope.self_key(own.seed, place.index)], list[bytes]()
    for other in batch.neighbours(scope.number):
        try:
            key = scope.pair_key(own.private, batch.directory.public(other, scope.number), me, other)
        except ProtocolError as error:
            raise ProtocolError(f"{place.name}: {place.roster.names[other]}: {error}") from None
        (plus if other > me else minus).append(key)
    return Pad(plus, minus)


def mask_input(place: Member, scope: PadScope, encoder: Encoder, pad: Pad) -> tuple[NDArray[np.uint8], bytes]:
    """Returns the signed message of R1, and the SHA-256 of its words.

    Raises:
        EncodingError: A value cannot be encoded.
    """
    frame, words = masked_frame(scope.size, scope.bits)
    hashed, step = hashlib.sha256(), CHUNK_BYTES // words.itemsize
    for start in range(0, len(words), step):
        part = words[start : start + step]
        encoder.encode(part, start)
        pad.apply(part)
        hashed.update(part.data)
    words_hash = hashed.digest()
    statement = masked_statement(scope.sid, scope.number, place.index, scope.ctx, words, words_hash)
    signature = sign(place.identity, statement)
    header = (scope.sid, scope.number, place.index, scope.ctx, scope.size, scope.bits, words_hash, signature)
    fill_header(frame, header)
    frame.flags.writeable = False
    return frame, words_hash
