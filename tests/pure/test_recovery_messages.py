# SPDX-License-Identifier: Apache-2.0
"""No bytes make a decoder of recovery do anything but return a record or raise EncodingError."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.errors import EncodingError
from fedray.protocol.crypto.shamir import PRIME
from fedray.protocol.messages import enc, purpose_of, put_check
from fedray.protocol.recovery.key_messages import Ack, Dealt, Keys, Sharing
from fedray.protocol.recovery.round_messages import (
    MaskedInput,
    Quorum,
    Survive,
    Survivors,
    Unmask,
    fill_header,
    masked_frame,
)

SID, CTX, HASH, SIGNATURE = b"s" * 32, b"c" * 32, b"h" * 32, b"g" * 64
SURVIVORS = Survivors(SID, 7, CTX, (0, 2, 5), (b"a" * 32, b"b" * 32, b"d" * 32))


def masked(bits: int) -> bytes:
    frame, words = masked_frame(3, bits)
    words[:] = range(3)
    fill_header(frame, (SID, 7, 1, CTX, 3, bits, HASH, SIGNATURE))
    put_check(frame, 5)
    return frame.tobytes()


SAMPLES: dict[str, tuple[bytes, Callable[[Any], Any]]] = {
    "survivors": (SURVIVORS.encode(), Survivors.decode),
    "signed-survive": (Survive(SURVIVORS.statement, 2, SIGNATURE).encode(), Survive.decode),
    "quorum": (Quorum(SURVIVORS, (0, 5), (SIGNATURE, SIGNATURE)).encode(), Quorum.decode),
    "unmask": (Unmask(SID, 7, 1, (0, 1), b"\0\1", (bytes(33), b"\0" + b"x" * 32)).encode(), Unmask.decode),
    "mask": (masked(32), MaskedInput.decode),
    "signed-keys": (Keys(SID, 1, 2, (4, 5), (HASH, CTX), (SID, HASH), SIGNATURE).encode(), Keys.decode),
    "sharing": (Sharing(1, 2, 3, 4, (bytes(66), b"\0" + bytes(65))).encode(), Sharing.decode),
    "dealt": (Dealt(SID, 1, 2, (b"", b"sealed")).encode(), Dealt.decode),
    "signed-ack": (Ack(SID, 1, HASH, 2, SIGNATURE).encode(), Ack.decode),
}


@pytest.mark.parametrize("purpose", SAMPLES)
def test_a_record_survives_the_wire(purpose: str) -> None:
    data, decode = SAMPLES[purpose]
    assert purpose_of(data) == purpose
    record = decode(data)
    if purpose != "mask":
        assert record.encode() == data
        assert decode(record.encode()) == record


@pytest.mark.parametrize("bits", [32, 64])
def test_a_masked_input_is_an_ordinary_statement(bits: int) -> None:
    words = np.arange(3, dtype=f"<u{bits // 8}").tobytes()
    assert masked(bits) == enc("mask", SID, 7, 1, CTX, 3, bits, HASH, SIGNATURE, words, 5)
    record = MaskedInput.decode(np.frombuffer(masked(bits), np.uint8))
    assert (record.sid, record.number, record.index, record.ctx) == (SID, 7, 1, CTX)
    assert (record.words.tolist(), record.check) == ([0, 1, 2], 5)
    assert record.hash() == hashlib.sha256(words + (5).to_bytes(8, "big")).digest()
    assert record.statement == enc("masked", SID, 7, 1, CTX, 3, bits, HASH)


def survives(decode: Callable[[Any], Any], data: bytes) -> None:
    try:
        record = decode(data)
    except EncodingError:
        return
    assert record is not None


@given(st.sampled_from(list(SAMPLES)), st.binary(max_size=400), st.randoms(use_true_random=False))
def test_no_bytes_break_a_decoder(purpose: str, noise: bytes, dice: random.Random) -> None:
    data, decode = SAMPLES[purpose]
    survives(decode, noise)
    survives(purpose_of, noise)
    for _ in range(20):
        altered = mutated(data, dice)
        survives(decode, altered)
        survives(purpose_of, altered)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A message with a few bytes set, cut out or put in; lengths and counts are the likely ones."""
    altered = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(altered) or 1)
        act = dice.random()
        if act < 0.6 and altered:
            altered[place] = dice.choice([0, 1, 255, altered[place] ^ 1, dice.randrange(256)])
        elif act < 0.8:
            del altered[place : place + dice.randint(1, 40)]
        else:
            altered[place:place] = bytes(dice.randint(1, 40))
    return bytes(altered)


