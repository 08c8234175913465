# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint an epoch costs: fits of the reference program with and without, in turn, of one model in one run.

    python tests/benchmarks/checkpoints.py [--samples 20000 60000] [--epochs 3] [--repeats 5] [--json FILE]

Seconds are those of a whole fit over its epochs: what begins and ends a run that is kept is in them, and the checkpoint
of its beginning. CPU seconds are those of all processes, the driver's too. On a machine that has other things to do
wall times differ by more than a checkpoint costs; CPU seconds differ less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from epochs import cpu_seconds, machine
from networks import BATCH
from tutorial import MODELS

import fedray as sf
from fedray.ml.nn import FLModel
from fedray.security.aggregation import SecureAggregator
from fedray.utils.simulation.datasets import load_mnist

KINDS = ("without", "with")


def measure(samples: int, epochs: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Returns seconds an epoch, wall and CPU, by kind, after a fit that is not counted.

    Args:
        samples: Training images, half of them at each of two parties; all test images are validated on.
        epochs: Of each fit.
        repeats: Fits of each kind.
    """
    sf.init(["alice", "bob", "charlie"], address="local", seed=1)
    devices, server = [sf.PYU("alice"), sf.PYU("bob")], sf.PYU("charlie")
    half = samples // 2
    parts = {device: (place * half, (place + 1) * half) for place, device in enumerate(devices)}
    rows, _ = load_mnist(parts=parts, normalized_x=True, categorical_y=True)
    _, validation = load_mnist(parts=devices, normalized_x=True, categorical_y=True)
    aggregator = SecureAggregator(server, devices)
    model = FLModel(server, devices, aggregator=aggregator, random_seed=1, **MODELS["tensorflow"])
    arguments: dict[str, Any] = {"batch_size": BATCH, "validation_data": validation, "verbose": 0}
    found: dict[str, dict[str, list[float]]] = {kind: {"wall": [], "cpu": []} for kind in KINDS}

    def cpu() -> float:
        return time.process_time() + float(sum(sf.reveal([device(cpu_seconds)() for device in (*devices, server)])))

    model.fit(*rows, epochs=1, **arguments)
    for number in range(repeats):
        for kind in KINDS if number % 2 else reversed(KINDS):
            with tempfile.TemporaryDirectory() as folder:
                kept = sf.Checkpoint(folder, every="epoch") if kind == "with" else None
                before, begun = cpu(), time.perf_counter()
                model.fit(*rows, epochs=epochs, checkpoint=kept, **arguments)
                found[kind]["wall"].append((time.perf_counter() - begun) / epochs)
                found[kind]["cpu"].append((cpu() - before) / epochs)
    sf.shutdown()
    return found


def table(results: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Returns the figures as Markdown: medians, their ratio, and the median of the ratios of each pair."""
    lines = ["| images | | without, s an epoch | with | ratio | of pairs |", "|---|---|---|---|---|---|"]
    for samples, found in results.items():
        for what in ("wall", "cpu"):
            without, kept = found["without"][what], found["with"][what]
            pairs = statistics.median(b / a for a, b in zip(without, kept, strict=True))
            first, second = statistics.median(without), statistics.median(kept)
            lines.append(f"| {samples} | {what} | {first:.3f} | {second:.3f} | {second / first:.3f} | {pairs:.3f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {str(number): measure(number, arguments.epochs, arguments.repeats) for number in arguments.samples}
    print(table(results), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "checkpoints": results}, indent=1))


if __name__ == "__main__":
    main()
