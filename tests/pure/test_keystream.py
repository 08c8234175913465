# SPDX-License-Identifier: Apache-2.0
"""Keystreams: the bytes of the specification from either cipher, whatever the chunks."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from fedray.errors import EncodingError
from fedray.protocol.crypto import keystream

KEY = bytes(range(32))


def counter_blocks(key, count):
    """The stream from single blocks of AES: the first counter block is twelve zero bytes and 00000002."""
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return ecb.update(b"".join(bytes(12) + (2 + i).to_bytes(4, "big") for i in range(count)))


@pytest.fixture(params=["ctr", "gcm"])
def cipher(request, monkeypatch):
    monkeypatch.setattr(keystream, "CIPHER", request.param)


def padded(words, plus, minus, cuts=()):
    words, pad, place = words.copy(), keystream.Pad(plus, minus), 0
    stretches = range(0, len(words), keystream.CHUNK_BYTES // words.itemsize)
    for part in np.split(words, sorted({*cuts, *stretches})):
        pad.apply(part, place)
        place += len(part)
    return words


@pytest.mark.parametrize("bits", [32, 64])
def test_the_words_are_those_of_the_specification(cipher, bits):
    words = padded(np.zeros(1000, f"<u{bits // 8}"), [KEY], [])
    assert words.tobytes() == counter_blocks(KEY, bits * 1000 // 128)


def test_both_ciphers_agree_over_many_chunks(monkeypatch):
    found = []
    for name in keystream.CIPHERS:
        monkeypatch.setattr(keystream, "CIPHER", name)
        found.append(padded(np.zeros(300_001, "<u4"), [KEY, bytes(32)], [b"x" * 32]))
    assert np.array_equal(*found)


def test_the_fastest_cipher_is_one_of_them():
    assert keystream.fastest() in keystream.CIPHERS
    assert keystream.CIPHER in keystream.CIPHERS


@given(st.lists(st.integers(0, 5000), max_size=4), st.sampled_from([32, 64]))
def test_cuts_do_not_matter(cuts, bits):
    words = np.arange(5000).astype(f"<u{bits // 8}")
    assert np.array_equal(padded(words, [KEY], [b"y" * 32], sorted(cuts)), padded(words, [KEY], [b"y" * 32]))


@given(st.sampled_from([32, 64]), st.integers(0, 70_000), st.integers(1, 3), st.integers(0, 3))
def test_what_is_added_can_be_taken_away(bits, size, plus, minus):
    words = np.arange(size).astype(f"<u{bits // 8}")
    keys = [bytes([i]) * 32 for i in range(plus + minus)]
    masked = padded(words, keys[:plus], keys[plus:])
    assert np.array_equal(padded(masked, keys[plus:], keys[:plus]), words)
    if size > 4:
        assert not np.array_equal(masked, words)


def test_words_are_changed_in_place():
    words = np.zeros(10, "<u8")
    keystream.Pad([KEY], []).apply(words, 0)
    assert words.any()


def test_a_key_makes_no_more_than_it_may(monkeypatch):
    monkeypatch.setattr(keystream, "MOST_BITS", (1 << 12) + 128)  # 64 words, and what covers their check
    pad = keystream.Pad([KEY], [])
    pad.apply(np.zeros(64, "<u8"), 0)
    with pytest.raises(EncodingError, match="another key"):
        pad.apply(np.zeros(1, "<u8"), 64)


@pytest.mark.parametrize("start", [0, 63, 65], ids=["again", "overlapping", "with a gap"])
def test_a_stretch_that_is_not_the_next_one_is_refused(start):
    pad, words = keystream.Pad([KEY], []), np.zeros(128, "<u8")
    pad.apply(words[:64], 0)
    with pytest.raises(EncodingError, match=f"one stretch of a vector after another, found one at word {start}"):
        pad.apply(words[64:], start)
    assert not words[64:].any()
    pad.apply(words[64:], 64)
    assert words.tobytes() == counter_blocks(KEY, 64)


def test_a_stretch_that_is_too_long_is_refused():
    with pytest.raises(EncodingError, match="one stretch"):
        keystream.Pad([KEY], []).apply(np.zeros(keystream.CHUNK_BYTES // 8 + 1, "<u8"), 0)


def test_a_short_key_is_refused():
    with pytest.raises(EncodingError, match="32 bytes"):
        keystream.Pad([b"seed"], [])