@pytest.mark.parametrize(
    "wrong", [None, 7, "text", [1], np.zeros(300), np.zeros((30, 10), np.uint8), np.zeros(600, np.uint8)[::2]]
)
@pytest.mark.parametrize("purpose", SAMPLES)
def test_what_is_no_message_is_refused(purpose: str, wrong: Any) -> None:
    with pytest.raises(EncodingError):
        SAMPLES[purpose][1](wrong)
    with pytest.raises(EncodingError):
        purpose_of(wrong)


def joined(*numbers: int, size: int = 4) -> bytes:
    return b"".join(n.to_bytes(size, "big") for n in numbers)


TOO_LARGE = PRIME.to_bytes(33, "big")
REFUSED: dict[str, tuple[Callable[[Any], Any], bytes]] = {
    "members out of order": (Survivors.decode, enc("survivors", SID, 7, CTX, joined(2, 0), HASH * 2)),
    "a member twice": (Survivors.decode, enc("survivors", SID, 7, CTX, joined(2, 2), HASH * 2)),
    "a hash too few": (Survivors.decode, enc("survivors", SID, 7, CTX, joined(0, 2), HASH)),
    "half an index": (Survivors.decode, enc("survivors", SID, 7, CTX, b"\0\0", HASH)),
    "a signer twice": (Quorum.decode, enc("quorum", SURVIVORS.encode(), joined(1, 1), SIGNATURE * 2)),
    "a signature too few": (Quorum.decode, enc("quorum", SURVIVORS.encode(), joined(1, 2), SIGNATURE)),
    "both shares of one owner": (Unmask.decode, enc("unmask", SID, 7, 1, joined(3, 3), b"\0\1", bytes(66))),
    "an unknown kind": (Unmask.decode, enc("unmask", SID, 7, 1, joined(3), b"\2", bytes(33))),
    "a kind too few": (Unmask.decode, enc("unmask", SID, 7, 1, joined(3), b"", bytes(33))),
    "a share out of range": (Unmask.decode, enc("unmask", SID, 7, 1, joined(3), b"\0", TOO_LARGE)),
    "a dealt share out of range": (Sharing.decode, enc("sharing", 1, 2, 3, 4, bytes(33) + TOO_LARGE)),
    "half a pair": (Sharing.decode, enc("sharing", 1, 2, 3, 4, bytes(33))),
    "no rounds": (Keys.decode, enc("signed-keys", SID, 1, 2, b"", SIGNATURE)),
    "rounds out of order": (
        Keys.decode,
        enc("signed-keys", SID, 1, 2, joined(5, size=8) + HASH * 2 + joined(4, size=8) + HASH * 2, SIGNATURE),
    ),
    "a ring of 16 bits": (MaskedInput.decode, enc("mask", SID, 7, 1, CTX, 3, 16, HASH, SIGNATURE, bytes(6))),
    "a word too few": (MaskedInput.decode, enc("mask", SID, 7, 1, CTX, 3, 32, HASH, SIGNATURE, bytes(8))),
    "another label": (MaskedInput.decode, masked(32).replace(b"mask", b"musk")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bytes_that_say_what_they_must_not_are_refused(what: str) -> None:
    decode, data = REFUSED[what]
    with pytest.raises(EncodingError):
        decode(data)


def test_a_message_of_four_gibibytes_is_refused_before_it_is_made() -> None:
    with pytest.raises(EncodingError, match="4 GiB"):
        masked_frame(1 << 30, 32)


if __name__ == "__main__":  # a long run: `python tests/pure/test_recovery_messages.py 1000000`
    import sys

    dice = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for _ in range(int(sys.argv[1])):
        data, decode = SAMPLES[dice.choice(list(SAMPLES))]
        survives(decode, mutated(data, dice))
