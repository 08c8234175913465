# SPDX-License-Identifier: Apache-2.0
"""R1: one contribution, encoded, masked twice over, hashed and signed.

Knows one round's pad for as long as it takes. Does not know its keys, rounds' order nor what was sent before.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.checks.judge import OwnCheck
from fedray.protocol.crypto.keys import sign
from fedray.protocol.crypto.keystream import Pad
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.member import Member
from fedray.protocol.messages import check_bytes, put_check
from fedray.protocol.pipeline import run
from fedray.protocol.recovery.pads import PadScope
from fedray.protocol.recovery.round_messages import fill_header, masked_frame, masked_statement


def mask_input(
    member: Member, scope: PadScope, encoder: Encoder, own: OwnCheck, pad: Pad
) -> tuple[NDArray[np.uint8], bytes]:
    """Returns the signed message of R1, uint8[n], and the SHA-256 of its words and its check.

    Args:
        member: Who signs.
        scope: What the pad is bound to, and the header says.
        encoder: The first stage.
        own: The check of the words, the second stage.
        pad: The third stage.

    Raises:
        EncodingError: A value cannot be encoded.
    """
    frame, words = masked_frame(scope.size, scope.bits)
    hashed = hashlib.sha256()
    run(words, encoder.encode, own.product.take, pad.apply, lambda stretch, _: hashed.update(stretch.data))
    put_check(frame, check := pad.cover(own.result()))
    hashed.update(check_bytes(check))
    words_hash = hashed.digest()
    # The signature covers the hash, so the header can only be filled in when the words are done.
    statement = masked_statement(scope.sid, scope.number, member.index, scope.ctx, words, words_hash)
    signature = sign(member.identity, statement)
    fill_header(
        frame, (scope.sid, scope.number, member.index, scope.ctx, scope.size, scope.bits, words_hash, signature)
    )
    frame.flags.writeable = False
    return frame, words_hash
