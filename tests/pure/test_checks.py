# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of checks, exactly; the chance of a forgery, by trying all; and variants in which it is larger."""

import itertools
import os
import random

import numpy as np
import pytest
from pure.checks_reference import P, check_of, signed
from pure.masking_reference import stream_of

from fedray.errors import EncodingError
from fedray.protocol.checks.inner_product import COLUMNS
from fedray.protocol.checks.secret import GroupSecret
from fedray.protocol.crypto.field import PRIME, element, elements
from fedray.protocol.crypto.keystream import CHUNK_BYTES, Keystream, Pad
from fedray.protocol.pipeline import run

KEY = bytes(range(32))
EDGES = (0, 1, -1, 2**31, -(2**31), 2**32 - 1, -(2**32), 2**60 - 1, -(2**60), 2**63 - 1, -(2**63))


def round_of(size, bits=64, places=4):
    return GroupSecret(KEY, bytes(32), places).checks("masking", b"over", 3, bytes(32), size, bits)


def found(words, checks, members=(1,)):
    run(words, (product := checks.product()).take)
    return checks.check(product, members)


def test_the_prime_is_prime():
    """Lucas and Lehmer: 2^61 - 1 divides the last number of a series."""
    term = 4
    for _ in range(59):
        term = (term * term - 2) % PRIME
    assert (PRIME, term) == (2**61 - 1, 0)


