# SPDX-License-Identifier: Apache-2.0
"""What a round costs with training removed, against a bare Ray exchange of the same bytes in the same run.

    python tests/benchmarks/rounds.py [--parameters 35000 1000000 10000000 100000000] [--repeats 3] [--json FILE]

Two parties and a server. The model looks up one row, so its step costs next to nothing. The bare exchange is three
plain Ray actors that send as many bytes and wait for each other in the same way; it computes nothing. Beside it stands
what cannot be avoided: the hand-written loops of masking.py for a party's masks and the server's additions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from epochs import cpu_seconds, machine
from masking import measure as cryptography
from tutorial import lookup_model

import fedray as sf
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.security.aggregation import PlainAggregator, SecureAggregator

PEERS = 2


class Server:
    """Waits for every peer's vector and answers with one."""

    def __init__(self, words: int) -> None:
        self._changed = threading.Condition()
        self._answer = np.zeros(words, np.float32)
        self._arrived = 0

    def swap(self, vector: Any) -> Any:
        """Returns when as many vectors have come as there are peers."""
        with self._changed:
            self._arrived += 1
            goal = -(-self._arrived // PEERS) * PEERS
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._arrived >= goal)
        return self._answer


class Peer:
    """Swaps vectors with the server."""

    def __init__(self, words: int) -> None:
        self._vector = np.zeros(words * 8, np.uint8)

    def run(self, server: Any, rounds: int) -> None:
        """Makes so many exchanges, one after the other."""
        for _ in range(rounds):
            ray.get(server.swap.remote(self._vector))


class Exchange:
    """The bare exchange, its actors started once."""

    def __init__(self, words: int) -> None:
        plain = {"num_cpus": 0, "max_concurrency": PEERS + 2}
        self._server = ray.remote(Server).options(**plain).remote(words)
        self._peers = [ray.remote(Peer).options(num_cpus=0).remote(words) for _ in range(PEERS)]

    def rounds(self, count: int) -> float:
        """Returns seconds a round."""
        begun = time.perf_counter()
        ray.get([peer.run.remote(self._server, count) for peer in self._peers])
        return (time.perf_counter() - begun) / count

    def stop(self) -> None:
        """Ends the actors."""
        for actor in (self._server, *self._peers):
            ray.kill(actor)


def training(aggregator: Any, parties: list[sf.PYU], server: sf.PYU, words: int, rounds: int) -> Any:
    """Returns a function that trains so many rounds and returns wall seconds and a party's CPU seconds a round."""
    model = FLModel(server, parties, lookup_model(words), aggregator, random_seed=1)
    rng = np.random.default_rng(1)
    x = load({party: rng.integers(0, words // 8, (rounds, 1)).astype(np.int32) for party in parties})
    y = load({party: rng.normal(size=(rounds, 8)).astype(np.float32) for party in parties})
    model.fit(x, y, batch_size=1, verbose=0)

    def run() -> tuple[float, float]:
        before, begun = sf.reveal(parties[0](cpu_seconds)()), time.perf_counter()
        model.fit(x, y, batch_size=1, verbose=0)
        wall = time.perf_counter() - begun
        return wall / rounds, (sf.reveal(parties[0](cpu_seconds)()) - before) / rounds

    return run


def measure(words: int, repeats: int, parties: list[sf.PYU], server: sf.PYU) -> dict[str, Any]:
    """Returns milliseconds a round of each contender, medians of interleaved repeats."""
    words = words // 8 * 8
    rounds = max(3, min(300, 30_000_000 // words))
    exchange = Exchange(words)
    exchange.rounds(2)
    runs = {
        "plain": training(PlainAggregator(server, parties), parties, server, words, rounds),
        "secure": training(SecureAggregator(server, parties), parties, server, words, rounds),
    }
    floors = cryptography(PEERS, 64, words, repeats)
    unavoidable = floors["party: encode and mask"][0] + floors["server: add and open"][0]
    found: dict[str, list[float]] = {"exchange": [], "cryptography": [unavoidable]}
    found |= {f"{name}{suffix}": [] for name in runs for suffix in ("", " cpu")}
    for _ in range(repeats):
        found["exchange"].append(exchange.rounds(rounds))
        for name, run in runs.items():
            wall, cpu = run()
            found[name].append(wall)
            found[f"{name} cpu"].append(cpu)
    exchange.stop()
    return {"words": words, "rounds": rounds, **{name: 1e3 * statistics.median(times) for name, times in found.items()}}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, nargs="+", default=[35_000, 1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sf.init(["alice", "bob", "server"], address="local", seed=1)
    parties, server = [sf.PYU("alice"), sf.PYU("bob")], sf.PYU("server")
    columns = ["parameters", "exchange ms", "cryptography ms", "plain ms", "secure ms"]
    columns += ["secure / exchange", "secure / both", "CPU ms"]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    results = []
    for words in arguments.parameters:
        r = measure(words, arguments.repeats, parties, server)
        results.append(r)
        both = r["exchange"] + r["cryptography"]
        figures = [r["exchange"], r["cryptography"], r["plain"], r["secure"]]
        figures += [r["secure"] / r["exchange"], r["secure"] / both, r["secure cpu"]]
        print(f"| {r['words']:,} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |", flush=True)
    sf.shutdown()
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rounds": results}, indent=1))


if __name__ == "__main__":
    main()
