# SPDX-License-Identifier: Apache-2.0
"""A few thousand of the inputs of `fuzz_decoders`, and the fuzzer itself: it must find a decoder that forgives."""

import random
import re
from pathlib import Path

import pytest
from fuzz_decoders import Target, fuzz, targets

import fedray
from fedray.errors import EncodingError
from fedray.protocol.messages import Confirm

EVERY = targets()
OTHERS = [message for target in EVERY.values() for message in target.valid]


@pytest.mark.parametrize("name", EVERY)
def test_no_bytes_do_anything_but_decode_or_raise(name: str) -> None:
    found = fuzz(name, EVERY[name], OTHERS, 300, random.Random(name))
    assert found["refused"] > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_hundred_thousand_inputs_do_no_more(name: str) -> None:
    found = fuzz(name, EVERY[name], OTHERS, 100_000, random.Random(f"long {name}"))
    assert found["refused"] > 15_000


def test_every_decoder_of_messages_is_tried() -> None:
    sources = [path.read_text() for path in (Path(fedray.__file__).parent / "protocol").rglob("*.py")]
    decoders = sum(len(re.findall(r"^    def decode\(cls, (?:data|message):", text, flags=re.M)) for text in sources)
    tried = {getattr(target.decode, "__qualname__", "") for target in EVERY.values()}
    owners = [getattr(target.decode, "__self__", None) for target in EVERY.values()]
    assert len({owner for owner in owners if owner is not None}) == decoders
    assert sum(name.endswith(".decode") for name in tried) > 0


def test_a_decoder_that_forgives_is_found() -> None:
    valid = EVERY["confirm"].valid[0]

    def forgiving(data: bytes) -> Confirm:
        return Confirm.decode(data[: len(valid)])

    with pytest.raises(AssertionError, match="accepted other bytes"):
        fuzz("broken", Target((valid,), forgiving, lambda record: record.encode()), OTHERS, 300, random.Random(1))


def test_a_decoder_that_raises_something_else_is_found() -> None:
    def careless(data: bytes) -> Confirm:
        return Confirm.decode(data) if data[5] < 128 else None

    target = Target(EVERY["confirm"].valid, careless, None, (EncodingError,))
    with pytest.raises(AssertionError, match="IndexError"):
        fuzz("broken", target, OTHERS, 3000, random.Random(1))
