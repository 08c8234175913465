# SPDX-License-Identifier: Apache-2.0
"""Throughput of masking against a hand-written loop with the same cipher, in one process, CPU time of one core.

    python tests/benchmarks/masking.py [--parameters 10000000] [--repeats 3]

The floor of the party's side clips, scales, rounds and casts one chunk, adds n - 1 keystreams to it while it is in
cache, and goes on to the next chunk: no frame, no header, no check for NaN, no memory allocated. The floor of the
server's side adds n vectors to memory that is reused and takes n keystreams away, as recovery does. What is measured
against it does all that the protocol asks for, memory included. Opening a sum of masking, which takes nothing away and
makes float64 of it, is measured against adding and converting. Numbers are millions of parameters a CPU-second.

The checks of a round, a party's own and that of the sum (SECAGG section 16), are measured against the masks with n - 1
others, and nothing else: their floor is what they may cost together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedray.protocol.checks.secret import RoundChecks
from fedray.protocol.config import Config, Encoding
from fedray.protocol.crypto import keystream
from fedray.protocol.crypto.keys import Roster, generate_identity, public_bytes
from fedray.protocol.fixed_point import decode
from fedray.protocol.handshake import introduce
from fedray.protocol.manifest import USUAL_BOUND, Manifest, Tensor
from fedray.protocol.masking.collector import ViewCollector
from fedray.protocol.masking.frame import Masked
from fedray.protocol.masking.shield import MaskingShield
from fedray.protocol.member import Member
from fedray.protocol.memory import ModelMemory
from fedray.protocol.pipeline import run
from fedray.protocol.policy import Policy
from fedray.protocol.scheme import Contribution, RoundContext

SLACK = 16


def compare(floor: Callable[[], object], own: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Returns the least CPU time of both, seconds; they take turns, so that a busy machine slows both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for work, samples in zip((floor, own), times, strict=True):
            start = time.process_time()
            work()
            samples.append(time.process_time() - start)
    return min(times[0]), min(times[1])


def party_floor(values: NDArray[np.float32], keys: list[bytes], encoding: Encoding, chunk: int) -> None:
    """Masks the values chunk by chunk into memory that is reused."""
    dtype, signed = f"<u{encoding.ring // 8}", f"<i{encoding.ring // 8}"
    step = chunk // (encoding.ring // 8)
    words, real = np.empty(step, dtype), np.empty(step)
    buffer, zeros = np.empty(chunk + SLACK, np.uint8), bytes(chunk)
    stream = buffer[:chunk].view(dtype)
    streams = [keystream.CIPHERS[keystream.CIPHER](key) for key in keys]
    top = encoding.top(len(keys) + 1)
    limit, scale = USUAL_BOUND, 2.0**top / USUAL_BOUND
    for start in range(0, len(values) - step + 1, step):
        np.clip(values[start : start + step], -limit, limit, out=real, dtype=np.float64)
        np.multiply(real, scale, out=real)
        np.rint(real, out=real)
        np.copyto(words.view(signed), real, casting="unsafe")
        for place, cipher in enumerate(streams):
            cipher.update_into(zeros, buffer)
            (np.add if place % 2 else np.subtract)(words, stream, out=words)


def open_floor(vectors: list[NDArray], total: NDArray, out: NDArray[np.float64]) -> None:
    """Adds the vectors and makes numbers of the sum."""
    server_floor(vectors, total, [])
    np.multiply(total.view(f"<i{total.itemsize}"), 2.0**-16, out=out)


def server_floor(vectors: list[NDArray], total: NDArray, keys: list[bytes]) -> None:
    """Adds the vectors and takes the keystreams away."""
    chunk = keystream.CHUNK_BYTES
    step = chunk // total.itemsize
    total[:] = vectors[0]
    for vector in vectors[1:]:
        np.add(total, vector, out=total)
    buffer, zeros = np.empty(chunk + SLACK, np.uint8), bytes(chunk)
    stream = buffer[:chunk].view(total.dtype)
    streams = [keystream.CIPHERS[keystream.CIPHER](key) for key in keys]
    for start in range(0, len(total) - step + 1, step):
        part = total[start : start + step]
        for cipher in streams:
            cipher.update_into(zeros, buffer)
            np.subtract(part, stream, out=part)


def mask_only(words: NDArray, keys: list[bytes]) -> None:
    """Lays the masks with so many others over words that are there."""
    run(words, keystream.Pad(keys[::2], keys[1::2]).apply)


def both_checks(words: NDArray, key: bytes) -> None:
    """Takes both inner products of a round, with a party's own words and with those of a sum."""
    checks = RoundChecks(key, 8, len(words))
    for _ in range(2):
        run(words, (product := checks.product()).take)
        checks.check(product, range(8))


