# SPDX-License-Identifier: Apache-2.0
"""The words of a contribution a second time, slowly and from the specification alone; shares no code with the package.

Whole numbers are Python's, exact ones fractions. Canonical bytes are here as well: hashes of a manifest need them.
"""

import hashlib
import math
import struct
from fractions import Fraction


def sha(data):
    return hashlib.sha256(data).digest()


def u32(number):
    return number.to_bytes(4, "big")


def u64(number):
    return number.to_bytes(8, "big")


def enc(purpose, *fields):
    """Section 2. Fields are bytes, text or numbers."""
    out = u32(1 + len(fields))
    for item in ("fedray/secagg/1/" + purpose, *fields):
        raw = u64(item) if isinstance(item, int) else item.encode() if isinstance(item, str) else item
        out += u32(len(raw)) + raw
    return out


def doublings(n):
    """The least k for which 2^k is at least n."""
    return next(k for k in range(64) if 2**k >= n)


def top_of(ring, n):
    """Section 4: the largest word of one of n parties is 2^top."""
    return ring - 5 - doublings(n)


def fine_of(ring, n):
    """Section 4: words that reach 2^fine are precise."""
    return (23 if ring == 64 else 11) + doublings(n)


def scaled(value, share, reach, top):
    """Section 4, a real value in steps of its tensor, not yet rounded."""
    return value * (share * 2.0 ** (top - reach))


def real_word(value, share, reach, top):
    """Scaled, cut off, nearest even."""
    return round(max(-(2.0**top), min(2.0**top, scaled(value, share, reach, top))))


def is_exact(t):
    return t["dtype"].startswith(("int", "uint"))


def encoding_bytes(e):
    return enc("encoding", e["ring"], e["rounding"], e["weight_bound"])


def manifest_hash(m):
    bounds = [0 if is_exact(t) else struct.pack(">d", 2.0 ** t["reach"]) for t in m["tensors"]]
    tensors = [
        enc("tensor", t["name"], enc("shape", *t["shape"]), t["dtype"], bound)
        for t, bound in zip(m["tensors"], bounds, strict=True)
    ]
    totals = [enc("total", t["name"], t["size"], int(t["whole"])) for t in m["metrics"]]
    lists = (enc("tensors", *tensors), enc("metrics", *totals))
    return sha(enc("manifest", *lists, int(m["weighted"]), int(m["counted"])))


def limb_sizes(n):
    """Section 4, totals: bits of a limb, and how many there are."""
    bits = min(16, 19 - math.ceil(math.log2(n)))
    return bits, math.ceil(320 / bits)


def limbs_of(value, n, carries):
    """Section 4, totals: a real number as limbs, the lowest first, with one carry out of each but the last."""
    bits, count = limb_sizes(n)
    units = abs(Fraction(value)) * 2**160 // 1
    sign = -1 if value < 0 else 1
    out = [sign * (units // 2 ** (bits * k) % 2**bits) for k in range(count)]
    for k, carry in enumerate(carries):
        out[k] -= carry * 2**bits
        out[k + 1] += carry
    return out


def is_whole(m):
    return [t["whole"] for t in m["metrics"] for _ in range(t["size"])]


def word_count(m, n):
    values = sum(math.prod(t["shape"]) for t in m["tensors"]) + 2 * len(m["tensors"]) * m["counted"]
    return values + 2 + sum(1 if whole else limb_sizes(n)[1] for whole in is_whole(m))


def words_of(e, m, n, given):
    """The words of one contribution, as signed numbers."""
    top, fine = top_of(e["ring"], n), fine_of(e["ring"], n)
    share = given["weight"] / e["weight_bound"] if m["weighted"] else float(given["weight"])
    left, values, saturated, coarse = list(given["values"]), [], [], []
    for t in m["tensors"]:
        count = math.prod(t["shape"])
        own, left = left[:count], left[count:]
        if is_exact(t):
            values += [int(v) * (given["weight"] > 0) for v in own]
        else:
            real = [float.fromhex(v) for v in own]
            values += [real_word(v, share, t["reach"], top) for v in real]
            largest = max([abs(scaled(v, share, t["reach"], top)) for v in real], default=0.0)
            saturated.append(int(largest > 2.0**top))
            coarse.append(int(0 < largest < 2.0**fine))
    counts = [*saturated, *coarse] if m["counted"] else []
    numbers = list(zip(map(float.fromhex, given["metrics"]), is_whole(m), strict=True))
    wholes = [int(number) for number, whole in numbers if whole]
    reals = [number for number, whole in numbers if not whole]
    limbs = [limbs_of(real, n, carries) for real, carries in zip(reals, given["carries"], strict=True)]
    return [*values, *counts, given["weight"], *wholes, *(limb for row in limbs for limb in row), 1]


def decoded(e, m, n, total, modulus):
    """The opened sum: values, counts, weight and metrics."""
    signed = [(t + modulus // 2) % modulus - modulus // 2 for t in total]
    size = sum(math.prod(t["shape"]) for t in m["tensors"])
    counts = 2 * len(m["tensors"]) * m["counted"]
    weight = signed[size + counts]
    share = weight / e["weight_bound"] if m["weighted"] else 1.0
    left, values = signed[:size], []
    for t in m["tensors"]:
        count = math.prod(t["shape"])
        own, left = left[:count], left[count:]
        step = None if is_exact(t) else share * 2.0 ** (top_of(e["ring"], n) - t["reach"])
        values += [str(v) if step is None else (float(v) / step).hex() for v in own]
    tail, metrics = signed[size + counts + 1 : -1], []
    wholes, limbs = tail[: sum(is_whole(m))], tail[sum(is_whole(m)) :]
    for whole in is_whole(m):
        if whole:
            metrics.append(float(wholes.pop(0)).hex())
        else:
            bits, count = limb_sizes(n)
            number, limbs = sum(limb << (bits * k) for k, limb in enumerate(limbs[:count])), limbs[count:]
            metrics.append(float(Fraction(number, 2**160)).hex())
    return {"values": values, "counts": signed[size : size + counts], "weight": weight, "metrics": metrics}
