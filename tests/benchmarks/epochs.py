# SPDX-License-Identifier: Apache-2.0
"""Epochs of the reference program, against the floors, in one run: interleaved, repeated, median and spread.

    python tests/benchmarks/epochs.py [--samples 60000] [--repeats 3] [--parties 2] [--backend torch] [--json FILE]
        [--only NAME ...]

CPU seconds are those of the parties and of the server together, so that a figure can be trusted on a noisy machine.
Bytes are what left all processes for each other, by their ledgers, per round. Memory is the peak of each process, with
the models of all contenders in it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import time
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from floors import Floors
from networks import BATCH
from tutorial import MODELS, rows

import fedray as sf
from fedray.data.ndarray import load
from fedray.ml.nn import FLModel
from fedray.ml.nn.callbacks import USED_HOOKS
from fedray.party.door.egress import DRIVER
from fedray.security.aggregation import PlainAggregator, SecureAggregator, SPUAggregator
from fedray.utils.simulation.datasets import dataset

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")


class Stopwatch:
    """A callback that times epochs, of no framework.

    Attributes:
        seconds: Of each epoch.
    """

    def __init__(self) -> None:
        self.seconds = list[float]()
        for hook in USED_HOOKS:
            if not hasattr(type(self), hook):
                setattr(self, hook, _nothing)

    def on_epoch_begin(self, *_: Any) -> None:
        """Starts the watch."""
        self._begun = time.perf_counter()

    def on_epoch_end(self, *_: Any) -> None:
        """Stops it."""
        self.seconds.append(time.perf_counter() - self._begun)


def _nothing(*_: Any) -> None:
    """Is a hook that has nothing to do, and is marked so as Keras marks its own."""


_nothing._is_default = True  # type: ignore[attr-defined]


def peak_megabytes() -> float:
    """Returns the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bytes_sent() -> int:
    """Returns the bytes that parties and server have sent each other so far, as their ledgers say."""
    return sum(total.nbytes for (_, to, _), total in sf.ledger().totals().items() if to != DRIVER)


def cpu_seconds() -> float:
    """Returns this process's CPU time; runs inside a party."""
    return time.process_time()


class Contender:
    """One way to train, its model made once."""

    def __init__(
        self, aggregator: Any, devices: list[sf.PYU], server: sf.PYU, arrays: Any, frequency: int, framework: str
    ) -> None:
        self._model = FLModel(server, devices, aggregator=aggregator, random_seed=1, **MODELS[framework])
        self._arrays, self._frequency = arrays, frequency
        steps = math.ceil(max(shape[0] for shape in arrays[0].partition_shape().values()) / BATCH)
        self._rounds = math.ceil(steps / frequency)
        self._processes = [*devices, server]

    def epoch(self, number: int) -> tuple[float, float]:
        """Returns wall seconds of one epoch, and CPU seconds of all parties and the server."""
        watch, before = Stopwatch(), self._cpu()
        self._model.fit(
            *self._arrays,
            batch_size=BATCH,
            epochs=number + 1,
            initial_epoch=number,
            aggregate_freq=self._frequency,
            verbose=0,
            callbacks=[watch],
        )
        return watch.seconds[0], self._cpu() - before

    def bytes_a_round(self, number: int) -> float:
        """Returns the bytes that one more epoch moves between parties and server, per round."""
        before = bytes_sent()
        self.epoch(number)
        return (bytes_sent() - before) / self._rounds

    def _cpu(self) -> float:
        return sum(sf.reveal([device(cpu_seconds)() for device in self._processes]))


