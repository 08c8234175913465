# SPDX-License-Identifier: Apache-2.0
"""Scheme sharing once more, slowly, from the specification alone: shares no code with fedray and imports none of it.

    PYTHONPATH=tests python tests/pure/sharing_reference.py > tests/pure/vectors/sharing.json

Prints every share of one round, as it leaves and as it is added. ChaCha20 and Poly1305 are written out after RFC 8439;
encoding, hashes and keystream are those of the reference of recovery.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from pure.checks_reference import P as CHECK_PRIME
from pure.checks_reference import check_of, pad_of
from pure.recovery_reference import enc, kdf, sha, stream, stream_bytes

CASES = {"two of three compute": (64, (0, 2)), "all three compute": (32, (2, 0, 1))}
"""Name -> (bits of a word, the compute parties P_0, P_1, ... by their places in a roster of three)."""


def rotated(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & 0xFFFFFFFF


def quarter(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[x] = (state[x] + state[y]) & 0xFFFFFFFF
        state[z] = rotated(state[z] ^ state[x], by)


def chacha_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    first = [
        *struct.unpack("<4I", b"expand 32-byte k"),
        *struct.unpack("<8I", key),
        counter,
        *struct.unpack("<3I", nonce),
    ]
    state = list(first)
    for _ in range(10):
        for i in range(4):
            quarter(state, i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, first, strict=True)))


def poly1305(key: bytes, message: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def sealed(key: bytes, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    pads = b"".join(chacha_block(key, 1 + k, nonce) for k in range(-(-len(plain) // 64)))
    hidden = bytes(a ^ b for a, b in zip(plain, pads, strict=False))
    filled = b"".join(part + bytes(-len(part) % 16) for part in (associated, hidden))
    lengths = struct.pack("<QQ", len(associated), len(hidden))
    return hidden + poly1305(chacha_block(key, 0, nonce)[:32], filled + lengths)


def fixed(*name: object) -> bytes:
    return sha(b"fedray part C " + repr(name).encode())


def words_in(values: list[int], bits: int) -> bytes:
    return b"".join((value % 2**bits).to_bytes(bits // 8, "little") for value in values)


def vector(bits: int, nodes: tuple[int, ...]) -> dict[str, Any]:
    """One round of three owners; the last owner's input is not in the agreed set."""
    sid, ctx, number, size = fixed("sid"), fixed("ctx"), 5, 7
    inputs = [[(i + 1) * 10**k * (-1) ** k for k in range(size)] for i in range(3)]
    channels = {f"{i}-{m}": fixed("channel", i, m) for i in range(3) for m in range(len(nodes))}
    seeds, messages, totals = dict[str, str](), dict[str, str](), [[0] * size for _ in nodes]
    group, roster = fixed("g"), fixed("roster")
    check_key = kdf(group, sid, enc("checks", b"sharing", roster, number, ctx, size, bits))
    checks = [check_of(stream_bytes, check_key, 3, inputs[i], [i]) for i in range(3)]
    check_totals = [0] * len(nodes)
    for i in range(3):
        home = nodes.index(i) if i in nodes else i % len(nodes)
        rest, check = list(inputs[i]), checks[i]
        for m in range(len(nodes)):
            form = 0 if m == home else 1
            if form:
                seed = fixed("seed", i, m)
                seeds[f"{i}-{m}"] = seed.hex()
                rest = [a - b for a, b in zip(rest, stream(seed, size, bits), strict=True)]
                check -= pad_of(stream_bytes, seed, size, bits)
        check %= CHECK_PRIME
        for m in range(len(nodes)):
            form = 0 if m == home else 1
            share = bytes.fromhex(seeds[f"{i}-{m}"]) if form else words_in(rest, bits) + struct.pack(">Q", check)
            head = enc("share", sid, number, i, m, ctx, size, bits, form, 0, 0)
            body = sealed(channels[f"{i}-{m}"], b"rnds" + struct.pack(">Q", number), share, head)
            messages[f"{i}-{m}"] = (head + body).hex()
            added = stream(share, size, bits) if form else rest
            if i < 2:
                totals[m] = [(a + b) % 2**bits for a, b in zip(totals[m], added, strict=True)]
                check_totals[m] += pad_of(stream_bytes, share, size, bits) if form else check
    return {
        "bits": bits,
        "nodes": list(nodes),
        "number": number,
        "sid": sid.hex(),
        "ctx": ctx.hex(),
        "inputs": inputs,
        "channels": {of: key.hex() for of, key in channels.items()},
        "seeds": seeds,
        "messages": messages,
        "group": group.hex(),
        "roster": roster.hex(),
        "check_key": check_key.hex(),
        "checks": checks,
        "check_totals": [total % CHECK_PRIME for total in check_totals],
        "check_sum": check_of(
            stream_bytes, check_key, 3, [a + b for a, b in zip(inputs[0], inputs[1], strict=True)], [0, 1]
        ),
        "members": [0, 1],
        "statement": enc("survive", sid, number, ctx, enc("members", 0, 1)).hex(),
        "totals": totals,
        "sum": [(a + b) % 2**bits for a, b in zip(inputs[0], inputs[1], strict=True)],
    }


def vectors() -> dict[str, Any]:
    return {name: vector(*case) for name, case in CASES.items()}


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