def test_elements_are_integers_mod_p():
    numbers = [0, 1, P - 1, P, P + 1, 2 * P, 2**64 - 1, 2**64, P << 64, (P << 64) + P, 2**125, 2**128 - 1]
    data = b"".join(number.to_bytes(16, "little") for number in numbers) + os.urandom(16 * 500)
    expected = [int.from_bytes(data[at : at + 16], "little") % P for at in range(0, len(data), 16)]
    assert elements(data).tolist() == expected == [element(data[at : at + 16]) for at in range(0, len(data), 16)]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("size", [1, COLUMNS - 1, COLUMNS, COLUMNS + 1, CHUNK_BYTES // 8 + 5])
def test_the_inner_product_is_exact(size, bits):
    draw = random.Random(size)
    words = np.frombuffer(draw.randbytes(size * bits // 8), f"<u{bits // 8}").copy()
    edges = [edge for edge in EDGES if abs(edge) < 2 ** (bits - 1)][:size]
    words[: len(edges)] = np.array(edges, f"<i{bits // 8}").view(words.dtype)
    checks = round_of(size, bits)
    assert found(words, checks, [0, 3]) == check_of(stream_of, checks._key, 4, signed(words.tolist(), bits), [0, 3])


def test_the_largest_sums_of_limbs_are_still_exact():
    """More rows than are folded at once, and every word as large as a half can be: 2^32 - 1 below, -2^31 above."""
    size = COLUMNS * (COLUMNS + 40) + 3
    words = np.full(size, (1 << 63) + (1 << 32) - 1, "<u8")
    checks = round_of(size)
    columns, rows = coefficients(checks._key, size)
    whole = sum(columns) * sum(rows[:-1]) + sum(columns[:3]) * rows[-1]
    offset = element(stream_of(checks._key, 16))
    assert found(words, checks, [0]) == (signed([int(words[0])], 64)[0] * whole + offset) % P


def coefficients(key, size):
    stream = Keystream(key)
    stream.read(4 * 16)
    return [elements(stream.read(16 * count)).tolist() for count in (COLUMNS, -(-size // COLUMNS))]


def test_stretches_come_in_order_and_none_twice():
    product = round_of(2000).product()
    product.take(np.zeros(1024, "<u8"), 0)
    for start in (0, 1000, 1536):
        with pytest.raises(EncodingError, match=f"found one at word {start}"):
            product.take(np.zeros(10, "<u8"), start)
    product.take(np.zeros(10, "<u8"), 1024)
    with pytest.raises(EncodingError, match="found one at word 1034"):
        product.take(np.zeros(10, "<u8"), 1034)  # in the middle of a row
    with pytest.raises(EncodingError, match="found one at word 0"):
        round_of(5).product().take(np.zeros(CHUNK_BYTES // 8 + 1, "<u8"), 0)


def test_a_pad_covers_one_check_with_what_follows_its_words():
    keys = [os.urandom(32) for _ in range(3)]
    pad, words = Pad(keys[:2], keys[2:]), np.zeros(5, "<u4")
    pad.apply(words, 0)
    parts = [element(stream_of(key, 36)[20:]) for key in keys]
    assert pad.cover(7) == (7 + parts[0] + parts[1] - parts[2]) % P
    with pytest.raises(EncodingError, match="a pad covers one check"):
        pad.cover(7)
    with pytest.raises(EncodingError, match="one stretch of a vector after another"):
        pad.apply(words, 5)


def test_all_that_a_round_is_about_is_in_its_key():
    group = GroupSecret(KEY, bytes(32), 4)
    place = ("masking", b"over", 3, bytes(32), 10, 64)
    others = ("sharing", b"", 4, b"c" * 32, 11, 32)
    made = {group.checks(*place)._key}
    for at, other in enumerate(others):
        made.add(group.checks(*place[:at], other, *place[at + 1 :])._key)
    made |= {
        GroupSecret(bytes(32), bytes(32), 4).checks(*place)._key,
        GroupSecret(KEY, KEY, 4).checks(*place)._key,
        group.confirm,
    }
    assert len(made) == 10


# The chance of a forgery, with a prime that is small enough to try everything.


def grids(prime, offsets):
    """Returns every secret of two rows and two columns: int[m, 5], a_0, a_1, b_0, b_1 and the offset of the set."""
    last = range(prime) if offsets else (0,)
    return np.array(list(itertools.product(*[range(prime)] * 4, last)))


def product_of(secrets, words, modulus):
    a, b = secrets[:, :2], secrets[:, 2:4]
    return np.einsum("mr,mc,rc->m", a, b, np.asarray(words).reshape(2, 2)) % modulus


def best_forgery(prime, secrets, honest, range_):
    """Returns the largest share of the secrets that fit what a server saw and accept something else, exactly.

    The server saw the sum and its check; so the secrets that fit them are left, each as likely as any other.
    """
    seen = (product_of(secrets, honest, prime) + secrets[:, 4]) % prime
    best = (0, 1)
    for check in range(prime):
        fitting = secrets[seen == check]
        for words in itertools.product(range_, repeat=4):
            if words != tuple(honest):
                said = np.bincount((product_of(fitting, words, prime) + fitting[:, 4]) % prime, minlength=prime)
                best = max(best, (int(said.max()), len(fitting)), key=lambda of: of[0] / of[1])
    return best


@pytest.mark.parametrize("honest", [(0, 0, 0, 0), (1, -1, 0, 1)])
def test_no_forgery_has_a_better_chance_than_two_in_p(honest):
    """p = 5 and words from -1 to 1, whose differences are no multiples of p: at best (2 p - 1) / p^2, exactly."""
    prime = 5
    good, of = best_forgery(prime, grids(prime, offsets=True), honest, (-1, 0, 1))
    assert good * prime**2 == of * (2 * prime - 1)
    # With the real prime that is below 2^-59.
    assert (2 * P - 1) * 2**59 < P**2


def test_words_that_may_differ_by_the_prime_are_forged_at_will():
    good, of = best_forgery(5, grids(5, offsets=True), (0, 0, 0, 0), (0, 5))
    assert good == of


def test_without_an_offset_the_check_tells_of_the_coefficients():
    """The sum is not 0, and its check is: then twice the sum has the same one, and one in two secrets too many fits."""
    secrets = grids(5, offsets=False)
    seen = product_of(secrets, (1, 0, 0, 0), 5)
    for check in range(5):
        fitting = secrets[seen == check]
        assert np.all(product_of(fitting, (2, 0, 0, 0), 5) == 2 * check % 5)


def test_another_set_is_guessed_with_chance_one_in_p():
    """Offsets of two sets are independent: whatever the check of one was, that of the other may be anything."""
    prime, secrets = 5, grids(5, offsets=True)
    for words in ((0, 0, 0, 0), (1, 1, 0, -1)):
        product = product_of(secrets, words, prime)
        for check in range(prime):
            fitting = product[(product + secrets[:, 4]) % prime == check]
            said = sum(np.bincount((fitting + other) % prime, minlength=prime) for other in range(prime))
            assert set(said) == {len(fitting)}


@pytest.mark.parametrize(
    ("modulus", "lie"),
    [(2**64, 2**63), (2**31 - 1, 2**31 - 1), (2**31 - 1, 77 * (2**31 - 1)), (2**60, 2**59)],
)
def test_other_moduli_let_some_differences_pass(modulus, lie):
    """One word is changed: half the coefficients, or all of them, do not see it. The real prime's always do."""
    draw = random.Random(0)
    pairs = [(draw.randrange(modulus), draw.randrange(modulus)) for _ in range(400)]
    unseen = sum(a * b * lie % modulus == 0 for a, b in pairs)
    assert unseen > 0.6 * len(pairs)
    assert not any(a * b * lie % P == 0 for a, b in ((x % (P - 1) + 1, y % (P - 1) + 1) for x, y in pairs))


# What the opened check tells of single inputs: nothing, unless it is summed in pieces.


def test_the_opened_check_follows_from_the_opened_sum_and_pieces_of_it_would_not():
    draw, size = np.random.default_rng(0), 40
    checks = round_of(size)
    total = draw.integers(-(2**40), 2**40, size)
    opened, pieces = set(), set()
    for _ in range(20):
        first = draw.integers(-(2**40), 2**40, size)
        inputs = (first, total - first)
        own = [found(x.astype("<i8").view("<u8"), checks, [i]) for i, x in enumerate(inputs)]
        opened.add(sum(own) % PRIME)
        # Two ring words a check, each summed for itself: how often the lower ones ran over shows.
        pieces.add((sum(check >> 32 for check in own), sum(check & 0xFFFFFFFF for check in own)))
    assert opened == {found(total.astype("<i8").view("<u8"), checks, [0, 1])}
    assert len(pieces) > 1
