# SPDX-License-Identifier: Apache-2.0
"""Packed words come back as they were, in as few bytes as they need, and other bytes are refused."""

import numpy as np
import pytest

from fedray.errors import EncodingError
from fedray.protocol.packing import BLOCK, pack, packed_size, unpack


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("size", [0, 1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_words_of_any_size_come_back(size, bits):
    draw = np.random.default_rng(size)
    for used in range(1, bits + 1, 5):
        words = draw.integers(-(1 << (used - 1)), (1 << (used - 1)) - 1, size).astype(f"<i{bits // 8}")
        packed = pack(words.view(f"<u{bits // 8}"))
        assert packed_size(words.view(f"<u{bits // 8}")) == len(packed)
        back = unpack(packed, size, bits)
        assert back.dtype == f"<u{bits // 8}"
        assert np.array_equal(back.view(words.dtype), words)
        assert len(packed) <= size * -(-used // 8) + 8


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 127, 128, -128, -129, 32767, -32769, 0])
def test_a_word_takes_as_many_bytes_as_it_has_with_its_sign(number):
    words = np.array([0, number, -1], "<i8").view("<u8")
    expected = next(n for n in range(1, 9) if -(1 << (8 * n - 1)) <= number < 1 << (8 * n - 1))
    assert len(pack(words)) == 8 + 3 * expected
    assert np.array_equal(unpack(pack(words).tobytes(), 3, 64), words)
    assert len(pack(np.zeros(100, "<u8"))) == 108


def test_words_of_training_take_six_or_seven_bytes_and_those_of_totals_do_not_widen_them():
    draw = np.random.default_rng(0)
    words = np.concatenate([draw.integers(-(1 << 46), 1 << 46, 5 * BLOCK), draw.integers(-(1 << 59), 1 << 59, 60)])
    assert len(pack(words.astype("<i8").view("<u8"))) == 8 + 6 * 5 * BLOCK + 8 * 60


@pytest.mark.parametrize(
    "change", ["cut short", "too long", "no bytes", "wider than 8", "wider than needed", "front", "size"]
)
def test_other_bytes_are_refused(change):
    words, size = np.arange(300, dtype="<u8"), 300
    packed = pack(words)
    if change == "cut short":
        packed = packed[:-1]
    elif change == "too long":
        packed = np.append(packed, np.uint8(0))
    elif change == "no bytes":
        packed = packed[:0]
    elif change == "wider than 8":
        packed = packed.copy()
        packed[0] = 9
    elif change == "wider than needed":
        packed = np.append(np.uint8([3] + [0] * 7), np.zeros(900, np.uint8))
    elif change == "front":
        packed = packed.copy()
        packed[7] = 1
    else:
        size = 1 << 50  # no memory is taken for it
    with pytest.raises(EncodingError, match="packed words"):
        unpack(packed, size, 64)


def test_a_short_message_cannot_ask_for_much_memory(monkeypatch):
    """One byte for the width of a block of zeros would stand for 256 KiB."""
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("memory is taken for words that are not there"))
    with pytest.raises(EncodingError, match=f"{16 * BLOCK} words of 64 bits do not match 16 bytes"):
        unpack(bytes(16), 16 * BLOCK, 64)
    with pytest.raises(EncodingError, match="-1 words"):
        unpack(b"", -1, 64)


def test_narrow_words_are_not_written_wider_than_they_are():
    packed = pack(np.full(3, 1 << 40, "<u8"))
    with pytest.raises(EncodingError, match="3 words of 32 bits do not match"):
        unpack(packed, 3, 32)
