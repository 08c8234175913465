# SPDX-License-Identifier: Apache-2.0
"""Shamir's secret sharing of 32-byte secrets over GF(p), p = 2^256 + 297.

Knows polynomials and the generator of the operating system. Does not know whose secret it splits, who holds a share,
nor how a share travels. The arithmetic is not constant-time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, combinations, islice
from math import prod

from fedray.errors import EncodingError, ProtocolError

PRIME = (1 << 256) + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
SUBSETS_TRIED = 4096
"""How many subsets `recover` tries after unique decoding failed, before it gives the secret up."""

_LAZY = 8
"""Horner steps between two reductions: an abscissa has few bits, so the accumulator grows slowly."""


def split(secret: bytes, threshold: int, abscissas: Sequence[int]) -> list[bytes]:
    """Splits a secret so that any `threshold` shares determine it and fewer say nothing.

    Args:
        secret: 32 bytes.
        threshold: How many shares it takes, at least 1 and at most `len(abscissas)`.
        abscissas: Distinct places in [1, p), one per share.

    Returns:
        One share of 33 bytes per abscissa, in order.

    Raises:
        ProtocolError: An argument is out of range.
    """
    if len(secret) != SECRET_BYTES:
        raise ProtocolError(f"a secret to split has {SECRET_BYTES} bytes, found {len(secret)}")
    if not 1 <= threshold <= len(abscissas):
        raise ProtocolError(f"share threshold is {threshold}, expected 1 to {len(abscissas)}, the number of shares")
    if len(set(abscissas)) != len(abscissas) or not all(0 < x < PRIME for x in abscissas):
        raise ProtocolError("abscissas of shares must be distinct and between 1 and p - 1")
    # Uniform below p, which no number of random bytes is: the excess would say something about the secret.
    highest_first = [secrets.randbelow(PRIME) for _ in range(threshold - 1)] + [int.from_bytes(secret, "big")]
    return [_evaluate(highest_first, x).to_bytes(SHARE_BYTES, "big") for x in abscissas]


def check_share(share: bytes) -> int:
    """Returns a share as an element of GF(p).

    Raises:
        EncodingError: It is not 33 bytes or not below p.
    """
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise EncodingError(f"a share has {SHARE_BYTES} bytes and is below p, found {len(share)} bytes")
    return value


def reconstruct(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """Returns the secret that the first `threshold` shares (by abscissa) determine.

    Args:
        shares: Abscissa -> share.
        threshold: How many shares were asked for when the secret was split.

    Returns:
        The 32-byte secret, or None where the shares determine a number that is none.

    Raises:
        ProtocolError: There are too few shares.
        EncodingError: A share is malformed.
    """
    if len(shares) < threshold:
        raise ProtocolError(f"{threshold} shares are needed, found {len(shares)}")
    places = tuple(sorted(shares)[:threshold])
    return _combine(places, [check_share(shares[x]) for x in places])


def recover(
    shares: Mapping[int, bytes], threshold: int, valid: Callable[[bytes], bool]
) -> tuple[bytes, frozenset[int]]:
    """Returns the secret that passes a check, and the abscissas of shares found not to belong to it.

    Tries the first `threshold` shares, then unique decoding (up to half of the surplus may be wrong), then a bounded
    number of subsets. Where the first try is right, the surplus shares are not looked at.

    Args:
        shares: Abscissa -> share.
        threshold: How many shares were asked for when the secret was split.
        valid: Whether a 32-byte secret is the one that was committed to.

    Raises:
        ProtocolError: No subset that was tried gives a valid secret, or there are too few shares.
        EncodingError: A share is malformed.
    """
    first = reconstruct(shares, threshold)
    if first is not None and valid(first):
        return first, frozenset()
    values = {x: check_share(shares[x]) for x in sorted(shares)}
    for subset in _candidates(values, threshold):
        secret = _combine(subset, [values[x] for x in subset])
        if secret is not None and valid(secret):
            return secret, _strangers(values, subset)
    raise ProtocolError(f"{len(shares)} shares with threshold {threshold} do not give the secret that was committed to")


def _evaluate(highest_first: Sequence[int], x: int) -> int:
    total = 0
    for step, coefficient in enumerate(highest_first):
        total = total * x + coefficient
        if step % _LAZY == 0:
            total %= PRIME
    return total % PRIME


def _combine(places: tuple[int, ...], values: Sequence[int]) -> bytes | None:
    total = sum(w * y for w, y in zip(_weights_at(places, 0), values, strict=True)) % PRIME
    return total.to_bytes(SECRET_BYTES, "big") if total < 1 << (8 * SECRET_BYTES) else None


@lru_cache(maxsize=512)
def _weights_at(places: tuple[int, ...], target: int) -> tuple[int, ...]:
    """Lagrange weights: the value at `target`, which is none of `places`, is the weighted sum of the values there."""
    full = prod(target - z for z in places)
    below = [prod(x - z for z in places if z != x) * (target - x) % PRIME for x in places]
    return tuple(full * inverse % PRIME for inverse in _inverses(below))


def _inverses(values: Sequence[int]) -> list[int]:
    """Inverses of all values at the price of one, and three products each."""
    running = list(accumulate(values, lambda a, b: a * b % PRIME))
    inverse, found = pow(running[-1], -1, PRIME), [0] * len(values)
    for place in range(len(values) - 1, 0, -1):
        found[place] = inverse * running[place - 1] % PRIME
        inverse = inverse * values[place] % PRIME
    found[0] = inverse
    return found


def _strangers(values: Mapping[int, int], subset: tuple[int, ...]) -> frozenset[int]:
    """Places whose value is not on the polynomial through `subset`."""
    known = [values[x] for x in subset]

    def expected(place: int) -> int:
        return sum(w * y for w, y in zip(_weights_at(subset, place), known, strict=True)) % PRIME

    return frozenset(x for x in values if x not in subset and expected(x) != values[x])


def _candidates(values: Mapping[int, int], threshold: int) -> Iterator[tuple[int, ...]]:
    # Unique decoding first: it finds any minority of wrong shares; subsets are for the rest, and bounded.
    agreeing = _decode(values, threshold)
    if agreeing is not None:
        yield agreeing
    yield from islice(combinations(sorted(values), threshold), 1, SUBSETS_TRIED)


def _decode(values: Mapping[int, int], threshold: int) -> tuple[int, ...] | None:
    """Gao's decoder: `threshold` places on the one polynomial that misses at most half of the surplus places."""
    vanishing, through = _interpolate(values)
    left, right, cofactor_left, cofactor = vanishing, through, [0], [1]
    while 2 * (len(right) - 1) >= len(values) + threshold and any(right):
        quotient, remainder = _divide(left, right)
        left, right = right, remainder
        cofactor_left, cofactor = cofactor, _subtract(cofactor_left, _multiply(quotient, cofactor))
    if not any(cofactor):
        return None
    polynomial, rest = _divide(right, cofactor)
    if any(rest) or len(polynomial) > threshold:
        return None
    on_it = [x for x in sorted(values) if _evaluate(polynomial[::-1], x) == values[x]]
    return tuple(on_it[:threshold]) if len(on_it) >= threshold else None


