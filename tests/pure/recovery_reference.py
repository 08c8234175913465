# SPDX-License-Identifier: Apache-2.0
"""Scheme recovery once more, slowly, from the specification alone: shares no code with fedray and imports none of it.

    PYTHONPATH=tests python tests/pure/recovery_reference.py > tests/pure/vectors/recovery.json

Prints every intermediate value of one round of three parties, of which the last one is called dropped after its masked
input left. X25519 after RFC 7748, AES after FIPS 197, HKDF after RFC 5869.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import struct
from typing import Any

from pure.checks_reference import P as CHECK_PRIME
from pure.checks_reference import check_of, pad_of, signed

PRIME = 2**256 + 297
FIELD = 2**255 - 19


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def enc(purpose: str, *fields: int | bytes) -> bytes:
    out = [("fedray/secagg/1/" + purpose).encode()]
    for value in fields:
        out.append(struct.pack(">Q", value) if isinstance(value, int) else value)
    data = struct.pack(">I", len(out))
    for part in out:
        data += struct.pack(">I", len(part)) + part
    return data


def kdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def x25519(scalar: bytes, point: bytes) -> bytes:
    k = int.from_bytes(scalar, "little")
    k = k & ~7 & ~(1 << 255) | (1 << 254)
    x1 = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3, swapped = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if bit != swapped:
            x2, x3, z2, z3, swapped = x3, x2, z3, z2, bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % FIELD, b * b % FIELD, d * a % FIELD, c * b % FIELD
        e = aa - bb
        x3, z3 = pow(da + cb, 2, FIELD), x1 * pow(da - cb, 2, FIELD) % FIELD
        x2, z2 = aa * bb % FIELD, e * (aa + 121665 * e) % FIELD
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, FIELD - 2, FIELD) % FIELD).to_bytes(32, "little")


def times(a: int, b: int) -> int:
    """Product in GF(2^8) with the polynomial of AES."""
    product = 0
    while b:
        product ^= a * (b & 1)
        a, b = a << 1 ^ (0x11B if a & 0x80 else 0), b >> 1
    return product


def sbox(x: int) -> int:
    inverse = next((y for y in range(256) if times(x, y) == 1), 0)
    out = 0x63
    for turn in range(5):
        out ^= (inverse << turn | inverse >> (8 - turn)) & 0xFF
    return out


SBOX = [sbox(x) for x in range(256)]


def aes256(key: bytes, block: bytes) -> bytes:
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    round_constant = 1
    for i in range(8, 60):
        word = words[-1][:]
        if i % 8 == 0:
            word = [SBOX[x] for x in word[1:] + word[:1]]
            word[0] ^= round_constant
            round_constant = times(round_constant, 2)
        elif i % 8 == 4:
            word = [SBOX[x] for x in word]
        words.append([x ^ y for x, y in zip(word, words[i - 8], strict=True)])
    schedule = [[x for word in words[4 * r : 4 * r + 4] for x in word] for r in range(15)]
    state = [x ^ y for x, y in zip(block, schedule[0], strict=True)]
    for r in range(1, 15):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if r < 14:
            mixed = []
            for c in range(0, 16, 4):
                column = state[c : c + 4]
                for i in range(4):
                    a, b, d, e = (column[(i + j) % 4] for j in range(4))
                    mixed.append(times(a, 2) ^ times(b, 3) ^ d ^ e)
            state = mixed
        state = [x ^ y for x, y in zip(state, schedule[r], strict=True)]
    return bytes(state)


@functools.cache
def stream_bytes(key: bytes, count: int) -> bytes:
    data, counter = b"", 2
    while len(data) < count:
        data += aes256(key, bytes(12) + struct.pack(">I", counter))
        counter += 1
    return data[:count]


def stream(key: bytes, count: int, bits: int) -> list[int]:
    size = bits // 8
    data = stream_bytes(key, count * size)
    return [int.from_bytes(data[i * size : (i + 1) * size], "little") for i in range(count)]


def shares_of(secret: bytes, coefficients: list[int], places: list[int]) -> list[bytes]:
    """`coefficients` from the highest power down to the first; the secret is the constant term."""
    highest_first = [*coefficients, int.from_bytes(secret, "big")]
    powers = range(len(highest_first) - 1, -1, -1)
    return [
        (sum(c * x**power for c, power in zip(highest_first, powers, strict=True)) % PRIME).to_bytes(33, "big")
        for x in places
    ]


def shuffled(key: bytes, size: int) -> list[int]:
    words, order = iter(stream(key, 4 * size, 64)), list(range(size))
    for last in range(size - 1, 0, -1):
        bound = last + 1
        word = next(w for w in words if w < 2**64 - 2**64 % bound)
        order[last], order[word % bound] = order[word % bound], order[last]
    return order


def fixed(name: str) -> bytes:
    return sha(name.encode())


def vectors(bits: int) -> dict[str, Any]:
    """Every value of one round of three parties with four words each."""
    n, number, batch, size, modulus = 3, 5, 2, 4, 2**bits
    sid, ctx, gseed = fixed("sid"), fixed("ctx"), fixed("gseed")
    private, seed = [fixed(f"s{i}") for i in range(n)], [fixed(f"b{i}") for i in range(n)]
    inputs = [[(17 * i + j - 20) % modulus for j in range(size - 1)] + [1] for i in range(n)]
    public = [x25519(s, (9).to_bytes(32, "little")) for s in private]
    committed = [sha(enc("selfcommit", sid, number, i, b)) for i, b in enumerate(seed)]
    entries = [struct.pack(">Q", number) + s + h for s, h in zip(public, committed, strict=True)]
    statements = [enc("keys", sid, batch, i, entry) for i, entry in enumerate(entries)]
    digest = sha(enc("batch", *statements))
    tail = (ctx, size, bits)
    pair = {
        f"{i}-{j}": kdf(x25519(private[i], public[j]), digest, enc("pair", sid, number, i, j, *tail))
        for i in range(n)
        for j in range(i + 1, n)
    }
    own = [kdf(b, digest, enc("self", sid, number, i, *tail)) for i, b in enumerate(seed)]
    group = fixed("g")
    check_key = kdf(group, sid, enc("checks", b"recovery", digest, number, *tail))
    masked, checks, covered = [], [], []
    for i in range(n):
        words = [(x + p) % modulus for x, p in zip(inputs[i], stream(own[i], size, bits), strict=True)]
        checks.append(check_of(stream_bytes, check_key, n, signed(inputs[i], bits), [i]))
        check = checks[i] + pad_of(stream_bytes, own[i], size, bits)
        for j in range(n):
            if j != i:
                pad = stream(pair[f"{min(i, j)}-{max(i, j)}"], size, bits)
                words = [(w + (p if j > i else -p)) % modulus for w, p in zip(words, pad, strict=True)]
                key = pair[f"{min(i, j)}-{max(i, j)}"]
                check += (1 if j > i else -1) * pad_of(stream_bytes, key, size, bits)
        masked.append(words)
        covered.append(check % CHECK_PRIME)
    hashes = [
        sha(b"".join(w.to_bytes(bits // 8, "little") for w in words) + struct.pack(">Q", check))
        for words, check in zip(masked, covered, strict=True)
    ]
    survivors = b"".join(struct.pack(">I", i) for i in (0, 1))
    listed = sha(enc("hashes", hashes[0] + hashes[1]))
    total = [(a + b) % modulus for a, b in zip(masked[0], masked[1], strict=True)]
    opened = covered[0] + covered[1]
    for i in (0, 1):  # their own pads, and the pads with the dropped party, whose index is higher
        for key in (own[i], pair[f"{i}-2"]):
            opened -= pad_of(stream_bytes, key, size, bits)
            total = [(t - p) % modulus for t, p in zip(total, stream(key, size, bits), strict=True)]
    coefficients = [int.from_bytes(fixed(f"c{k}"), "big") for k in range(2)]
    return {
        "bits": bits,
        "number": number,
        "batch": batch,
        "inputs": inputs,
        **{name: value.hex() for name, value in {"sid": sid, "ctx": ctx, "gseed": gseed, "digest": digest}.items()},
        "private": [x.hex() for x in private],
        "seed": [x.hex() for x in seed],
        "public": [x.hex() for x in public],
        "commitment": [x.hex() for x in committed],
        "pair_keys": {pair_of: key.hex() for pair_of, key in pair.items()},
        "self_keys": [x.hex() for x in own],
        "group": group.hex(),
        "check_key": check_key.hex(),
        "checks": checks,
        "covered": covered,
        "masked": masked,
        "masked_statements": [enc("masked", sid, number, i, ctx, size, bits, h).hex() for i, h in enumerate(hashes)],
        "survive_statement": enc("survive", sid, number, ctx, survivors, listed).hex(),
        "ack_statement": enc("ack", sid, batch, digest).hex(),
        "coefficients": [hex(c) for c in coefficients],
        "shares_of_s0": [x.hex() for x in shares_of(private[0], coefficients, [1, 2, 3])],
        "ring_of_ten": shuffled(kdf(gseed, sid, enc("perm", number)), 10),
        "sum": total,
        "check_sum": opened % CHECK_PRIME,
    }


if __name__ == "__main__":
    print(json.dumps([vectors(32), vectors(64)], indent=1))
