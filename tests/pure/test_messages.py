# SPDX-License-Identifier: Apache-2.0
"""The encoding is injective, and no bytes make a decoder do anything but return a record or raise EncodingError."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.errors import EncodingError, PlanError
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto.keys import Roster
from fedray.protocol.masking.frame import Masked
from fedray.protocol.messages import LABEL, Confirm, Hello, dec, dec_list, enc, enc_list, put_check

FIELDS = st.lists(
    st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=40), st.text(st.characters(codec="utf-8"), max_size=12)),
    max_size=6,
)


def kinds(fields):
    return tuple(type(f) for f in fields)


def normal(fields):
    import unicodedata

    return [unicodedata.normalize("NFC", f) if isinstance(f, str) else f for f in fields]


def samples():
    """One valid message of each kind, with its decoder."""
    encoding = Encoding()
    roster = Roster.of({"alice": bytes(31) + b"a", "bob": bytes(31) + b"b", "žofie": bytes(31) + b"z"})
    frame, words = Masked.frame(b"s" * 32, b"v" * 32, 7, 1, b"c" * 32, 5, 32)
    words[:] = range(5)
    return {
        "hello": (Hello(b"h" * 32, 3, b"p" * 32, b"c" * 32, b"s" * 64).encode(), Hello.decode),
        "confirm": (Confirm(b"h" * 32, 3, b"r" * 32, b"d" * 48, b"s" * 64).encode(), Confirm.decode),
        "masked": (frame.tobytes(), Masked.decode),
        "encoding": (encoding.encode(), Encoding.decode),
        "roster": (roster.encode(), Roster.decode),
        "config": (Config.propose("masking", roster, ["server"], encoding).encode(), Config.decode),
    }


SAMPLES = samples()


def test_the_layout_is_that_of_the_specification():
    assert enc("x", 1, b"\xff", "é") == (
        b"\0\0\0\x04"
        + b"\0\0\0\x11fedray/secagg/1/x"
        + b"\0\0\0\x08\0\0\0\0\0\0\0\x01"
        + b"\0\0\0\x01\xff\0\0\0\x02\xc3\xa9"
    )


@given(FIELDS)
def test_what_was_encoded_comes_back(fields):
    assert dec("t", enc("t", *fields), kinds(fields)) == normal(fields)


@given(FIELDS, FIELDS)
def test_different_statements_have_different_bytes(one, other):
    if kinds(one) == kinds(other) and normal(one) != normal(other):
        assert enc("t", *one) != enc("t", *other)
    assert enc("t", *one) != enc("u", *one)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=9))
def test_lists_come_back(items):
    assert dec_list("l", enc_list("l", tuple(items)), int, 9) == items


def test_a_list_that_is_too_long_is_refused():
    with pytest.raises(EncodingError, match="at most 2"):
        dec_list("l", enc_list("l", (1, 2, 3)), int, 2)


@pytest.mark.parametrize("field", [-1, 2**64, True, "\ud800"])
def test_fields_that_have_no_bytes_are_refused(field):
    with pytest.raises(EncodingError):
        enc("t", field)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        enc("t", 1) + b"\0",
        enc("t", 1)[:-1],
        enc("u", 1),
        enc("t", 1, 1),
        enc("t"),
        enc("t", b"1234567"),
        bytearray(enc("t", 1)),
        "text",
        None,
    ],
    ids=repr,
)
def test_other_bytes_are_refused(data):
    with pytest.raises(EncodingError):
        dec("t", data, (int,))


def test_strings_must_be_in_normal_form():
    data = enc("t", b"e\xcc\x81")  # e and a combining accent
    with pytest.raises(EncodingError, match="NFC"):
        dec("t", data, (str,))
    with pytest.raises(EncodingError, match="UTF-8"):
        dec("t", enc("t", b"\xff"), (str,))


@pytest.mark.parametrize("name", SAMPLES)
def test_records_come_back(name):
    data, decode = SAMPLES[name]
    record = decode(data)
    if name == "masked":
        assert (record.sid, record.vid, record.number, record.index) == (b"s" * 32, b"v" * 32, 7, 1)
        assert record.ctx == b"c" * 32
        assert record.words.tolist() == [0, 1, 2, 3, 4]
    else:
        assert record.encode() == data


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_decoders_survive_any_bytes(name, data):
    """Random bytes, and valid messages with a stretch replaced, cut out, or cut off."""
    valid, decode = SAMPLES[name]
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(valid)))
        stop = data.draw(st.integers(start, min(len(valid), start + 9)))
        message = valid[:start] + data.draw(st.binary(max_size=9)) + valid[stop:]
    else:
        message = data.draw(st.binary(max_size=300))
    try:
        record = decode(message)
    except EncodingError:
        return
    except PlanError:
        assert name == "roster"  # well-formed bytes of a roster that is out of order or names somebody twice
        return
    if name == "masked":
        again, words = Masked.frame(
            record.sid,
            record.vid,
            record.number,
            record.index,
            record.ctx,
            len(record.words),
            8 * record.words.itemsize,
        )
        words[:] = record.words
        assert again.tobytes() == message
    else:
        assert record.encode() == message


@pytest.mark.parametrize("bits", [32, 64])
def test_a_masked_frame_is_enc_of_its_fields(bits):
    frame, words = Masked.frame(b"s" * 32, b"v" * 32, 9, 2, b"c" * 32, 11, bits)
    words[:] = np.arange(11)
    put_check(frame, 77)
    payload = np.arange(11).astype(f"<u{bits // 8}").tobytes()
    assert frame.tobytes() == enc("masked-a", b"s" * 32, b"v" * 32, 9, 2, b"c" * 32, 11, bits, payload, 77)
    assert Masked.decode(frame).check == 77
    plain, _ = Masked.frame(b"s" * 32, b"v" * 32, 9, 2, b"c" * 32, 11, bits, checked=False)
    assert plain[-4:].tolist() == [0] * 4
    assert Masked.decode(plain).check is None
    too_large = frame.copy()
    put_check(too_large, (1 << 61) - 1)
    with pytest.raises(EncodingError, match="expected a check below"):
        Masked.decode(too_large)
    assert np.shares_memory(frame, words)
    assert np.shares_memory(frame, Masked.decode(frame).words)
    assert len(frame) - words.nbytes == 192 + 12
    assert len(LABEL + "masked-a") == 24


def test_a_masked_record_shows_no_words():
    frame, words = Masked.frame(bytes(32), bytes(32), 1, 1, bytes(32), 3, 64)
    words[:] = 123456789
    assert "123456789" not in repr(Masked.decode(frame))


@pytest.mark.parametrize(
    "message",
    [
        np.zeros(400, np.int8),
        np.zeros((20, 20), np.uint8),
        np.zeros(800, np.uint8)[::2],
        [1, 2],
        "x",
        bytearray(400),
        b"",
    ],
    ids=lambda m: f"{type(m).__name__}-{getattr(m, 'dtype', '')}-{getattr(m, 'shape', '')}",
)
def test_only_bytes_and_flat_arrays_of_bytes_are_messages(message):
    with pytest.raises(EncodingError):
        Masked.decode(message)


def test_a_message_of_4_gib_is_refused_before_memory_is_taken():
    with pytest.raises(EncodingError, match="4 GiB"):
        Masked.frame(bytes(32), bytes(32), 0, 0, bytes(32), 2**30, 32)
