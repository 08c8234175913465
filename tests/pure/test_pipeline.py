# SPDX-License-Identifier: Apache-2.0
"""The pipeline: every stage sees every stretch once and in order, and in the state that the stages before it left."""

import hashlib

import numpy as np
import pytest
from pure.masking_kit import manifest_of, plain_values

from fedray.errors import NotFinite
from fedray.protocol.config import Encoding
from fedray.protocol.crypto.keystream import CHUNK_BYTES, Pad
from fedray.protocol.fixed_point import Encoder
from fedray.protocol.pipeline import run

KEY = bytes(range(32))


def encoder_of(values, encoding):
    return Encoder(encoding, 3, manifest_of(len(values), weighted=False), plain_values(values))


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(32)], ids=["64", "32"])
@pytest.mark.parametrize("more", [-3, 0, 7])
def test_stretch_by_stretch_is_the_same_as_pass_after_pass(encoding, more):
    size = 2 * CHUNK_BYTES // (encoding.ring // 8) + more
    values = np.random.default_rng(0).normal(size=size)
    words = np.empty(size + 2, f"<u{encoding.ring // 8}")
    hashed = hashlib.sha256()
    pad = Pad([KEY], [])
    run(words, encoder_of(values, encoding).encode, pad.apply, lambda part, _: hashed.update(part.data))
    alone = np.empty_like(words)
    for stage in (encoder_of(values, encoding).encode, Pad([KEY], []).apply):
        run(alone, stage)
    assert np.array_equal(words, alone)
    assert hashed.digest() == hashlib.sha256(alone.data).digest()


def test_a_stage_before_the_pad_sees_the_integers_that_are_summed():
    """As a linear check of the sum would: three times the words, plus twice, is five times, whatever the stretches."""
    values = np.arange(70_000) % 100 - 50.0
    words, seen = np.empty(70_002, "<u8"), []
    run(
        words,
        encoder_of(values, Encoding()).encode,
        lambda part, at: seen.append((at, part.copy())),
        Pad([KEY], []).apply,
    )
    assert [at for at, _ in seen] == list(range(0, 70_002, CHUNK_BYTES // 8))
    integers = np.concatenate([part for _, part in seen]).view("<i8")
    assert integers[:-2].tolist() == [int(value) << 41 for value in values]
    assert integers[-2:].tolist() == [1, 1]
    assert not np.array_equal(integers, words.view("<i8"))


def test_stages_after_the_one_that_fails_see_nothing_of_that_stretch():
    values = np.zeros(2 * CHUNK_BYTES // 8)
    values[-1] = np.nan
    words, seen = np.empty(len(values) + 2, "<u8"), []
    with pytest.raises(NotFinite):
        run(words, encoder_of(values, Encoding()).encode, lambda _, at: seen.append(at))
    assert seen == [0]
