# SPDX-License-Identifier: Apache-2.0
"""Scheme masking a second time, slowly and from the specification alone; shares no code with the package.

Whole numbers are Python's, curves and key derivation are written out, AES is used block by block. `PYTHONPATH=tests
python tests/pure/masking_reference.py` writes the vectors that the tests hold both implementations to.
"""

import hmac
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from pure.checks_reference import P as CHECK_PRIME
from pure.checks_reference import check_of, pad_of, signed
from pure.encoding_reference import (
    decoded,
    enc,
    encoding_bytes,
    manifest_hash,
    real_word,
    sha,
    top_of,
    u32,
    word_count,
    words_of,
)

VECTORS = Path(__file__).parent / "vectors"
P = 2**255 - 19


def seed(*words):
    """Fixed 32 bytes for a secret of the vectors."""
    return sha(b"fedray vectors " + repr(words).encode())


def hkdf(secret, salt, info):
    key = hmac.new(salt, secret, "sha256").digest()
    return hmac.new(key, info + b"\x01", "sha256").digest()


def x25519(private, public):
    """RFC 7748, section 5: the Montgomery ladder."""
    k = int.from_bytes(private, "little")
    k = (k & ~7 & ~(1 << 255)) | (1 << 254)
    x1 = int.from_bytes(public, "little") % (1 << 255)
    x2, z2, x3, z3 = 1, 0, x1, 1
    for bit in reversed(range(255)):
        swap = (k >> bit) & 1
        if swap:
            x2, x3, z2, z3 = x3, x2, z3, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if swap:
            x2, x3, z2, z3 = x3, x2, z3, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public_of(private):
    return x25519(private, (9).to_bytes(32, "little"))


def signature_of(identity, statement):
    return Ed25519PrivateKey.from_private_bytes(identity).sign(statement)


def stream_of(key, count):
    """The first bytes of a key's stream."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update
    blocks = range(2, 2 + -(-count // 16))
    return b"".join(block(bytes(12) + u32(counter)) for counter in blocks)[:count]


def prg(key, count, bits):
    """The first words of a key's stream."""
    width = bits // 8
    stream = stream_of(key, count * width)
    return [int.from_bytes(stream[i * width : (i + 1) * width], "little") for i in range(count)]


def set_up(names, config):
    """Sections S1 to S4 with fixed secrets."""
    n = len(names)
    identity = {name: seed("identity", name) for name in names}
    keys = [Ed25519PrivateKey.from_private_bytes(identity[x]).public_key().public_bytes_raw() for x in names]
    roster = enc("roster-list", enc("roster-names", *names), enc("roster-keys", *keys))
    out = {"identities": [identity[x].hex() for x in names], "roster_hash": sha(enc("roster", roster)).hex()}
    body = enc(
        *("config", "masking", "x25519-ed25519-hkdf-sha256-aes256ctr-chacha20poly1305"),
        *(sha(enc("roster", roster)), n, enc("receivers", *config["receivers"]), encoding_bytes(config["encoding"])),
        *(config["colluders"], config["n_min"], config["t_sig"], config["t_sig"]),
        *("complete", n - 1, config["dropouts"], 64, 60_000, 300_000, b""),
    )
    config_hash = sha(enc("config-hash", body))
    out |= {"config": body.hex(), "config_hash": config_hash.hex()}
    private = [seed("x25519", name) for name in names]
    reveal = [seed("reveal", name) for name in names]
    statements, hellos = [], []
    for i, name in enumerate(names):
        fields = (config_hash, i, public_of(private[i]), sha(enc("commit", i, reveal[i])))
        statements.append(enc("hello", *fields))
        hellos.append(enc("signed-hello", *fields, signature_of(identity[name], statements[-1])))
    sid = sha(enc("sid", body, *statements))
    shared = [[x25519(private[i], public_of(private[j])) if i != j else b"" for j in range(n)] for i in range(n)]
    # The first party deals the secret of the checks.
    group, nonce = seed("group", *names), b"gsum" + bytes(8)
    dealt = b"".join(
        ChaCha20Poly1305(hkdf(shared[0][j], sid, enc("chan", 0, j))).encrypt(
            nonce, group, enc("check-secret", sid, 0, j)
        )
        for j in range(1, n)
    )
    confirms = []
    for i, name in enumerate(names):
        brings = dealt if i == 0 else b""
        signature = signature_of(identity[name], enc("confirm", sid, i, reveal[i], brings))
        confirms.append(enc("signed-confirm", sid, i, reveal[i], brings, signature))
    roots = {(i, j): hkdf(shared[i][j], sid, enc("pairroot", i, j)) for i in range(n) for j in range(i + 1, n)}
    out |= {
        "x25519": [k.hex() for k in private],
        "reveals": [r.hex() for r in reveal],
        "hellos": [h.hex() for h in hellos],
        "sid": sid.hex(),
        "confirms": [c.hex() for c in confirms],
        "gseed": sha(enc("graph", sid, *reveal)).hex(),
        "channels": {
            f"{i}>{j}": hkdf(shared[i][j], sid, enc("chan", i, j)).hex() for i in range(n) for j in range(n) if i != j
        },
        "pair_roots": {f"{i},{j}": root.hex() for (i, j), root in roots.items()},
        "group": group.hex(),
    }
    return out, sid, roots, group


