# SPDX-License-Identifier: Apache-2.0
"""What a round of the product costs between machines, training removed, against a bare TLS exchange of as many bytes.

    python tests/benchmarks/between.py [--parameters 36000 1000000 10000000] [--slow 36000 1000000] [--json FILE]

Three machines out of network namespaces (root): alice and bob train, charlie is the server and has the head. First on a
cluster with token and TLS, then on one without (the parties' own lines have theirs either way), then with alice's link
at 20 Mbit/s and 50 ms each way. In the bare exchange both send the server what a round sends by the ledger, and are
sent as much as they get, over connections with the parties' keys. Medians of five fits or exchanges.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from lines import DELAY_MS, MBIT, keys, received

from fedray.runtime.far.calling import tune

ROOT = Path(__file__).parents[2]
PORT, REPEATS = 20011, 5

DRIVER = """
import json, statistics, sys, time
import numpy as np
import fedray as sf
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.security.aggregation import SecureAggregator

rounds, insecure, repeats = int(sys.argv[1]), sys.argv[2] == "insecure", int(sys.argv[3])
sf.init(["alice", "bob", "charlie"], address="auto", seed=7, insecure=insecure)
alice, bob, charlie = (sf.PYU(name) for name in ("alice", "bob", "charlie"))


def untrained():
    from fedray.backends.numpy.model import NumpyBackend

    NumpyBackend.train = lambda self, start, *_: (start * np.float32(0.999), 1, self.snapshot())


def rows(count, width):
    return np.ones((count, width), np.float32)


def labels(count):
    return np.arange(count) % 8


def builder(width):
    def build():
        from fedray.ml.nn.numpy import SoftmaxRegression

        return SoftmaxRegression(width, 8, learning_rate=0.05)

    return build


sf.wait([party(untrained)() for party in (alice, bob)])
for words in map(int, sys.argv[4:]):
    width, many = words // 8 - 1, max(2, min(rounds, 30_000_000 // words))
    arrays = [load({party: party(make)(*args) for party in (alice, bob)})
              for count in (1, 1 + many) for make, args in ((rows, (count, width)), (labels, (count,)))]
    model = FLModel(charlie, [alice, bob], builder(width), SecureAggregator(charlie, [alice, bob]), backend="numpy")

    def fit(x, y):
        begun = time.perf_counter()
        model.fit(x, y, batch_size=1, verbose=0)
        return time.perf_counter() - begun

    fit(*arrays[:2])
    times = []
    for _ in range(repeats):
        few = fit(*arrays[:2])
        times.append((fit(*arrays[2:]) - few) / many)
    pages = sf.ledger().pages
    sent = lambda one, other: max(entry.nbytes for entry in pages[one].entries[-6 * many :] if entry.to == other)
    found = {"parameters": 8 * (width + 1), "rounds": many, "round_ms": 1e3 * statistics.median(times)}
    print("FOUND", json.dumps(found | {"up": sent("alice", "charlie"), "down": sent("charlie", "alice")}), flush=True)
sf.shutdown()
"""


def serve(host: str, up: int, down: int) -> None:
    """Takes two peers' bytes, and answers when both are there."""
    answer, both = np.zeros(down, np.uint8), threading.Barrier(2)
    listener = socket.create_server((host, PORT))
    print("ready", flush=True)

    def one(line: Any) -> None:
        try:
            while True:
                received(line, up)
                both.wait()
                line.sendall(answer)
        except EOFError:
            both.abort()
        except threading.BrokenBarrierError:
            pass

    context = keys("charlie").context(answering=True)
    threads = []
    for _ in range(2):
        line = context.wrap_socket(listener.accept()[0], server_side=True)
        tune(line)
        threads.append(threading.Thread(target=one, args=(line,)))
    for thread in threads:
        thread.start()


def peer(host: str, name: str, up: int, down: int, rounds: int) -> None:
    """Exchanges bytes with the server, and prints milliseconds a round."""
    message = np.zeros(up, np.uint8)
    line = keys(name).context(answering=False).wrap_socket(socket.create_connection((host, PORT)))
    tune(line)
    begun = 0.0
    for turn in range(rounds + 1):
        if turn == 1:  # the first fills caches
            begun = time.perf_counter()
        line.sendall(message)
        received(line, down)
    print(1e3 * (time.perf_counter() - begun) / rounds)


def bare(machines: dict[str, Any], found: dict[str, Any]) -> float:
    """Returns milliseconds of a bare exchange."""
    script, where = [sys.executable, str(Path(__file__).resolve())], machines["charlie"].ip
    sizes = [str(found["up"]), str(found["down"])]
    server = machines["charlie"].begin([*script, "--serve", where, *sizes], PYTHONPATH=str(ROOT))
    if server.stdout is None or server.stdout.readline() != "ready\n":
        raise RuntimeError(server.communicate()[1])
    arguments = [*sizes, str(found["rounds"])]
    peers: list[subprocess.Popen[str]] = [
        machines[name].begin([*script, "--peer", where, name, *arguments], PYTHONPATH=str(ROOT))
        for name in ("alice", "bob")
    ]
    times = [float(one.communicate(timeout=600)[0]) for one in peers]
    server.communicate(timeout=20)
    return max(times)


def measure(sizes: list[int], rounds: int, repeats: int, *, insecure: bool = False, slow: bool = False) -> list[Any]:
    """Returns what rounds and bare exchanges of these sizes take on machines made for it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cluster import several  # of the tests

    with several.several("alice", "bob", secure=not insecure) as machines:
        if slow:
            machines["alice"].slow(DELAY_MS, MBIT)
            time.sleep(20)  # the others look for her new card under its address
        server = machines["charlie"]
        (server.home / "driver.py").write_text(DRIVER)
        mode = "insecure" if insecure else "secure"
        line = ["python", "driver.py", str(rounds), mode, str(repeats), *map(str, sizes)]
        code, out, err = server.run(line, 1500, PYTHONPATH=str(ROOT))
        if code:
            raise RuntimeError(err)
        results = [json.loads(one.removeprefix("FOUND ")) for one in out.splitlines() if one.startswith("FOUND ")]
        for found in results:
            found["bare_ms"] = statistics.median(bare(machines, found) for _ in range(repeats))
            found |= {"ratio": found["round_ms"] / found["bare_ms"], "cluster": mode}
            if slow:
                # Her message, then the answer, and a round trip.
                found["floor_ms"] = 1e3 * ((found["up"] + found["down"]) * 8 / (MBIT * 1e6) + 2 * DELAY_MS / 1e3)
                found["ratio_to_floor"] = found["round_ms"] / found["floor_ms"]
    return results


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, nargs="*", default=[36_000, 1_000_000, 10_000_000])
    parser.add_argument("--slow", type=int, nargs="*", default=[36_000, 1_000_000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=3)
    parser.add_argument("--peer", nargs=5)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], *map(int, options.serve[1:]))
        return
    if options.peer:
        peer(options.peer[0], options.peer[1], *map(int, options.peer[2:]))
        return
    found = []
    if options.parameters:
        found += measure(options.parameters, 300, REPEATS)
        found += measure(options.parameters, 300, REPEATS, insecure=True)
    if options.slow:
        found += measure(options.slow, 3, 1, slow=True)
    for row in found:
        print(
            ", ".join(
                f"{name} {value:,.2f}" if type(value) is float else f"{name} {value}" for name, value in row.items()
            )
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