def _interpolate(values: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Polynomials (lowest coefficient first) that vanish at all places, and that pass through all values (Newton)."""
    vanishing, through = [1], [0]
    for x, y in values.items():
        scale = (y - _evaluate(through[::-1], x)) * pow(_evaluate(vanishing[::-1], x), -1, PRIME)
        through = _subtract(through, [-scale * c % PRIME for c in vanishing])
        vanishing = _multiply(vanishing, [-x % PRIME, 1])
    return vanishing, through


def _trim(polynomial: list[int]) -> list[int]:
    while len(polynomial) > 1 and polynomial[-1] == 0:
        polynomial.pop()
    return polynomial


def _subtract(a: Sequence[int], b: Sequence[int]) -> list[int]:
    size = max(len(a), len(b))
    padded = zip(_padded(a, size), _padded(b, size), strict=True)
    return _trim([(x - y) % PRIME for x, y in padded])


def _padded(a: Sequence[int], size: int) -> Iterable[int]:
    return [*a, *[0] * (size - len(a))]


def _multiply(a: Sequence[int], b: Sequence[int]) -> list[int]:
    product = [0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            product[i + j] += x * y
    return _trim([c % PRIME for c in product])


def _divide(a: Sequence[int], b: Sequence[int]) -> tuple[list[int], list[int]]:
    remainder, divisor = list(a), _trim(list(b))
    inverse = pow(divisor[-1], -1, PRIME)
    quotient = [0] * max(len(remainder) - len(divisor) + 1, 1)
    for shift in range(len(remainder) - len(divisor), -1, -1):
        factor = remainder[shift + len(divisor) - 1] * inverse % PRIME
        quotient[shift] = factor
        for i, c in enumerate(divisor):
            remainder[shift + i] = (remainder[shift + i] - factor * c) % PRIME
    return _trim(quotient), _trim(remainder)
