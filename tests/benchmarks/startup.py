# SPDX-License-Identifier: Apache-2.0
"""From nothing to the first step, against what Ray and the framework need by themselves; what comes warm after it; and
the peak memory of a run.

    python tests/benchmarks/startup.py [--repeats 3] [--json FILE]

Each start is a fresh process. The floor starts Ray with the same settings, three actors, and imports the framework in
two of them at once. fedray's start goes on to the first step of the reference program.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from epochs import machine

FLOOR = """
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


def start(program: str) -> dict[str, Any]:
    """Runs a program in a fresh process and returns what it prints last."""
    here = str(Path(__file__).parent)  # where the parties find the model's module
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, env=variables)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = [(start(FLOOR), start(OWN)) for _ in range(arguments.repeats)]
    for title, place, last in (("Ray and framework alone", 0, "framework"), ("fedray", 1, "first step")):
        stages = [stage for stage in runs[0][place] if stage not in ("peak MB", "heavy imports", "warm")]
        medians = {stage: statistics.median(run[place][stage] for run in runs) for stage in stages}
        print(f"{title}: " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in medians.items()))
        print(
            f"  spread of {last}: {min(r[place][last] for r in runs):.1f} to {max(r[place][last] for r in runs):.1f} s"
        )
    ratios = [mine["first step"] / floor["framework"] for floor, mine in runs]
    print(f"first step / floor: median {statistics.median(ratios):.2f}, of {[round(ratio, 2) for ratio in ratios]}")
    warm = {stage: statistics.median(mine["warm"][stage] for _, mine in runs) for stage in runs[0][1]["warm"]}
    print(
        "afterwards, in the same process: " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in warm.items())
    )
    print(f"peak memory, MB: {runs[-1][1]['peak MB']}; heavy imports at the driver: {runs[-1][1]['heavy imports']}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "startup": runs}, indent=1))


if __name__ == "__main__":
    main()