def masked_round(sid, roots, group, encoding, manifest, n, r, previous):
    """One round: every intermediate value, and the opened sum."""
    number, members, bits = r["number"], r["members"], encoding["ring"]
    size = word_count(manifest, n)
    vid = sha(enc("view", sid, r["counter"], enc("view-indices", *members)))
    received = (r["purpose"], bytes.fromhex(r["model"]), sha(bytes.fromhex(r["settings"])), manifest_hash(manifest))
    repeats = 0 if r["repeats"] is None else 1 + r["repeats"]
    agreed = hkdf(group, sid, enc("check-confirm"))
    ctx = sha(enc("ctx", sid, agreed, number, previous, repeats, *received, encoding_bytes(encoding), b""))
    check_key = hkdf(group, sid, enc("checks", "masking", vid, number, ctx, size, bits))
    out = {"vid": vid.hex(), "ctx": ctx.hex(), "pair_keys": {}, "words": [], "messages": []}
    out |= {"check_key": check_key.hex(), "checks": []}
    keys = {}
    for i, j in roots:
        if i in members and j in members:
            root = roots[i, j]
            for step in range(number):
                root = hkdf(root, sid, enc("ratchet", step))
            keys[i, j] = hkdf(root, sid, enc("viewpair", vid, number, i, j, ctx, size, bits))
            out["pair_keys"][f"{i},{j}"] = keys[i, j].hex()
    total, check_sum = [0] * size, 0
    for i, given in zip(members, r["inputs"], strict=True):
        words = words_of(encoding, manifest, n, given)
        out["words"].append(words)
        masked, check = list(words), check_of(stream_of, check_key, n, words, [i])
        out["checks"].append(check)
        for (a, b), key in keys.items():
            if i in (a, b):
                sign = 1 if i == a else -1
                masked = [m + sign * p for m, p in zip(masked, prg(key, size, bits), strict=True)]
                check += sign * pad_of(stream_of, key, size, bits)
        masked = [m % 2**bits for m in masked]
        total = [(t + m) % 2**bits for t, m in zip(total, masked, strict=True)]
        payload = b"".join(m.to_bytes(bits // 8, "little") for m in masked)
        check %= CHECK_PRIME
        check_sum = (check_sum + check) % CHECK_PRIME
        out["messages"].append(enc("masked-a", sid, vid, number, i, ctx, size, bits, payload, check).hex())
    out["total"], out["check_sum"] = total, check_sum
    if check_sum != check_of(stream_of, check_key, n, signed(total, bits), members):
        raise ValueError("the checks do not add up to that of the sum")
    out["opened"] = decoded(encoding, manifest, n, total, 2**bits)
    return out, ctx


def masking_vector(case):
    """Every intermediate value of a session and its rounds."""
    out, sid, roots, group = set_up(case["names"], case["config"])
    out["manifest_hash"] = manifest_hash(case["manifest"]).hex()
    out["rounds"], previous, n = [], b"", len(case["names"])
    for r in case["rounds"]:
        manifest = case["manifest"]
        if r["reaches"] is not None:
            pairs = zip(manifest["tensors"], r["reaches"], strict=True)
            manifest = manifest | {"tensors": [t | {"reach": reach} for t, reach in pairs]}
        made, previous = masked_round(sid, roots, group, case["config"]["encoding"], manifest, n, r, previous)
        out["rounds"].append(made)
    return {"given": case, "expected": out}


def numbers(tag, count, scale):
    """Fixed reals in hexadecimal notation."""
    found = []
    for k in range(count):
        unit = int.from_bytes(seed(tag, k)[:8], "big") / 2**63 - 1
        found.append((unit * scale).hex())
    return found


def given_round(
    number,
    counter,
    members,
    size,
    tag,
    *,
    weights,
    metrics=None,
    integers=False,
    purpose="train",
    repeats=None,
    reaches=None,
):
    first = number if repeats is None else repeats
    values = [
        [str(int(float.fromhex(v))) for v in numbers((tag, first, i), size, 2.0**20)]
        if integers
        else numbers((tag, first, i), size, 9.0)
        for i in members
    ]

    def carries_of(i):
        """Fixed carries of 40 bits, 19 for each of two real numbers of three parties."""
        if not metrics:
            return []
        return [[int.from_bytes(seed("carry", tag, number, i, m, k)[:5], "big") for k in range(19)] for m in range(2)]

    inputs = [
        {"values": v, "weight": weights[i], "metrics": metrics[i] if metrics else [], "carries": carries_of(i)}
        for i, v in zip(members, values, strict=True)
    ]
    return {
        "number": number,
        "counter": counter,
        "members": members,
        "purpose": purpose,
        "repeats": repeats,
        "reaches": reaches,
        "model": seed("model", tag, first).hex(),
        "settings": seed("settings", tag).hex(),
        "inputs": inputs,
    }


def config_of(n, colluders, encoding):
    quorum = (n + colluders) // 2 + 1
    least = max(3, quorum, colluders + 2)
    return {
        "receivers": ["server"],
        "encoding": encoding,
        "colluders": colluders,
        "n_min": 3,
        "t_sig": quorum,
        "dropouts": max(0, n - least),
    }


def encoding_of(ring, weight_bound):
    return {"ring": ring, "rounding": "nearest", "weight_bound": weight_bound}


def tensor(name, shape, dtype="float32", reach=16):
    return {"name": name, "shape": shape, "dtype": dtype, "reach": reach}


def total(name, size=1, whole=False):
    return {"name": name, "size": size, "whole": whole}


def manifest_of(tensors, metrics=(), weighted=True, counted=False):
    return {"tensors": tensors, "metrics": list(metrics), "weighted": weighted, "counted": counted}


MEASURED = [
    [number.hex() for number in row]
    for row in ([1e-30, 37.0, -(2.0**159)], [1 / 3, 0.0, 5e-324], [-1.7e38, 2.0**40, 2.0**159 + 2.0**107])
]
"""A real number, a count and another real number of each party; the sum of the last ones is far below both."""

REPEATED = [[row[0], row[2]] for row in MEASURED]
"""The same without the count."""

CASES = {
    "masking_three_parties_64": {
        "names": ["alice", "bob", "zoë"],
        "config": config_of(3, 1, encoding_of(64, 100)),
        "manifest": manifest_of(
            [tensor("kernel", [2, 3]), tensor("bias", []), tensor("none", [0])],
            [total("loss"), total("count", whole=True), total("mae")],
        ),
        "rounds": [
            given_round(0, 0, [0, 1, 2], 7, "a", weights=[10, 0, 100], metrics=MEASURED),
            given_round(5, 0, [0, 1, 2], 7, "a", weights=[1, 2, 3], metrics=MEASURED[::-1], purpose="evaluate"),
        ],
    },
    "masking_smaller_view_32": {
        "names": ["a", "b", "c", "d"],
        "config": config_of(4, 1, encoding_of(32, 1)),
        "manifest": manifest_of([tensor("w", [5], reach=4)], weighted=False),
        "rounds": [
            given_round(0, 0, [0, 1, 2, 3], 5, "b", weights=[1] * 4),
            given_round(2, 3, [0, 2, 3], 5, "b", weights=[1] * 4),
        ],
    },
    # Cut off in one tensor, too coarse in another, and then the same inputs once more.
    "masking_repeat": {
        "names": ["a", "b", "c"],
        "config": config_of(3, 1, encoding_of(64, 100)),
        "manifest": manifest_of([tensor("w", [3]), tensor("b", [2])], [total("loss"), total("mae")], counted=True),
        "rounds": [
            given_round(0, 0, [0, 1, 2], 5, "d", weights=[10, 50, 100], metrics=REPEATED, reaches=[0, 60]),
            given_round(1, 0, [0, 1, 2], 5, "d", weights=[10, 50, 100], metrics=REPEATED, repeats=0, reaches=[20, 14]),
        ],
    },
    "masking_integers": {
        "names": ["a", "b", "c"],
        "config": config_of(3, 1, encoding_of(64, 1)),
        "manifest": manifest_of([tensor("n", [3], "int64"), tensor("k", [2], "uint8")], weighted=False),
        "rounds": [
            {
                **given_round(0, 0, [0, 1, 2], 5, "c", weights=[1] * 3, integers=True, purpose="sum"),
                "inputs": [
                    {
                        "values": [str(2**58), str(-(2**58)), "0", "255", str(i)],
                        "weight": 1,
                        "metrics": [],
                        "carries": [],
                    }
                    for i in range(3)
                ],
            }
        ],
    },
}


def keystream_vector():
    keys = [seed("prg", k) for k in range(3)] + [bytes(32)]
    return {
        key.hex(): {"32": prg(key, 12, 32), "64": prg(key, 6, 64), "sha256_64k": sha_of_stream(key, 1 << 16)}
        for key in keys
    }


def sha_of_stream(key, size):
    return sha(b"".join(w.to_bytes(8, "little") for w in prg(key, size // 8, 64))).hex()


def encoding_vector():
    """Single values of three parties: (ring, reach, value, word)."""
    values = [0.0, -0.0, 5e-324, 0.5, -0.5, 1.0, -1.0, 1 / 3, -1e-9, 7.999999, 8.0, -8.0, 8.5, 1e300, -1e300, 2.0**-17]
    values += [k * 2.0**-17 for k in range(-5, 6)] + [k * 2.0**-33 for k in range(-5, 6)]
    rows = []
    for ring, reach in ((64, 16), (64, 25), (64, -20), (32, 3), (32, 9)):
        for value in values:
            rows.append([ring, reach, value.hex(), real_word(value, 1.0, reach, top_of(ring, 3)) % 2**ring])
    return rows


def vectors():
    """All vectors by file name."""
    found = {name: masking_vector(case) for name, case in CASES.items()}
    return found | {"keystream": keystream_vector(), "encoding": encoding_vector()}


def main():
    """Writes the vectors."""
    for name, content in vectors().items():
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (VECTORS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