def contenders(devices: list[sf.PYU], server: sf.PYU, samples: int, framework: str) -> dict[str, Contender]:
    """Returns every way to train, by name."""
    parts, channels = len(devices), MODELS[framework]["backend"] == "torch"
    shares = {d: d(rows, num_returns=2)(part, parts, samples, channels) for part, d in enumerate(devices)}
    arrays = tuple(load({device: share[place] for device, share in shares.items()}) for place in (0, 1))
    every = -(-(samples // parts) // BATCH)
    spu = sf.SPU(sf.utils.testing.cluster_def([device.name for device in devices[:2]]))
    kinds = {
        "plain, every batch": (PlainAggregator(server, devices), 1),
        "secure, every batch": (SecureAggregator(server, devices), 1),
        "SPU, every batch": (SPUAggregator(spu), 1),
        "secure, every 10 batches": (SecureAggregator(server, devices), 10),
        "secure, once an epoch": (SecureAggregator(server, devices), every),
    }
    return {
        name: Contender(aggregator, devices, server, arrays, frequency, framework)
        for name, (aggregator, frequency) in kinds.items()
    }


def measure(parties: int, samples: int, repeats: int, only: list[str], framework: str) -> dict[str, Any]:
    """Returns wall and CPU seconds of every repeat by contender, after an epoch each that is not counted.

    Beside them stand the bytes of one round, by contender, and the peak memory in MB, by process.
    """
    floors = Floors(parties, samples, dataset("mnist"), framework)
    own = Floors(parties, samples, dataset("mnist"), framework, own=True)
    sf.init([*NAMES[:parties], "server"], address="local", seed=1, threads=1)
    devices, server = [sf.PYU(name) for name in NAMES[:parties]], sf.PYU("server")
    runs: dict[str, Any] = {
        kind: lambda number, kind=kind: floors.epoch(kind, number) for kind in ("free", "synchronous")
    }
    runs["our own step, no federation"] = lambda number: own.epoch("synchronous", number)
    chosen = {n: c for n, c in contenders(devices, server, samples, framework).items() if not only or n in only}
    runs |= {name: contender.epoch for name, contender in chosen.items()}
    found: dict[str, dict[str, Any]] = {name: {"wall": [], "cpu": []} for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            wall, cpu = run(number)
            if number:
                found[name]["wall"].append(wall)
                found[name]["cpu"].append(cpu)
    floors.stop()
    own.stop()
    moved = {name: contender.bytes_a_round(repeats + 1) for name, contender in chosen.items()}
    peaks = {device.name: sf.reveal(device(peak_megabytes)()) for device in (*devices, server)}
    sf.shutdown()
    return {"seconds": found, "bytes a round": moved, "peak MB": peaks | {"driver": peak_megabytes()}}


def table(result: Mapping[str, Any], parties: int) -> str:
    """Returns the figures as Markdown, with ratios to both floors of the same run."""
    found, moved = result["seconds"], result["bytes a round"]
    medians = {name: {k: statistics.median(v) for k, v in times.items()} for name, times in found.items()}
    free, synchronous = medians["free"], medians["synchronous"]
    lines = [
        f"| {parties} parties | s an epoch | spread | of free | of synchronous | CPU s | of synchronous | kB a round |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, m in medians.items():
        spread = f"{min(found[name]['wall']):.2f} to {max(found[name]['wall']):.2f}"
        ratios = f"{m['wall'] / free['wall']:.3f} | {m['wall'] / synchronous['wall']:.3f}"
        sent = f"{moved[name] / 1e3:.0f}" if name in moved else ""
        cpu = f"{m['cpu']:.1f} | {m['cpu'] / synchronous['cpu']:.3f}"
        lines.append(f"| {name} | {m['wall']:.2f} | {spread} | {ratios} | {cpu} | {sent} |")
    peaks = ", ".join(f"{name} {megabytes:.0f}" for name, megabytes in result["peak MB"].items())
    return "\n".join([*lines, "", f"peak memory, MB: {peaks}", ""])


def machine() -> dict[str, Any]:
    """Returns what the figures were taken on."""
    return {
        "processor": next(
            (
                line.partition(":")[2].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.processor(),
        ),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "ray": metadata.version("ray"),
        **{name: metadata.version(name) for name in ("tensorflow", "torch") if find_spec(name)},
        "numpy": np.__version__,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parties", type=int, nargs="+", default=[2])
    parser.add_argument("--backend", choices=list(MODELS), default="tensorflow")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for parties in arguments.parties:
        found = measure(parties, arguments.samples, arguments.repeats, arguments.only, arguments.backend)
        results[str(parties)] = found
        print(table(found, parties), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "epochs": results}, indent=1))


if __name__ == "__main__":
    main()
