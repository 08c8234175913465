# SPDX-License-Identifier: Apache-2.0
"""Ray and the framework as somebody starts them who has only these two: the floor of `startup.py`.

    python tests/benchmarks/bare_startup.py FILE

`ray.init` with nothing left out but what the actors print, three actors, the framework imported in two of them at once:
so far goes the floor, which is compared with our start up to its first step. It then goes on to a first step of the
model written by hand (`bare_steps.py`), on 120 rows each and with a mean of both at the third actor, so that it is seen
what of the rest any program would pay. Prints seconds since it began as JSON, and CPU seconds of all processes. Imports
nothing of fedray.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

PARTS, SAMPLES = 2, 240


class Worker:
    """One of the three."""

    def ready(self) -> None:
        """Answers."""

    def load(self) -> None:
        """Imports the framework."""
        import keras  # noqa: F401
        import tensorflow  # noqa: F401

    def step(self, file: str, part: int) -> Any:
        """Builds the model, trains it on one batch, and returns its vector."""
        import numpy as np
        from bare_steps import Keras

        model = Keras(file, part, PARTS, SAMPLES)
        return model.train(model.vector, np.arange(model.rows))

    def mean(self, *vectors: Any) -> Any:
        """Returns the mean."""
        return sum(vectors) / len(vectors)


def main() -> None:
    """Starts, and prints what it took."""
    begun, found = time.perf_counter(), dict[str, float]()

    def passed(stage: str) -> None:
        found[stage] = time.perf_counter() - begun

    import ray

    passed("import")
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(address="local", _temp_dir=folder, log_to_driver=False)
        passed("cluster")
        made: Any = ray.remote(num_cpus=0)(Worker)
        workers = [made.remote() for _ in range(PARTS + 1)]
        ray.get([worker.ready.remote() for worker in workers])
        passed("actors")
        ray.get([worker.load.remote() for worker in workers[:PARTS]])
        passed("framework")
        from spent import cpu_of_all

        found["cpu"] = cpu_of_all()
        vectors = [worker.step.remote(sys.argv[1], part) for part, worker in enumerate(workers[:PARTS])]
        ray.get(workers[PARTS].mean.remote(*vectors))
        passed("first step by hand")
        found["cpu by hand"] = cpu_of_all()
        ray.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
