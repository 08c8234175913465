# SPDX-License-Identifier: Apache-2.0
"""What a message between two machines costs, against a bare TLS exchange of the same bytes in the same run.

    python tests/benchmarks/lines.py [--parameters 36000 1000000 10000000] [--slow 36000 10000000] [--json FILE]

Two network namespaces (root), joined by a bridge; then again over a link of 20 Mbit/s and 50 ms each way, where the
measure is what cannot be avoided: the bytes over the rate, and a round trip. A message has 8 bytes a parameter, as a
masked vector does, and so does the answer. Both ways take turns; the ratio is that of their fastest and their median.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedray.party.keys.line_keys import LineKeys, certificate
from fedray.protocol.crypto.keys import public_bytes
from fedray.runtime.far.calling import Address, tune
from fedray.runtime.far.lines import FarLines
from fedray.runtime.line import reply

MARK = bytes(16)  # of this benchmark only: elsewhere each process draws its own
DELAY_MS, MBIT = 50.0, 20.0
PORT, BARE = 20010, 20011


def identity(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number] * 32))


def keys(own: str) -> LineKeys:
    numbers = {"alice": 1, "charlie": 2, "bob": 3}
    found = LineKeys(own, identity(numbers[own]), {name: public_bytes(identity(n)) for name, n in numbers.items()})
    found.learn({name: certificate(identity(n)) for name, n in numbers.items()})
    return found


def received(line: socket.socket, size: int) -> None:
    missing = np.empty(size, np.uint8).data
    while missing:
        count = line.recv_into(missing)
        if not count:
            raise EOFError
        missing = missing[count:]


def serve(host: str, parameters: int) -> None:
    """Answers alice, by lines and barely, until it is ended."""
    own, vector = keys("charlie"), np.zeros(8 * parameters, np.uint8)

    def answer(message: Any, caller: str) -> Any:
        return reply("charlie", lambda *_: vector, message, caller)

    lines = FarLines("charlie", own, answer, f"{host} {PORT}-{PORT}")
    lines.connect({"alice": Address("", 0, MARK, certificate(identity(1)))})
    lines.address = Address(host, PORT, MARK, own.certificate)
    listener = socket.create_server((host, BARE))
    print("ready", flush=True)
    line = own.context(answering=True).wrap_socket(listener.accept()[0], server_side=True)
    tune(line)
    while True:
        received(line, len(vector))
        line.sendall(vector)


def call(host: str, parameters: int, repeats: int) -> None:
    """Exchanges vectors with charlie both ways in turn, and prints the seconds of each."""
    own, vector = keys("alice"), np.zeros(8 * parameters, np.uint8)
    lines = FarLines("alice", own, lambda *_: [], "127.0.0.1 0-0")
    lines.connect({"charlie": Address(host, PORT, MARK, certificate(identity(2)))})
    bare = own.context(answering=False).wrap_socket(socket.create_connection((host, BARE)))
    tune(bare)
    seconds: dict[str, list[float]] = {"line": [], "bare": []}
    for turn in range(repeats + 1):
        begun = time.perf_counter()
        bare.sendall(vector)
        received(bare, len(vector))
        between = time.perf_counter()
        sent = lines.send("charlie", "1:round", "key", "alice", vector)
        if sent is None:
            raise RuntimeError("a vector is plain data")
        FarLines.take(sent, None)
        if turn:  # the first dials, and fills caches
            seconds["bare"].append(between - begun)
            seconds["line"].append(time.perf_counter() - between)
    print(json.dumps(seconds))


def measure(parameters: int, repeats: int, *, slow: bool) -> dict[str, Any]:
    """Returns what both ways took between two machines."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from cluster import hosts  # of the tests

    with hosts.hosts("charlie", "alice") as machines:
        if slow:
            machines["alice"].slow(DELAY_MS, MBIT)
        where = machines["charlie"].ip
        script = [sys.executable, str(Path(__file__).resolve())]
        server = machines["charlie"].begin([*script, "--serve", where, str(parameters)])
        if server.stdout is None or server.stdout.readline() != "ready\n":
            raise RuntimeError(server.communicate()[1])
        code, out, err = machines["alice"].run([*script, "--call", where, str(parameters), str(repeats)], 3000)
        if code:
            raise RuntimeError(err)
        seconds = json.loads(out)
    line, bare = seconds["line"], seconds["bare"]
    found = {"parameters": parameters, "line_ms": 1e3 * min(line), "bare_ms": 1e3 * min(bare)}
    found |= {"ratio": min(line) / min(bare), "ratio_of_medians": statistics.median(line) / statistics.median(bare)}
    if slow:
        # Two vectors, one after the other, and a round trip.
        found["floor_ms"] = 1e3 * (2 * 8 * parameters * 8 / (MBIT * 1e6) + 2 * DELAY_MS / 1e3)
        found["ratio_to_floor"] = found["line_ms"] / found["floor_ms"]
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, nargs="*", default=[36_000, 1_000_000, 10_000_000])
    parser.add_argument("--slow", type=int, nargs="*", default=[36_000, 10_000_000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2)
    parser.add_argument("--call", nargs=3)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
    elif options.call:
        call(options.call[0], int(options.call[1]), int(options.call[2]))
    else:
        found = [measure(n, 200 if n < 100_000 else 10, slow=False) for n in options.parameters]
        found += [measure(n, 5 if n < 100_000 else 1, slow=True) for n in options.slow]
        for row in found:
            print(", ".join(f"{name} {value:,.3f}".rstrip("0").rstrip(".") for name, value in row.items()))
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    main()
