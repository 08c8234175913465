# SPDX-License-Identifier: Apache-2.0
"""From nothing to the first step, against what Ray and the framework need by themselves; what comes warm after it; and
the peak memory of a run.

    python tests/benchmarks/startup.py [--repeats 3] [--json FILE]

Each start is a fresh process, the three kinds in turn. The floor is `bare_startup.py`: Ray as it starts by itself,
three actors, and the framework imported in two of them at once; it contains no line of ours. The same by our own start
of Ray, which leaves out services that nobody needs here, is a line of its own. fedray's start goes on to the first step
of the reference program; so does the floor, with a step written by hand, after the moment that is compared.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import secrets
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epochs import machine

from fedray.data import files

HERE = Path(__file__).parent
PACKAGE = Path(files.__file__).parents[1]
MNIST = PACKAGE / "data" / "mnist.npz"

WITH_OUR_SETTINGS = """
import json, time
begun = time.perf_counter()
import fedray.runtime.ray as runtime, ray
found = {"import": time.perf_counter() - begun}
cluster = runtime.local_cluster()
cluster.start({}, threads=1, show_output=False)
found["cluster"] = time.perf_counter() - begun
class Worker:
    def load(self):
        import tensorflow, keras
    def ready(self):
        return None
workers = [ray.remote(Worker).options(num_cpus=0).remote() for _ in range(3)]
ray.get([w.ready.remote() for w in workers])
found["actors"] = time.perf_counter() - begun
ray.get([w.load.remote() for w in workers[:2]])
found["framework"] = time.perf_counter() - begun
from spent import cpu_of_all
found["cpu"] = cpu_of_all()
cluster.stop()
print(json.dumps(found))
"""

OWN = """
import json, sys, time
begun = time.perf_counter()
import fedray as sf
from fedray.ml.nn import FLModel
from fedray.utils.simulation.datasets import load_mnist
found = {"import": time.perf_counter() - begun}
sf.init(["alice", "bob", "charlie"], address="local", seed=1)
found["init"] = time.perf_counter() - begun
alice, bob, charlie = sf.PYU("alice"), sf.PYU("bob"), sf.PYU("charlie")
from networks import conv_model
model = FLModel(charlie, [alice, bob], conv_model)
found["model"] = time.perf_counter() - begun
(x, y), _ = load_mnist(parts={alice: 0.002, bob: 0.002}, normalized_x=True, categorical_y=True)
model.fit(x, y, batch_size=128, verbose=0)
found["first step"] = time.perf_counter() - begun
from spent import cpu_of_all
found["cpu"] = cpu_of_all()
def peak():
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
found["peak MB"] = {p.name: sf.reveal(p(peak)()) for p in (alice, bob, charlie)} | {"driver": peak()}
found["heavy imports"] = [m for m in ("tensorflow", "torch", "keras") if m in sys.modules]
def taken(act):
    before = time.perf_counter()
    act()
    return time.perf_counter() - before
warm = found["warm"] = {}
warm["fit of one step"] = min(taken(lambda: model.fit(x, y, batch_size=128, verbose=0)) for _ in range(5))
warm["FLModel() once more"] = min(taken(lambda: FLModel(charlie, [alice, bob], conv_model)) for _ in range(3))
warm["shutdown"] = taken(sf.shutdown)
warm["init once more"] = taken(lambda: sf.init(["alice", "bob", "charlie"], address="local", seed=1))
sf.shutdown()
print(json.dumps(found))
"""

LINES = {
    "bare": ("Ray and framework alone", ["import", "cluster", "actors", "framework", "first step by hand"]),
    "settings": ("the same by our own start of Ray", ["import", "cluster", "actors", "framework"]),
    "own": ("fedray", ["import", "init", "model", "first step"]),
}


def start(*program: str) -> dict[str, Any]:
    """Runs a program in a fresh process and returns what it prints last.

    Args:
        *program: What Python is called with.
    """
    # Where the parties find the model's module. Ray by itself would tell its makers, and leave a token in the home.
    ours = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = os.environ | ours | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, *program], stdout=subprocess.PIPE, text=True, check=True, env=variables)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def one_of_each() -> dict[str, dict[str, Any]]:
    """Runs each kind of start once."""
    return {
        "bare": start(str(HERE / "bare_startup.py"), str(MNIST)),
        "settings": start("-c", WITH_OUR_SETTINGS),
        "own": start("-c", OWN),
    }


def report(runs: list[Mapping[str, Mapping[str, Any]]]) -> None:
    """Prints medians, and the ratios of each run.

    Args:
        runs: What `one_of_each` has returned.
    """
    for kind, (title, stages) in LINES.items():
        medians = {stage: statistics.median(run[kind][stage] for run in runs) for stage in stages}
        cpu = statistics.median(run[kind]["cpu"] for run in runs)
        print(f"{title}: " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in medians.items()), end="")
        print(f"; CPU {cpu:.1f} s")
    for what, last, cpu in (
        ("framework", "framework", "cpu"),
        ("first step by hand", "first step by hand", "cpu by hand"),
    ):
        ratios = [run["own"]["first step"] / run["bare"][last] for run in runs]
        spent = statistics.median(run["own"]["cpu"] / run["bare"][cpu] for run in runs)
        each = [round(ratio, 2) for ratio in ratios]
        print(f"first step, of the floor's {what}: median {statistics.median(ratios):.2f} of {each}; CPU {spent:.2f}")
    ratios = [run["own"]["first step"] / run["settings"]["framework"] for run in runs]
    print(f"the same, of our own start of Ray and framework: {statistics.median(ratios):.2f}")
    warm = {stage: statistics.median(run["own"]["warm"][stage] for run in runs) for stage in runs[0]["own"]["warm"]}
    told = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in warm.items())
    print(f"afterwards, in the same process: {told}")
    last_run = runs[-1]["own"]
    print(f"peak memory, MB: {last_run['peak MB']}; heavy imports at the driver: {last_run['heavy imports']}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    # As pip does with what it installs. Where Python is told to write no bytecode, a checkout would be compiled anew in
    # each of four processes: 0.2 s of each.
    compileall.compile_dir(PACKAGE, quiet=1)
    runs = [one_of_each() for _ in range(arguments.repeats)]
    report(runs)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "startup": runs}, indent=1))


if __name__ == "__main__":
    main()