class Session:
    """A started session of n parties, in process."""

    def __init__(self, parties: int, encoding: Encoding) -> None:
        identities = {f"party{i:02}": generate_identity() for i in range(parties)}
        self.roster = Roster.of({name: public_bytes(key) for name, key in identities.items()})
        self.config = Config.propose("masking", self.roster, ["server"], encoding)
        members = [Member(name, identities[name], self.roster, Policy(), ModelMemory()) for name in self.roster.names]
        self.shields = introduce([MaskingShield.joining(self.config, member) for member in members])
        self._round = -1

    def contexts(self, manifest: Manifest) -> RoundContext:
        """Returns the context of the next round."""
        self._round += 1
        return RoundContext(self._round, hashlib.sha256(str(self._round).encode()).digest(), b"", manifest)


def measure(parties: int, ring: int, parameters: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Returns (floor, fedray) in seconds by what was measured."""
    encoding = Encoding(ring)
    session = Session(parties, encoding)
    manifest = Manifest((Tensor("weights", (parameters,), "float32"),), weighted=False)
    values = np.random.default_rng(0).normal(size=parameters).astype(np.float32)
    contribution = Contribution(values, 1, np.empty(0))
    keys = [os.urandom(32) for _ in range(parties)]
    shield = session.shields[parties // 2]
    found = {
        "party: encode and mask": compare(
            lambda: party_floor(values, keys[1:], encoding, keystream.CHUNK_BYTES),
            lambda: shield.protect(session.contexts(manifest), contribution),
            repeats,
        )
    }

    words = np.frombuffer(os.urandom(parameters * ring // 8), f"<u{ring // 8}").copy()
    found["party: both checks"] = compare(
        lambda: mask_only(words, keys[1:]), lambda: both_checks(words, keys[0]), repeats
    )
    session = Session(parties, encoding)
    context = session.contexts(manifest)
    messages = {
        n: s.protect(context, contribution)["server"]
        for n, s in zip(session.roster.names, session.shields, strict=True)
    }
    vectors = [Masked.decode(message).words for message in messages.values()]
    total, out = np.zeros_like(vectors[0]), np.zeros(len(vectors[0]))

    def collect() -> ViewCollector:
        collector = ViewCollector(session.config, session.shields[0].rounds.view, 0, manifest)
        for name, message in messages.items():
            collector.add(name, message)
        return collector

    found["server: add and unmask"] = compare(
        lambda: server_floor(vectors, total, keys),
        lambda: run(collect()._total, keystream.Pad([], keys).apply),
        repeats,
    )
    found["server: add and open"] = compare(  # and what a party reads of it
        lambda: open_floor(vectors, total, out),
        lambda: decode(encoding, parties, manifest, collect().open()).values,
        repeats,
    )
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines = []
    print(f"AES-256 as {keystream.CIPHER}, {options.parameters:,} parameters; million parameters per CPU-second")
    print(f"{'n':>3} {'ring':>4}  {'side':<22} {'floor':>7} {'fedray':>7} {'ratio':>6}")
    for ring in (32, 64):
        for parties in (4, 8, 16):
            for side, times in measure(parties, ring, options.parameters, options.repeats).items():
                floor, own = (options.parameters / 1e6 / seconds for seconds in times)
                lines.append({"n": parties, "ring": ring, "side": side, "floor": floor, "fedray": own})
                print(f"{parties:>3} {ring:>4}  {side:<22} {floor:>7.0f} {own:>7.0f} {own / floor:>6.0%}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"masking": lines}, indent=1))


if __name__ == "__main__":
    main()
