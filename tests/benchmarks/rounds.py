# SPDX-License-Identifier: Apache-2.0
"""What a round costs with training removed, against a bare Ray exchange of the same bytes in the same run.

    python tests/benchmarks/rounds.py [--parameters 35000 1000000 10000000 100000000] [--repeats 3] [--json FILE]

Two parties and a server; the training step is replaced by one multiplication. The bare exchange is three plain Ray
actors that send as many bytes and wait for each other in the same way; it computes nothing. Beside it stands what
cannot be avoided: the hand-written loops of masking.py for a party's masks and the server's additions. The last column
is the most memory that a party needed beyond what it holds between two fits, in model vectors (float32). From 64 MB on
it holds the memory of its last message for the next one, two such vectors with words of 64 bits: add them.
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


def without_training() -> None:
    """Takes the training step out of this party: the round gets back what it started from, a little smaller."""
    from fedray.backends.keras.model import KerasBackend

    KerasBackend.train = lambda _self, start, *_: (start * np.float32(0.999), 1, {})  # type: ignore[method-assign]


def at_rest() -> int:
    """Forgets this process's peak memory; returns what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def peak() -> int:
    """Returns the most memory that this process has held since `at_rest`, in bytes."""
    return _memory("VmHWM")


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


class Contender:
    """One way to sum, its model made once. What a `fit` costs once is taken out: a long one less a short one."""

    def __init__(self, aggregator: Any, parties: list[sf.PYU], server: sf.PYU, words: int, rounds: int) -> None:
        self._model = FLModel(server, parties, lookup_model(words), aggregator, random_seed=1)
        self._parties, self._words, self._rounds = parties, words, rounds
        few = max(2, rounds // 20)
        self._short, self._long = self._arrays(few), self._arrays(few + rounds)
        self._fit(self._short)

    def round(self) -> dict[str, float]:
        """Returns wall and CPU milliseconds of one round, the CPU that of the first party."""
        first, (wall, cpu) = self._fit(self._short), self._fit(self._long)
        return {"": (wall - first[0]) / self._rounds, " cpu": (cpu - first[1]) / self._rounds}

    def vectors_beyond_rest(self) -> float:
        """Returns how many model vectors a party held at its peak beyond what it holds between two fits."""
        rest = sf.reveal(self._parties[0](at_rest)())
        self._fit(self._short)
        return (sf.reveal(self._parties[0](peak)()) - rest) / (4 * self._words)

    def _arrays(self, rounds: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(1)
        x = {party: rng.integers(0, self._words // 8, (rounds, 1)).astype(np.int32) for party in self._parties}
        y = {party: rng.normal(size=(rounds, 8)).astype(np.float32) for party in self._parties}
        return load(x), load(y)

    def _fit(self, arrays: tuple[Any, Any]) -> tuple[float, float]:
        before, begun = sf.reveal(self._parties[0](cpu_seconds)()), time.perf_counter()
        self._model.fit(*arrays, batch_size=1, verbose=0)
        wall = time.perf_counter() - begun
        return 1e3 * wall, 1e3 * (sf.reveal(self._parties[0](cpu_seconds)()) - before)


def measure(words: int, repeats: int, parties: list[sf.PYU], server: sf.PYU) -> dict[str, Any]:
    """Returns milliseconds a round of each contender, medians of interleaved repeats, and a party's peak memory."""
    words = words // 8 * 8
    rounds = max(3, min(500, 30_000_000 // words))
    exchange = Exchange(words)
    exchange.rounds(2)
    contenders = {
        "plain": Contender(PlainAggregator(server, parties), parties, server, words, rounds),
        "secure": Contender(SecureAggregator(server, parties), parties, server, words, rounds),
    }
    floors = cryptography(PEERS, 64, words, repeats)
    unavoidable = floors["party: encode and mask"][0] + floors["server: add and open"][0]
    found: dict[str, list[float]] = {"exchange": [], "cryptography": [1e3 * unavoidable]}
    found |= {f"{name}{suffix}": [] for name in contenders for suffix in ("", " cpu")}
    for _ in range(repeats):
        found["exchange"].append(1e3 * exchange.rounds(rounds))
        for name, contender in contenders.items():
            for suffix, figure in contender.round().items():
                found[f"{name}{suffix}"].append(figure)
    exchange.stop()
    medians = {name: statistics.median(times) for name, times in found.items()}
    return {"words": words, "rounds": rounds, "peak": contenders["secure"].vectors_beyond_rest(), **medians}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, nargs="+", default=[35_000, 1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sf.init(["alice", "bob", "server"], address="local", seed=1)
    parties, server = [sf.PYU("alice"), sf.PYU("bob")], sf.PYU("server")
    sf.wait([party(without_training)() for party in parties])
    columns = ["parameters", "exchange ms", "cryptography ms", "plain ms", "secure ms"]
    columns += ["secure / exchange", "secure / both", "CPU ms", "peak, vectors"]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    results = []
    for words in arguments.parameters:
        r = measure(words, arguments.repeats, parties, server)
        results.append(r)
        both = r["exchange"] + r["cryptography"]
        figures = [r["exchange"], r["cryptography"], r["plain"], r["secure"]]
        figures += [r["secure"] / r["exchange"], r["secure"] / both, r["secure cpu"], r["peak"]]
        print(f"| {r['words']:,} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |", flush=True)
    sf.shutdown()
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rounds": results}, indent=1))


if __name__ == "__main__":
    main()
