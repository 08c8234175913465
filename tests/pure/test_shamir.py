# SPDX-License-Identifier: Apache-2.0
"""Sharing and reconstruction of 32-byte secrets, with wrong shares among the right ones."""

from __future__ import annotations

import secrets
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.errors import EncodingError, ProtocolError
from fedray.protocol.crypto.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, check_share, reconstruct, recover, split

EDGES = [bytes(32), b"\xff" * 32, bytes(31) + b"\x01", b"\x80" + bytes(31)]


def shared(secret: bytes, threshold: int, count: int) -> dict[int, bytes]:
    places = range(1, count + 1)
    return dict(zip(places, split(secret, threshold, places), strict=True))


def is_prime(number: int) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(20):
        x = pow(secrets.randbelow(number - 3) + 2, odd, number)
        if x not in (1, number - 1) and not any((x := x * x % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


def test_the_field_is_prime_and_holds_every_secret() -> None:
    assert is_prime(PRIME)
    assert PRIME > 1 << (8 * SECRET_BYTES)
    assert PRIME < 1 << (8 * SHARE_BYTES)


@pytest.mark.parametrize("secret", EDGES)
def test_every_subset_of_threshold_size_gives_the_secret(secret: bytes) -> None:
    shares = shared(secret, 3, 5)
    for subset in combinations(shares, 3):
        assert reconstruct({x: shares[x] for x in subset}, 3) == secret


@given(secret=st.binary(min_size=32, max_size=32), count=st.integers(1, 40), data=st.data())
def test_round_trip_with_any_threshold_and_any_holders(secret: bytes, count: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, count))
    places = data.draw(st.lists(st.integers(1, 1 << 14), min_size=count, max_size=count, unique=True))
    shares = dict(zip(places, split(secret, threshold, places), strict=True))
    assert all(len(share) == SHARE_BYTES for share in shares.values())
    assert reconstruct(shares, threshold) == secret


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    secret, other = secrets.token_bytes(32), secrets.token_bytes(32)
    held = {x: check_share(share) for x, share in shared(secret, 3, 5).items() if x < 3}
    # Whatever the secret is, one polynomial of degree 2 explains the two shares: the third place is free.
    for guess in (secret, other):
        guessed = int.from_bytes(guess, "big")
        third = (3 * held[2] - 3 * held[1] + guessed) % PRIME
        forged = {1: held[1], 2: held[2], 3: third}
        assert reconstruct({x: y.to_bytes(SHARE_BYTES, "big") for x, y in forged.items()}, 3) == guess


def test_two_sharings_of_one_secret_have_nothing_in_common() -> None:
    secret = bytes(32)
    assert not set(shared(secret, 2, 20).values()) & set(shared(secret, 2, 20).values())


@given(count=st.integers(2, 24), data=st.data())
def test_wrong_shares_up_to_half_the_surplus_are_found_and_named(count: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, count))
    wrong = data.draw(st.sets(st.integers(1, count), max_size=(count - threshold) // 2))
    secret = secrets.token_bytes(32)
    shares = shared(secret, threshold, count)
    for place in wrong:
        # At random: errors of 1 at places 1 and 4 of 5, for example, cancel at 0 and change nothing.
        shares[place] = secrets.token_bytes(32).rjust(SHARE_BYTES, b"\0")
    found, named = recover(shares, threshold, lambda candidate: candidate == secret)
    assert found == secret
    assert named <= wrong
    assert named == wrong or not wrong & set(sorted(shares)[:threshold])


def test_more_wrong_shares_than_decoding_corrects_are_found_by_subsets() -> None:
    secret = secrets.token_bytes(32)
    shares = shared(secret, 3, 6)
    for place in (1, 2, 4):
        shares[place] = secrets.token_bytes(32).rjust(SHARE_BYTES, b"\0")
    assert recover(shares, 3, lambda candidate: candidate == secret) == (secret, {1, 2, 4})


def test_too_many_wrong_shares_end_in_an_error() -> None:
    secret = secrets.token_bytes(32)
    shares = shared(secret, 3, 5) | {x: bytes(SHARE_BYTES) for x in (1, 2, 3)}
    with pytest.raises(ProtocolError, match="5 shares with threshold 3"):
        recover(shares, 3, lambda candidate: candidate == secret)


def test_a_number_that_is_no_secret_is_not_returned() -> None:
    too_large = (PRIME - 1).to_bytes(SHARE_BYTES, "big")
    assert reconstruct({1: too_large, 2: too_large}, 1) is None


@pytest.mark.parametrize(
    ("secret", "threshold", "places"),
    [(bytes(31), 1, [1]), (bytes(32), 0, [1]), (bytes(32), 3, [1, 2]), (bytes(32), 1, [0, 1]), (bytes(32), 1, [2, 2])],
)
def test_split_refuses_what_cannot_work(secret: bytes, threshold: int, places: list[int]) -> None:
    with pytest.raises(ProtocolError):
        split(secret, threshold, places)


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(SHARE_BYTES, "big"), b"\xff" * 33])
def test_malformed_shares_are_refused(share: bytes) -> None:
    with pytest.raises(EncodingError):
        reconstruct({1: share}, 1)
